// Code that all widgets share; mvf.workbench.widgets.encoding.javascript joins it with a widget's own files.
//
//   Strip    decoded frames:   const strip = await Strip.load(meta, buffers)   meta from Python's encode_strip(s)
//                              strip.count, .width, .height (stored pixels; frames are never stored enlarged)
//                              strip.draw(ctx, index, x, y, width, height)
//            with encode_strips: buffers = model.get("sheets").slice(...meta.sheets)
//   Player   play button, slider and keys for a position 0..count-1:
//                              const player = new Player(root, { count, fps, label, onMove: (index) => ... })
//                              player.element (append it), player.index, player.move(i), player.setCount(n),
//                              player.toggle(), player.describe(text shown beside the slider), player.dispose()
//            keys anywhere in root, except in text fields: left and right step, with shift by ten, home and end jump, space plays
//   Synced   traits shared with Python; the page never waits for them:
//                              const state = new Synced(model, ["frame", ...], (key, value) => called when Python changes one)
//                              state.get(key), state.set(key, value), state.dispose()
//   onePerFrame(draw)          wraps `draw` so that many calls draw once in the next animation frame
//   fitCanvas(canvas, w, h)    sizes a canvas to w x h CSS pixels, sharp on any screen; returns its scaled context
//   createRoot(el, name, label), element(tag, properties, ...children), row(...children), button(text, onClick),
//   select(text, options [[value, text]], value, onChange), slider(text, {min, max, step, value}, onInput),
//   checkbox(text, checked, onChange): real controls with labels; the last three return { element, control }.
// Style: class "mvf" on the root, "mvf-row", "mvf-field", "mvf-note"; see common.css.

class Strip {
  constructor(meta, sheets) {
    Object.assign(this, { count: meta.count, width: meta.width, height: meta.height });
    this.meta = meta;
    this.sheets = sheets;
  }

  // createImageBitmap needs no URL; a notebook's content security policy may forbid fetching one.
  static async load(meta, buffers) {
    const blobs = Array.from(buffers, (buffer) => new Blob([buffer], { type: "image/jpeg" }));
    return new Strip(meta, await Promise.all(blobs.map((blob) => createImageBitmap(blob))));
  }

  draw(ctx, index, x, y, width, height) {
    const { columns, per_sheet: perSheet, cell_width: cellWidth, cell_height: cellHeight } = this.meta;
    const cell = index % perSheet;
    const left = (cell % columns) * cellWidth;
    const top = Math.floor(cell / columns) * cellHeight;
    const sheet = this.sheets[Math.floor(index / perSheet)];
    ctx.drawImage(sheet, left, top, this.width, this.height, x, y, width, height);
  }
}

class Player {
  constructor(root, { count, fps = 12, label = "Frame", onMove }) {
    Object.assign(this, { root, count, fps, onMove, index: 0, timer: null });
    this.play = button("Play", () => this.toggle());
    this.play.classList.add("mvf-play");
    this.slider = slider(label, { min: 0, max: count - 1, step: 1, value: 0 }, (value) => this.move(value));
    this.text = element("span", { className: "mvf-number", ariaHidden: "true" });
    this.element = element("div", { className: "mvf-row mvf-player" }, this.play, this.slider.element, this.text);
    this.onKey = (event) => this.press(event);
    root.addEventListener("keydown", this.onKey);
  }

  move(index) {
    this.show(index);
    this.onMove(this.index);
  }

  // Updates only the controls.
  show(index) {
    this.index = Math.max(0, Math.min(this.count - 1, index));
    this.slider.control.value = this.index;
  }

  setCount(count) {
    this.count = count;
    this.slider.control.max = count - 1;
    this.show(this.index);
  }

  describe(text) {
    this.text.textContent = text;
    this.slider.control.setAttribute("aria-valuetext", text);
  }

