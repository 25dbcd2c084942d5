// The attention browser: controls, panels and saving; frames.js and overlay.js are joined before this file.

const CAPTION = 20;
const LEGEND = 26;
const FONT = "12px system-ui, sans-serif";
const EVEN = 1.5; // a map whose largest value is below this multiple of its mean is called nearly even

class AttentionView extends FrameView {
  constructor(model, el) {
    super(model);
    this.clips = new Clips(model, Infinity);
    this.loaded = new Map();
    this.root = createRoot(el, "attention-browser", "Attention browser");
    this.state = new Synced(
      model,
      ["video", "frame", "entity", "layer", "head", "opacity", "normalise", "view", "outline"],
      (key, value) => this.receive(key, value),
    );
    this.draw = onePerFrame(() => this.render());
    this.canvas = element("canvas", { role: "img" });
    this.note = element("p", { className: "mvf-note mvf-status" });
    this.player = new Player(this.root, { count: 1, onMove: (index) => this.set("frame", index), onSize: this.draw });
    this.makeControls();
    this.stopResize = onResize(this.root, () => this.render());
    this.root.mvfBenchmark = (count) => this.benchmark(count);
    this.open();
  }

  makeControls() {
    const names = (trait) => this.model.get(trait).map((name, i) => [i, name]);
    const choose = (text, key, options) =>
      select(text, options, this.state.get(key), (value) => this.set(key, isNaN(value) ? value : Number(value)));
    const videos = this.clips.names.map((name) => [name, name]);
    const [entities, heads] = [names("entity_names"), names("head_names")];
    const views = ["side by side", "blended", ...(entities.length ? ["all entities"] : []), ...(heads.length ? ["all heads"] : [])];
    this.controls = {
      video: select("Video", videos, this.state.get("video"), (value) => this.turn(value)),
      view: choose("View", "view", views.map((view) => [view, view])),
      entity: choose("Entity", "entity", entities),
      layer: choose("Layer", "layer", names("layer_names")),
      head: choose("Head", "head", heads),
      normalise: choose("Normalise", "normalise", [["frame", "per frame"], ["video", "per video"]]),
      opacity: slider("Opacity", { min: 0, max: 1, step: 0.05, value: this.state.get("opacity") }, (value) =>
        this.set("opacity", value),
      ),
      outline: checkbox("Outline 60 % of the attention", this.state.get("outline"), (on) => this.set("outline", on)),
    };
    this.video = this.controls.video;
    const part = (...keys) => row(...keys.map((key) => this.controls[key].element));
    const display = part("normalise", "opacity", "outline");
    display.append(button("Save picture", () => this.save()));
    this.root.append(part("video", "view", "entity", "layer", "head"), this.canvas, this.player.element, display);
    this.legend = element("div");
    this.root.append(this.legend, this.note);
  }

  // Another video opens in the middle of its action, with its own chosen head unless another than the chosen is shown.
  turn(name) {
    const [before, now] = [this.state.get("video"), name].map((one) => this.clips.meta(one));
    if (this.state.get("head") === before.head) this.choose("head", now.head);
    this.state.set("frame", now.start);
    this.set("video", name);
  }

  choose(key, value) {
    this.state.set(key, value);
    this.controls[key].control.value = value;
  }

  set(key, value) {
    this.state.set(key, value);
    if (key === "video") this.open();
    else this.draw();
  }

  receive(key, value) {
    if (key === "video") this.open();
    if (key === "frame") this.player.show(value);
    const control = this.controls[key]?.control;
    if (control?.type === "checkbox") control.checked = value;
    else if (control) control.value = value;
    this.draw();
  }

  // The previous video stays visible until the new one is decoded.
  async open() {
    const name = this.state.get("video");
    this.root.dataset.ready = "false";
    if (!this.loaded.has(name)) this.loaded.set(name, this.load(name));
    const shown = await this.loaded.get(name);
    if (name !== this.state.get("video")) return;
    this.shown = shown;
    this.turnTo(name, this.state.get("frame"));
    const { phases } = this.shown.meta;
    const named = legend(this.clips.paletteOf(name), phases?.includes(-1));
    this.legend.replaceChildren(...(phases ? [named] : []));
    this.draw();
  }

  async load(name) {
    const meta = this.clips.meta(name);
    const strip = await this.clips.load(name);
    const maps = (one) => one && new Maps(one, this.model.get("maps")[one.buffer]);
    const painter = new Painter(this.model.get("colours"), ...meta.shown);
    return { meta, strip, painter, entities: maps(meta.entities), heads: maps(meta.heads) };
  }

  panels() {
    const { meta, entities, heads } = this.shown;
    const view = this.state.get("view");
    const frame = { caption: `${meta.name}, ${this.clips.place(meta.name, this.player.index)}` };
    const all = (maps) => Array.from({ length: maps.count }, (_, i) => i);
    const one = (key, maps, without) => (maps && view !== without ? [this.state.get(key)] : []);
    const shown = {
      entity: view === "all entities" ? all(entities) : one("entity", entities, "all heads"),
      head: view === "all heads" ? all(heads) : one("head", heads, "all entities"),
    };
    const panels = shown.entity.map((i) => this.panel("entity", entities, 0, i));
    panels.push(...shown.head.map((i) => this.panel("head", heads, this.state.get("layer"), i)));
    if (view !== "blended") return [frame, ...panels];
    panels[0].caption = `${frame.caption}: ${panels[0].caption}`;
    return panels;
  }

