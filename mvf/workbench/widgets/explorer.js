// Shows frames as points, and the picture of one; frames.js is joined before this file.

const MARGIN = 24; // CSS pixels between the points and the edge, where the axes are named
const REACH = 24; // CSS pixels: a point this close to the pointer is hovered

class ExplorerView extends FrameView {
  constructor(model, el) {
    super(model);
    this.clips = new Clips(model);
    this.readPoints();
    this.root = createRoot(el, "embedding-explorer", "Embedding explorer");
    this.state = new Synced(model, ["video", "frame"], () => this.restore());
    this.hovered = null; // index among all points
    this.draw = onePerFrame(() => this.render());
    this.build();
    this.stopResize = onResize(this.root, () => this.layout());
    this.restore();
    this.layout();
  }

  readPoints() {
    const view = this.model.get("points");
    this.points = new Float32Array(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    this.videoOf = [];
    this.firstOf = new Map();
    for (const name of this.clips.names) {
      this.firstOf.set(name, this.videoOf.length);
      for (let i = 0; i < this.clips.meta(name).count; i++) this.videoOf.push(name);
    }
  }

  build() {
    const names = this.clips.names.map((name) => [name, name]);
    this.video = select("Video", names, this.state.get("video"), (name) => this.pin(name, 0));
    this.player = new Player(this.root, { count: 1, onMove: (i) => this.pin(this.name, i), onSize: () => this.layout() });
    this.base = element("canvas");
    this.canvas = element("canvas", { className: "mvf-seek", role: "img" });
    this.canvas.ariaLabel = "Points of all frames: hover to see a frame, click to pin it";
    this.canvas.onpointermove = (event) => this.hover(this.nearest(event.offsetX, event.offsetY));
    this.canvas.onpointerleave = () => this.hover(null);
    this.canvas.onclick = (event) => this.pinPoint(this.nearest(event.offsetX, event.offsetY));
    this.panel = new Panel(this.clips);
    this.body = element("div", { className: "mvf-grid" }, this.canvas, this.panel.element);
    this.root.append(row(this.video.element), this.body, this.player.element);
    if (this.clips.palette.names.length) this.root.append(legend(this.clips.palette, hasUnlabelled(this.clips)));
    const text = "Hover over a point to see its frame and its video's trajectory (square: first frame). Click to pin it; arrow keys step.";
    this.root.append(element("p", { className: "mvf-note", textContent: text }));
  }

  restore() {
    this.pin(this.state.get("video"), this.state.get("frame"));
  }

  pinPoint(point) {
    if (point === null) return;
    this.root.focus();
    this.player.stop();
    this.pin(this.videoOf[point], point - this.firstOf.get(this.videoOf[point]));
  }

  pin(name, index) {
    this.turnTo(name, index);
    this.pinned = this.firstOf.get(name) + this.player.index;
    this.draw();
  }

  hover(point) {
    if (point === this.hovered) return;
    this.hovered = point;
    this.draw();
  }

  // Both axes have the same scale, so distances on the screen are proportional to distances between points.
  layout() {
    const { width, height, fits } = this.player.space(this.body);
    const wide = width >= 560;
    this.thumbnail = wide ? Math.floor(width * 0.4) : width;
    this.width = wide ? width - this.thumbnail - GAP : width;
    this.height = Math.round(Math.min(fits && !wide ? height / 2 : height, this.width * 0.8));
    this.tallest = fits && !wide ? height / 2 - 60 : Math.max(this.height - 60, 100);
    this.body.style.gridTemplateColumns = wide ? `${this.width}px ${this.thumbnail}px` : `${width}px`;
    const [x, y] = [0, 1].map((axis) => {
      let [low, high] = [Infinity, -Infinity];
      for (let i = axis; i < this.points.length; i += 2) {
        low = Math.min(low, this.points[i]);
        high = Math.max(high, this.points[i]);
      }
      return { middle: (low + high) / 2, size: high - low };
    });
    const scales = [(this.width - 2 * MARGIN) / x.size, (this.height - 2 * MARGIN) / y.size].filter(Number.isFinite);
    const scale = scales.length ? Math.min(...scales) : 1;
    this.placed = new Float32Array(this.points.length);
    for (let i = 0; i < this.points.length; i += 2) {
      this.placed[i] = this.width / 2 + (this.points[i] - x.middle) * scale;
      this.placed[i + 1] = this.height / 2 - (this.points[i + 1] - y.middle) * scale;
    }
    const style = getComputedStyle(this.root);
    this.ink = style.color;
    this.edge = style.getPropertyValue("--mvf-line");
    this.drawBase();
    this.draw();
  }

  drawBase() {
    const ctx = fitCanvas(this.base, this.width, this.height);
    ctx.clearRect(0, 0, this.width, this.height);
    const radius = this.videoOf.length > 2000 ? 2 : 3;
    for (let i = 0; i < this.videoOf.length; i++) this.dot(ctx, i, radius);
  }

  dot(ctx, point, radius) {
    const name = this.videoOf[point];
    const phase = this.clips.phase(name, point - this.firstOf.get(name));
    const { colours, unlabelled } = this.clips.palette;
    ctx.fillStyle = phase < 0 ? (colours.length ? unlabelled : "#0072b2") : colours[phase];
    ctx.beginPath();
    ctx.arc(this.placed[2 * point], this.placed[2 * point + 1], radius, 0, 2 * Math.PI);
    ctx.fill();
    if (phase >= 0 || !colours.length) return;
    Object.assign(ctx, { strokeStyle: "#777", lineWidth: 0.8 }); // light grey is hardly seen on white
    ctx.stroke();
  }

  nearest(x, y) {
    let [best, found] = [REACH * REACH, null];
    for (let i = 0; i < this.placed.length; i += 2) {
      const away = (this.placed[i] - x) ** 2 + (this.placed[i + 1] - y) ** 2;
      if (away < best) [best, found] = [away, i / 2];
    }
    return found;
  }

  render() {
    if (!this.placed) return;
    if (this.ink !== getComputedStyle(this.root).color) this.layout(); // the theme changed
    const point = this.hovered ?? this.pinned;
    const ctx = fitCanvas(this.canvas, this.width, this.height);
    ctx.clearRect(0, 0, this.width, this.height);
    ctx.globalAlpha = 0.45;
    ctx.drawImage(this.base, 0, 0, this.width, this.height);
    ctx.globalAlpha = 1;
    this.nameAxes(ctx);
    this.drawWay(ctx, this.videoOf[point]);
    if (this.hovered !== null) this.ring(ctx, this.pinned, 6, 1);
    this.ring(ctx, point, 8, 2.5);
    this.showFrame(this.videoOf[point], point);
  }

  nameAxes(ctx) {
    const [across, up] = this.model.get("axes");
    Object.assign(ctx, { font: "12px system-ui, sans-serif", textAlign: "center", textBaseline: "middle" });
    ctx.strokeStyle = this.edge;
    ctx.lineWidth = 1;
    ctx.strokeRect(0.5, 0.5, this.width - 1, this.height - 1);
    ctx.fillStyle = this.ink;
    ctx.fillText(across, this.width / 2, this.height - MARGIN / 2, this.width);
    ctx.save();
    ctx.rotate(-Math.PI / 2);
    ctx.fillText(up, -this.height / 2, MARGIN / 2, this.height);
    ctx.restore();
  }

  drawWay(ctx, name) {
    const first = this.firstOf.get(name);
    const last = first + this.clips.meta(name).count;
    ctx.strokeStyle = this.ink;
    ctx.lineWidth = 1.2;
    ctx.beginPath();
    for (let i = first; i < last; i++) ctx.lineTo(this.placed[2 * i], this.placed[2 * i + 1]);
    ctx.stroke();
    for (let i = first; i < last; i++) this.dot(ctx, i, 4);
    Object.assign(ctx, { strokeStyle: this.ink, lineWidth: 1.2 });
    ctx.strokeRect(this.placed[2 * first] - 5, this.placed[2 * first + 1] - 5, 10, 10);
  }

  ring(ctx, point, radius, width) {
    ctx.strokeStyle = this.ink;
    ctx.lineWidth = width;
    ctx.beginPath();
    ctx.arc(this.placed[2 * point], this.placed[2 * point + 1], radius, 0, 2 * Math.PI);
    ctx.stroke();
  }

  showFrame(name, point) {
    const index = point - this.firstOf.get(name);
    const parts = [this.clips.place(name, index), this.clips.word(name, index)].filter(Boolean);
    if (this.clips.now(name)) {
      const caption = `${point === this.pinned ? "pinned: " : ""}${name}\n${parts.join(" · ")}`;
      this.panel.draw(name, index, this.thumbnail, this.tallest, caption);
      this.root.dataset.ready = "true";
    } else {
      this.clips.load(name).then(() => this.draw());
    }
    this.showPlace();
    Object.assign(this.root.dataset, { frame: this.clips.number(name, index), video: name });
  }
}

export default widget(ExplorerView);
