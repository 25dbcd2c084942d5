// Code that all widgets share; mvf.workbench.widgets.encoding.javascript joins it with a widget's own files.
//
//   Strip    decoded frames:   const strip = await Strip.load(meta, buffers)   meta from Python's encode_strip(s)
//                              strip.count, .width, .height (stored pixels; frames are never stored enlarged)
//                              strip.draw(ctx, index, x, y, width, height)
//            with encode_strips: buffers = model.get("sheets").slice(...meta.sheets)
//   Player   timeline, toolbar and keys for a position 0..count-1, as below the picture of a video player:
//                              const player = new Player(root, { count, fps, label, speeds, keys, onMove, onSize })
//                              player.element (append it) = player.timeline + player.toolbar, player.index,
//                              player.move(i), player.setCount(n), player.toggle(), player.describe(text of the place),
//                              player.drawTrack(ribbons, palette, film, height), player.space(body), player.dispose()
//            keys anywhere in root, except in text fields: left and right step, with shift by ten, home and end jump,
//            space plays, f fills the screen; `keys` are more of them, { key: what it does }
//   tile     how many pictures in a row, and how large, so that they fill a space
//   Synced   traits shared with Python; the page never waits for them:
//                              const state = new Synced(model, ["frame", ...], (key, value) => called when Python changes one)
//                              state.get(key), state.set(key, value), state.dispose()
//   onePerFrame(draw)          wraps `draw` so that many calls draw once in the next animation frame
//   fitCanvas(canvas, w, h)    sizes a canvas to w x h CSS pixels, sharp on any screen; returns its scaled context
//   createRoot(el, name, label), element(tag, properties, ...children), row(...children), button(text, onClick),
//   iconButton(icon, label, onClick), select(text, options [[value, text]], value, onChange),
//   slider(text, {min, max, step, value}, onInput), checkbox(text, checked, onChange): real controls with labels;
//   the last three return { element, control }.
// Style: class "mvf" on the root, "mvf-row", "mvf-field", "mvf-note"; see common.css.