  panel(kind, maps, layer, map) {
    const at = [layer, this.player.index, map];
    const levels = maps.at(maps.index(...at));
    const even = 255 * levels.length < EVEN * levels.reduce((sum, level) => sum + level, 0);
    const of = kind === "head" ? `, ${this.model.get("layer_names")[layer]}` : "";
    const caption = `${this.model.get(`${kind}_names`)[map]}${of}${even ? " (nearly even)" : ""}`;
    return { caption, maps, at, even };
  }

  // Where `count` pictures of w x h pixels with captions lie, above the legend.
  grid(count, { columns, w, h }) {
    const rows = Math.ceil(count / columns);
    return { columns, w, h, width: columns * (w + GAP) - GAP, height: rows * (h + CAPTION + GAP) - GAP + LEGEND };
  }

  // The browser paints only between tasks, so a picture that is drawn in one task never flickers.
  render() {
    if (!this.shown || this.root.clientWidth < 52) return; // not laid out yet: the observer will call again
    const panels = this.panels();
    const space = this.player.space(this.canvas);
    const { width, height } = this.shown.painter.canvas;
    space.height -= LEGEND;
    const grid = this.grid(panels.length, tile(panels.length, width / height, space, CAPTION));
    const ctx = fitCanvas(this.canvas, grid.width, grid.height);
    ctx.clearRect(0, 0, grid.width, grid.height);
    this.compose(ctx, panels, grid, getComputedStyle(this.root).color);
    this.canvas.ariaLabel = panels.map((panel) => panel.caption).join(", ");
    const view = this.state.get("view");
    const off = { opacity: view !== "blended", entity: view.startsWith("all"), head: view.startsWith("all") };
    for (const key of Object.keys(off)) {
      const { control } = this.controls[key];
      control.disabled = off[key] || control.options?.length < 2;
    }
    const even = `nearly even: the largest value of the map is less than ${EVEN} times its mean, so it hardly picks anything out.`;
    this.note.textContent = [this.shown.meta.note, panels.some((panel) => panel.even) ? even : ""].filter(Boolean).join(" ");
    this.showPlace();
    this.root.dataset.ready = this.state.get("video") === this.shown.meta.name;
  }

  compose(ctx, panels, grid, colour) {
    Object.assign(ctx, { font: FONT, textBaseline: "middle" });
    panels.forEach((panel, i) => {
      const x = (i % grid.columns) * (grid.w + GAP);
      const y = Math.floor(i / grid.columns) * (grid.h + CAPTION + GAP);
      ctx.fillStyle = colour;
      ctx.fillText(panel.caption, x, y + CAPTION / 2, grid.w);
      this.drawPanel(ctx, panel, x, y + CAPTION, grid.w, grid.h);
    });
    this.drawLegend(ctx, grid.height - LEGEND / 2 + 2, colour);
  }

  drawPanel(ctx, { maps, at }, x, y, width, height) {
    const { strip, painter } = this.shown;
    const opacity = this.state.get("view") === "blended" ? this.state.get("opacity") : 1;
    strip.draw(ctx, this.player.index, x, y, width, height);
    if (!maps) return;
    const index = maps.index(...at);
    const scale = maps.scale(...at, this.state.get("normalise"));
    ctx.globalAlpha = opacity;
    ctx.drawImage(painter.paint(maps.at(index), maps.width, maps.height, scale), x, y, width, height);
    ctx.globalAlpha = 1;
    if (this.state.get("outline")) outline(ctx, maps, index, x, y, width, height);
  }

  drawLegend(ctx, y, colour) {
    const texts = ["attention  0", `maximum of the ${this.state.get("normalise")}`];
    const left = ctx.measureText(texts[0]).width + 6;
    const ramp = ctx.createLinearGradient(left, 0, left + 90, 0);
    const colours = this.model.get("colours");
    for (let i = 0; i < 256; i += 17) {
      ramp.addColorStop(i / 255, `rgb(${[0, 1, 2].map((channel) => colours.getUint8(3 * i + channel))})`);
    }
    ctx.fillStyle = colour;
    ctx.fillText(texts[0], 0, y);
    ctx.fillText(texts[1], left + 96, y);
    ctx.fillStyle = ramp;
    ctx.fillRect(left, y - 4, 90, 8);
  }

  // Saves the picture on white at twice its size, independent of the theme and the page's width.
  async save() {
    if (!this.shown) return;
    const panels = this.panels();
    const { width: w, height: h } = this.shown.painter.canvas;
    const grid = this.grid(panels.length, { columns: Math.min(panels.length, 4), w, h });
    const canvas = element("canvas", { width: 2 * grid.width, height: 2 * grid.height });
    const ctx = canvas.getContext("2d");
    ctx.scale(2, 2);
    ctx.fillStyle = "#fff";
    ctx.fillRect(0, 0, grid.width, grid.height);
    this.compose(ctx, panels, grid, "#000");
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const name = `${this.shown.meta.name}_frame_${this.root.dataset.frame}.png`.replace(/[^\w.-]+/g, "_");
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    if (this.model.get("writes")) this.model.send({ save: name }, undefined, [await blob.arrayBuffer()]);
  }

  benchmark(count) {
    const shown = this.player.index;
    const began = performance.now();
    for (let i = 0; i < count; i++) {
      this.player.show(i % this.shown.strip.count);
      this.render();
      this.canvas.getContext("2d").getImageData(0, 0, 1, 1); // blocks until the canvas is drawn
    }
    const milliseconds = performance.now() - began;
    this.player.show(shown);
    this.render();
    return milliseconds;
  }
}

export default widget(AttentionView);
