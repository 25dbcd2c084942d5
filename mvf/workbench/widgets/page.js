
// A page without a kernel: a stand-in for anywidget's model holds the traits, which come from the page itself.

// Bytes are written as { $bytes: base64 }, and arrive as a DataView, as from a kernel.
function revive(value) {
  if (Array.isArray(value)) return value.map(revive);
  if (value === null || typeof value !== "object") return value;
  if (!("$bytes" in value)) return Object.fromEntries(Object.entries(value).map(([key, one]) => [key, revive(one)]));
  return new DataView(Uint8Array.from(atob(value.$bytes), (letter) => letter.charCodeAt(0)).buffer);
}

class Model {
  constructor(traits) {
    Object.assign(this, { traits, listeners: {} });
  }

  get(key) {
    if (!(key in this.traits)) throw new Error(`no synced trait ${key}`);
    return this.traits[key];
  }

  set(key, value) {
    if (this.get(key) === value) return;
    this.traits[key] = value;
    for (const listener of this.listeners[`change:${key}`] ?? []) listener();
  }

  on(name, listener) {
    (this.listeners[name] ??= []).push(listener);
  }

  off(name, listener) {
    this.listeners[name] = (this.listeners[name] ?? []).filter((one) => one !== listener);
  }

  save_changes() {}

  send() {}
}

// Shows the widget in an element that holds its traits, in place of what it shows so far.
function startPage(place) {
  const stored = place.querySelector("script[type='application/json']");
  const model = new Model(revive(JSON.parse(stored.textContent)));
  place.replaceChildren();
  shown.render({ model, el: place });
  return place;
}
