// The attention browser: controls, panels and saving; overlay.js draws the maps.

const GAP = 10;
const CAPTION = 20;
const LEGEND = 26;
const FONT = "12px system-ui, sans-serif";

class AttentionView {
  constructor(model, el) {
    this.model = model;
    this.loaded = new Map();
    this.root = createRoot(el, "attention-browser", "Attention browser");
    this.state = new Synced(
      model,
      ["video", "frame", "entity", "layer", "head", "opacity", "normalise", "view", "outline"],
      (key, value) => this.receive(key, value),
    );
    this.draw = onePerFrame(() => this.render());
    this.canvas = element("canvas");
    this.note = element("div", { className: "mvf-note" });
    this.player = new Player(this.root, { count: 1, onMove: (index) => this.set("frame", index) });
    this.makeControls();
    this.observer = new ResizeObserver(this.draw);
    this.observer.observe(this.root);
    this.root.mvfBenchmark = (count) => this.benchmark(count);
    this.open();
  }

  makeControls() {
    const names = (trait) => this.model.get(trait).map((name, i) => [i, name]);
    const choose = (text, key, options) =>
      select(text, options, this.state.get(key), (value) => this.set(key, isNaN(value) ? value : Number(value)));
    const videos = this.model.get("videos").map(({ name }) => [name, name]);
    this.controls = {
      video: select("Video", videos, this.state.get("video"), (value) => this.set("video", value)),
      entity: choose("Entity", "entity", names("entity_names")),
      layer: choose("Layer", "layer", names("layer_names")),
      head: choose("Head", "head", names("head_names")),
      view: choose("View", "view", [["blended", "blended"], ["side by side", "side by side"]]),
      normalise: choose("Normalise", "normalise", [["frame", "per frame"], ["video", "per video"]]),
      opacity: slider("Opacity", { min: 0, max: 1, step: 0.05, value: this.state.get("opacity") }, (value) =>
        this.set("opacity", value),
      ),
      outline: checkbox("Outline 60 % of the attention", this.state.get("outline"), (on) => this.set("outline", on)),
    };
    const { video, entity, layer, head, view, normalise, opacity, outline: line } = this.controls;
    const part = (...fields) => row(...fields.map((one) => one.element));
    const save = button("Save picture", () => this.save());
    const display = part(view, normalise, opacity, line);
    display.append(save);
    this.root.append(part(video, entity, layer, head), this.player.element, display, this.canvas, this.note);
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
    const video = await this.loaded.get(name);
    if (name !== this.state.get("video")) return;
    this.video = video;
    this.player.setCount(video.strip.count);
    this.player.show(this.state.get("frame"));
    this.state.set("frame", this.player.index);
    this.note.textContent = video.meta.note;
    this.draw();
  }

  async load(name) {
    const meta = this.model.get("videos").find((video) => video.name === name);
    const strip = await Strip.load(meta, this.model.get("sheets").slice(...meta.sheets));
    const maps = (one) => one && new Maps(one, this.model.get("maps")[one.buffer]);
    const painter = new Painter(this.model.get("colours"), ...meta.shown);
    return { meta, strip, painter, entities: maps(meta.entities), heads: maps(meta.heads) };
  }

  panels() {
    const { meta, entities, heads } = this.video;
    const [frame, layer] = [this.player.index, this.state.get("layer")];
    const blended = this.state.get("view") === "blended";
    const title = `${meta.name}, frame ${meta.numbers[frame]}`;
    const panels = blended ? [] : [{ caption: title }];
    if (entities) {
      const entity = this.state.get("entity");
      panels.push({ caption: this.model.get("entity_names")[entity], maps: entities, at: [0, frame, entity] });
    }
    if (heads) {
      const head = this.state.get("head");
      const caption = `${this.model.get("head_names")[head]}, ${this.model.get("layer_names")[layer]}`;
      panels.push({ caption, maps: heads, at: [layer, frame, head] });
    }
    if (blended) panels[0].caption = `${title}: ${panels[0].caption}`;
    return panels;
  }

  // Puts as many panels in a row as fit at half their size or more.
  arrange(count, available) {
    const { width, height } = this.video.painter.canvas;
    for (let columns = count; ; columns--) {
      const scale = Math.min(1, (available - (columns - 1) * GAP) / (columns * width));
      if (scale < 0.5 && columns > 1) continue;
      const rows = Math.ceil(count / columns);
      const [w, h] = [Math.round(width * scale), Math.round(height * scale)];
      return { columns, w, h, width: columns * (w + GAP) - GAP, height: rows * (h + CAPTION + GAP) - GAP + LEGEND };
    }
  }

  // The browser paints only between tasks, so a picture that is drawn in one task never flickers.
  render() {
    if (!this.video) return;
    const panels = this.panels();
    const available = this.root.clientWidth - 12;
    if (available < 40) return; // not laid out yet: the observer will call again
    const grid = this.arrange(panels.length, available);
    const ctx = fitCanvas(this.canvas, grid.width, grid.height);
    ctx.clearRect(0, 0, grid.width, grid.height);
    this.compose(ctx, panels, grid, getComputedStyle(this.root).color);
    const { numbers } = this.video.meta;
    const number = numbers[this.player.index];
    this.player.describe(`${number} of ${numbers.at(-1)}`);
    this.controls.opacity.control.disabled = this.state.get("view") !== "blended";
    Object.assign(this.root.dataset, { frame: number, ready: this.state.get("video") === this.video.meta.name });
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
    const { strip, painter } = this.video;
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
    if (!this.video) return;
    const panels = this.panels();
    const grid = this.arrange(panels.length, Infinity);
    const canvas = element("canvas", { width: 2 * grid.width, height: 2 * grid.height });
    const ctx = canvas.getContext("2d");
    ctx.scale(2, 2);
    ctx.fillStyle = "#fff";
    ctx.fillRect(0, 0, grid.width, grid.height);
    this.compose(ctx, panels, grid, "#000");
    const blob = await new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
    const name = `${this.video.meta.name}_frame_${this.root.dataset.frame}.png`.replace(/[^\w.-]+/g, "_");
    const link = element("a", { href: URL.createObjectURL(blob), download: name });
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    if (this.model.get("writes")) this.model.send({ save: name }, undefined, [await blob.arrayBuffer()]);
  }

  benchmark(count) {
    const shown = this.player.index;
    const began = performance.now();
    for (let i = 0; i < count; i++) {
      this.player.show(i % this.video.strip.count);
      this.render();
      this.canvas.getContext("2d").getImageData(0, 0, 1, 1); // blocks until the canvas is drawn
    }
    const milliseconds = performance.now() - began;
    this.player.show(shown);
    this.render();
    return milliseconds;
  }

  dispose() {
    this.observer.disconnect();
    this.player.dispose();
    this.state.dispose();
  }
}

export default widget(AttentionView);