const GAP = 10; // CSS pixels between pictures
const THUMB = 6; // width of the cursor on the timeline, as in common.css
const TRACK = 18; // height of the timeline
const THIN = 10; // height of a further ribbon on it
const FILM = 44; // height of a film strip above it
const SIZES = [["0.5", "S"], ["0.75", "M"], ["1", "L"]]; // shares of the width that the pictures take
const ENOUGH = 280; // CSS pixels: wide enough for a picture
const TALLEST = 0.65; // of the window's height that the pictures take at most
const ICONS = { // outline, and the key that does the same
  play: ["M4 2l10 6-10 6z", "space"],
  pause: ["M3 2h4v12H3zM9 2h4v12H9z", "space"],
  back: ["M13 2v12L6 8zM3 2h2v12H3z", "left"],
  forward: ["M3 2v12l7-6zM11 2h2v12h-2z", "right"],
  full: ["M2 2h5v2H4v3H2zM9 2h5v5h-2V4H9zM14 9v5H9v-2h3V9zM2 9h2v3h3v2H2z", "F"],
};

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
  constructor(root, { count, fps = 12, label = "Frame", speeds = [0.25, 0.5, 1, 2], keys = {}, onMove, onSize }) {
    Object.assign(this, { root, count, fps, keys, onMove, onSize, index: 0, timer: null });
    this.track = element("canvas", { ariaHidden: "true" });
    this.slider = element("input", { type: "range", className: "mvf-scrub", ariaLabel: label, min: 0, step: 1 });
    this.slider.oninput = () => this.move(Number(this.slider.value));
    this.timeline = element("div", { className: "mvf-timeline" }, this.track, this.slider);
    this.play = iconButton("play", "Play", () => this.toggle());
    this.text = element("span", { className: "mvf-number", ariaHidden: "true" });
    this.speed = select("Speed", speeds.map((speed) => [speed, `${speed} ×`]), 1, () => {});
    this.size = select("Size", SIZES, "1", onSize);
    this.full = iconButton("full", "Full screen", () => this.fill());
    this.full.hidden = !document.fullscreenEnabled;
    const [back, forward] = [["back", "Previous frame", -1], ["forward", "Next frame", 1]].map(([icon, text, by]) =>
      iconButton(icon, text, () => this.step(by)),
    );
    const others = element("span", { className: "mvf-field mvf-end" }, this.speed.element, this.size.element, this.full);
    this.toolbar = row(back, this.play, forward, this.text, others);
    this.element = element("div", { className: "mvf-player" }, this.timeline, this.toolbar);
    this.onKey = (event) => this.press(event);
    this.onWindow = weakly(this, "onSize"); // the window's height changes without the root's width
    root.addEventListener("keydown", this.onKey);
    window.addEventListener("resize", this.onWindow);
    this.setCount(count);
  }

  move(index) {
    this.show(index);
    this.onMove(this.index);
  }

  // Updates only the controls.
  show(index) {
    this.index = Math.max(0, Math.min(this.count - 1, index));
    this.slider.value = this.index;
  }

  setCount(count) {
    this.count = count;
    this.slider.max = count - 1;
    this.show(this.index);
  }

  describe(text) {
    this.text.textContent = text;
    this.slider.setAttribute("aria-valuetext", text);
  }

  // Draws what lies under the cursor: ribbons of phases, the first with their names, or how far the video has come.
  // `film` draws a strip of frames or a curve above them: film(ctx, width, height, x of a position).
  drawTrack(ribbons, palette, film = null, filmHeight = FILM) {
    const [width, above] = [this.timeline.clientWidth, film ? filmHeight : 0];
    const height = above + TRACK + THIN * Math.max(0, ribbons.length - 1);
    this.timeline.style.height = `${height}px`;
    const ctx = fitCanvas(this.track, width, height);
    ctx.clearRect(0, 0, width, height);
    const place = (index) => THUMB / 2 + (index / Math.max(1, this.count - 1)) * (width - THUMB);
    ctx.save();
    film?.(ctx, width, above, place);
    ctx.restore();
    ctx.translate(0, above);
    if (!ribbons.length) this.drawProgress(ctx, width, place(this.index));
    Object.assign(ctx, { font: "11px system-ui, sans-serif", textBaseline: "middle" });
    ribbons.forEach((phases, i) => {
      const [top, high] = i ? [TRACK + THIN * (i - 1) + 1, THIN - 1] : [0, TRACK];
      runsOf(phases).forEach(([first, phase], k, runs) => {
        const left = k ? place(first - 0.5) : 0;
        const right = k + 1 < runs.length ? place(runs[k + 1][0] - 0.5) : width;
        ctx.fillStyle = phase < 0 ? palette.unlabelled : palette.colours[phase];
        ctx.fillRect(left, top, right - left, high);
        const name = i ? "" : (palette.names[phase] ?? "");
        ctx.fillStyle = inkOn(ctx.fillStyle);
        if (ctx.measureText(name).width + 10 < right - left) ctx.fillText(name, left + 5, TRACK / 2 + 1);
      });
    });
  }

  drawProgress(ctx, width, reached) {
    const style = getComputedStyle(this.root);
    for (const [colour, right] of [["--mvf-line", width], ["--mvf-accent", reached]]) {
      ctx.fillStyle = style.getPropertyValue(colour);
      ctx.fillRect(0, TRACK / 2 - 3, right, 6);
    }
  }

  // A page of its own and a full screen have no more room than the window; in a notebook pictures fill the width.
  get fits() {
    return document.fullscreenElement === this.root || document.body.classList.contains("mvf-page");
  }

  // Width and height for the pictures in `body`.
  space(body) {
    const share = this.fits ? 1 : Number(this.size.control.value);
    this.size.element.hidden = this.fits;
    const bottom = this.root.lastElementChild.getBoundingClientRect().bottom;
    const others = bottom - this.root.getBoundingClientRect().top - body.offsetHeight;
    const height = this.fits ? window.innerHeight - others - 24 : TALLEST * window.innerHeight * share;
    return { width: innerWidthOf(this.root) * share, height: Math.max(120, height), fits: this.fits };
  }

  // A page may be shown where it must not fill the screen.
  fill() {
    if (document.fullscreenElement === this.root) document.exitFullscreen();
    else this.root.requestFullscreen?.().catch(() => {});
  }

  toggle() {
    if (this.timer !== null) return this.stop();
    setIcon(this.play, "pause", "Pause");
    if (this.index === this.count - 1) this.move(0);
    let shown = performance.now();
    const tick = (now) => {
      // A notebook may remove the output without an event; the player must stop then.
      if (!this.root.isConnected) return this.stop();
      const rate = this.fps * Number(this.speed.control.value);
      const steps = Math.floor(((now - shown) * rate) / 1000); // more than one if the page is slow
      if (steps > 0) {
        shown += (steps * 1000) / rate;
        this.move((this.index + steps) % this.count);
      }
      this.timer = requestAnimationFrame(tick);
    };
    this.timer = requestAnimationFrame(tick);
  }

  stop() {
    cancelAnimationFrame(this.timer);
    this.timer = null;
    setIcon(this.play, "play", "Play");
  }

  press(event) {
    const typed = event.target.closest("input:not([type=range]):not([type=checkbox]), textarea, select");
    if (typed || event.altKey || event.ctrlKey || event.metaKey) return;
    const others = event.target.closest("input[type=range]");
    if (others && others !== this.slider && event.key !== " ") return; // that slider handles its own arrow keys
    if (event.key === " " && event.target.closest("button, input[type=checkbox]")) return; // space activates that control
    const steps = { ArrowLeft: -1, ArrowRight: 1, Home: -Infinity, End: Infinity };
    if (event.key === " ") this.toggle();
    else if (event.key === "f") this.fill();
    else if (event.key in steps) this.step(steps[event.key] * (event.shiftKey ? 10 : 1));
    else if (event.key in this.keys) this.keys[event.key]();
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
    window.removeEventListener("resize", this.onWindow);
  }
}

