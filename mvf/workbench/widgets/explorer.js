// Shows frames as points, and the picture of one; frames.js is joined before this file.

const MARGIN = 14; // CSS pixels between the points and the edge
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
    this.player = new Player(this.root, { count: 1, onMove: (i) => this.pin(this.name, i) });
    this.base = element("canvas");
    this.canvas = element("canvas", { className: "mvf-seek", role: "img" });
    this.canvas.ariaLabel = "Points of all frames: hover to see a frame, click to pin it";
    this.canvas.onpointermove = (event) => this.hover(this.nearest(event.offsetX, event.offsetY));
    this.canvas.onpointerleave = () => this.hover(null);
    this.canvas.onclick = (event) => this.pinPoint(this.nearest(event.offsetX, event.offsetY));
    this.panel = new Panel(this.clips);
    this.body = element("div", { className: "mvf-grid" }, this.canvas, this.panel.element);
    this.root.append(row(this.video.element), this.player.element, this.body);
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
    const space = innerWidthOf(this.root);
    const wide = space >= 560;
    this.thumbnail = wide ? Math.min(340, Math.floor(space * 0.36)) : space;
    this.width = wide ? Math.min(640, space - this.thumbnail - 10) : space;
    this.height = Math.round(Math.min(460, this.width * 0.8));
    const [x, y] = [0, 1].map((axis) => {
      let [low, high] = [Infinity, -Infinity];
      for (let i = axis; i < this.points.length; i += 2) {
        low = Math.min(low, this.points[i]);
        high = Math.max(high, this.points[i]);
      }
      return { middle: (low + high) / 2, size: high - low };
    });
    const fits = [(this.width - 2 * MARGIN) / x.size, (this.height - 2 * MARGIN) / y.size].filter(Number.isFinite);
    const scale = fits.length ? Math.min(...fits) : 1;
    this.placed = new Float32Array(this.points.length);
    for (let i = 0; i < this.points.length; i += 2) {
      this.placed[i] = this.width / 2 + (this.points[i] - x.middle) * scale;
      this.placed[i + 1] = this.height / 2 - (this.points[i + 1] - y.middle) * scale;
    }
    this.ink = getComputedStyle(this.root).color;
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
    this.drawWay(ctx, this.videoOf[point]);
    if (this.hovered !== null) this.ring(ctx, this.pinned, 6, 1);
    this.ring(ctx, point, 8, 2.5);
    this.showFrame(this.videoOf[point], point);
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
    const number = this.clips.number(name, index);
    const pinned = point === this.pinned;
    const parts = [`frame ${number}`, this.clips.word(name, index)].filter(Boolean);
    if (this.clips.now(name)) {
      const caption = `${pinned ? "pinned: " : ""}${name}\n${parts.join(" · ")}`;
      this.panel.draw(name, index, this.thumbnail, 1.5 * this.model.get("height"), caption);
      this.root.dataset.ready = "true";
    } else {
      this.clips.load(name).then(() => this.draw());
    }
    Object.assign(this.root.dataset, { frame: number, video: name });
    const last = this.clips.meta(this.name).numbers.at(-1);
    this.player.describe(`${this.clips.number(this.name, this.player.index)} of ${last}`);
  }
}

export default widget(ExplorerView);