  toggle() {
    if (this.timer !== null) return this.stop();
    this.play.textContent = "Pause";
    if (this.index === this.count - 1) this.move(0);
    let shown = performance.now();
    const tick = (now) => {
      // A notebook may remove the output without an event; the player must stop then.
      if (!this.root.isConnected) return this.stop();
      const steps = Math.floor(((now - shown) * this.fps) / 1000); // more than one if the page is slow
      if (steps > 0) {
        shown += (steps * 1000) / this.fps;
        this.move((this.index + steps) % this.count);
      }
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
  }

  stop() {
    cancelAnimationFrame(this.timer);
    this.timer = null;
    this.play.textContent = "Play";
  }

  press(event) {
    const typed = event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (typed || event.altKey || event.ctrlKey || event.metaKey) return;
    const others = event.target.closest("input[type=range]");
    if (others && others !== this.slider.control && event.key !== " ") return; // that slider handles its own arrow keys
    if (event.key === " " && event.target.closest("button, input[type=checkbox]")) return; // space activates that control
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key === " ") this.toggle();
    else if (event.key in steps) this.step(steps[event.key] * (event.shiftKey ? 10 : 1));
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  step(by) {
    this.stop();
    this.move(this.index + by);
  }

  dispose() {
    this.stop();
    this.root.removeEventListener("keydown", this.onKey);
  }
}

// The page draws at once and sends its state to Python at most four times a second. While a value waits to be sent,
// the kernel's echo of an earlier value must not overwrite it.
class Synced {
  constructor(model, keys, onChange) {
    Object.assign(this, { model, keys, timer: null, told: {} });
    this.values = Object.fromEntries(keys.map((key) => [key, model.get(key)]));
    this.listeners = keys.map((key) => [`change:${key}`, () => this.receive(key, onChange)]);
    for (const [name, listener] of this.listeners) model.on(name, listener);
  }

  get(key) {
    return this.values[key];
  }

  set(key, value) {
    if (this.values[key] === value) return;
    this.values[key] = value;
    this.timer ??= setTimeout(() => this.tell(), 250);
  }

  tell() {
    this.timer = null;
    this.told = { ...this.values };
    for (const key of this.keys) this.model.set(key, this.values[key]);
    this.model.save_changes();
  }

  receive(key, onChange) {
    const value = this.model.get(key);
    if (value === this.values[key] || (this.timer !== null && value === this.told[key])) return;
    this.values[key] = value;
    onChange(key, value);
  }

  dispose() {
    clearTimeout(this.timer);
    if (this.timer !== null) this.tell();
    for (const [name, listener] of this.listeners) this.model.off(name, listener);
  }
}

function onePerFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

function fitCanvas(canvas, width, height) {
  const ratio = window.devicePixelRatio || 1;
  const [w, h] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== w || canvas.height !== h) Object.assign(canvas, { width: w, height: h });
  Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
  const ctx = canvas.getContext("2d");
  ctx.setTransform(ratio, 0, 0, ratio, 0, 0);
  return ctx;
}

// Makes the object that a widget's file exports; it renders a `View` and disposes of it on removal.
function widget(View) {
  const render = ({ model, el }) => {
    const view = new View(model, el);
    return () => view.dispose();
  };
  return { render };
}

// JupyterLab and Notebook 7 capture arrow keys in command mode unless the focused element has this attribute.
function createRoot(el, name, label) {
  const root = element("div", { className: "mvf", tabIndex: 0, role: "group", ariaLabel: label });
  root.dataset.mvf = name;
  root.addEventListener("focusin", (event) => event.target.setAttribute("data-lm-suppress-shortcuts", "true"));
  el.append(root);
  return root;
}

function element(tag, properties = {}, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function row(...children) {
  return element("div", { className: "mvf-row" }, ...children);
}

function button(text, onClick) {
  return element("button", { type: "button", textContent: text, onclick: onClick });
}

function field(text, control, className) {
  const name = element("span", { className: "mvf-label", textContent: text });
  const children = control.type === "checkbox" ? [control, name] : [name, control];
  return { element: element("label", { className: `mvf-field ${className}` }, ...children), control };
}

function select(text, options, value, onChange) {
  const control = element("select");
  for (const [key, label] of options) control.append(element("option", { value: key, textContent: label }));
  control.value = value;
  control.disabled = options.length < 2;
  control.onchange = () => onChange(control.value);
  return field(text, control, "mvf-select");
}

function slider(text, { min, max, step, value }, onInput) {
  const control = element("input", { type: "range", min, max, step });
  control.value = value;
  control.oninput = () => onInput(Number(control.value));
  return field(text, control, "mvf-slider");
}

function checkbox(text, checked, onChange) {
  const control = element("input", { type: "checkbox", checked });
  control.onchange = () => onChange(control.checked);
  return field(text, control, "mvf-checkbox");
}