// Columns and size of `count` pictures of one aspect ratio (width / height), each with `extra` pixels of text: the
// fewest rows in which the pictures are wide enough, or as large as they can be.
function tile(count, aspect, { width, height }, extra = 0) {
  let best = { w: 0 };
  for (let rows = 1; rows <= count && best.w < ENOUGH; rows++) {
    const columns = Math.ceil(count / rows);
    const [across, down] = [(width + GAP) / columns - GAP, (height + GAP) / Math.ceil(count / columns) - GAP - extra];
    const w = Math.max(40, Math.floor(Math.min(across, down * aspect)));
    if (w > 1.2 * best.w) best = { columns, w, h: Math.round(w / aspect) };
  }
  return best;
}

// Width inside the root's padding.
function innerWidthOf(root) {
  return Math.max(120, root.clientWidth - 12);
}

function runsOf(phases) {
  const runs = [];
  for (let i = 0; i < phases.length; i++) if (i === 0 || phases[i] !== phases[i - 1]) runs.push([i, phases[i]]);
  return runs;
}

// Black or white, whichever can be read on a colour "#rrggbb".
function inkOn(colour) {
  const [red, green, blue] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue > 140 ? "#000" : "#fff";
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

// Calls a method of an object while something else keeps the object: a notebook drops an output without a word, and the
// window's listeners would keep its frames.
function weakly(target, method) {
  const kept = new WeakRef(target);
  return onePerFrame(() => kept.deref()?.[method]());
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

function iconButton(icon, label, onClick) {
  const control = button("", onClick);
  control.className = "mvf-icon";
  setIcon(control, icon, label);
  return control;
}

function setIcon(control, icon, label) {
  if (control.ariaLabel === label) return;
  const picture = element("span");
  const [outline, key] = ICONS[icon];
  picture.style.clipPath = `path("${outline}")`;
  control.replaceChildren(picture);
  Object.assign(control, { ariaLabel: label, title: `${label} (${key})` });
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
