// Shows the nearest frames of other videos; frames.js is joined before this file.

const EDGE = 10; // borders and padding of a picture, CSS pixels

class RetrievalView extends FrameView {
  constructor(model, el) {
    super(model);
    this.k = model.get("k");
    this.clips = new Clips(model, Math.max(24, 3 * (this.k + 1)));
    this.history = [];
    this.table = this.readNeighbours();
    this.root = createRoot(el, "retrieval-browser", "Retrieval browser");
    this.state = new Synced(model, ["video", "frame"], () => this.restore());
    this.build();
    this.stopResize = onResize(this.root, () => this.show());
    this.restore();
  }

  build() {
    const names = this.clips.names.map((name) => [name, name]);
    this.video = select("Video", names, this.state.get("video"), (name) => this.ask(name, 0));
    this.back = button("Back", () => this.goBack());
    this.back.title = "Return to the previous query";
    this.player = new Player(this.root, { count: 1, onMove: (i) => this.go(this.name, i), onSize: () => this.show() });
    this.query = new Panel(this.clips);
    this.neighbours = Array.from({ length: this.k }, () => new Neighbour(this.clips, (...to) => this.ask(...to)));
    const buttons = this.neighbours.map((neighbour) => neighbour.element);
    this.query.element.className = "mvf-query";
    this.body = element("div", { className: "mvf-grid" }, this.query.element, ...buttons);
    this.root.append(row(this.video.element, this.back), this.body, this.player.element);
    if (!this.clips.palette.names.length) return;
    const signs = "✓ solid frame: the query's phase. ✗ dashed frame: another phase.";
    this.root.append(legend(this.clips.palette, hasUnlabelled(this.clips)));
    this.root.append(element("p", { className: "mvf-note", textContent: signs }));
  }

  // Reads the typed arrays; their rows are in the order of the videos.
  readNeighbours() {
    const array = (trait, Type) => {
      const view = this.model.get(trait);
      return new Type(view.buffer.slice(view.byteOffset, view.byteOffset + view.byteLength));
    };
    const first = new Map();
    let rows = 0;
    for (const name of this.clips.names) {
      first.set(name, rows);
      rows += this.clips.meta(name).count;
    }
    return {
      first,
      videos: array("neighbour_videos", Uint16Array),
      frames: array("neighbour_frames", Uint32Array),
      distances: array("neighbour_distances", Float32Array),
    };
  }

  found(name, index) {
    const { first, videos, frames, distances } = this.table;
    const start = (first.get(name) + index) * this.k;
    return Array.from({ length: this.k }, (_, i) => ({
      name: this.clips.names[videos[start + i]],
      index: frames[start + i],
      distance: distances[start + i],
    }));
  }

  restore() {
    this.go(this.state.get("video"), this.state.get("frame"));
  }

  // Changes the query and remembers the old one for Back.
  ask(name, index) {
    this.history.push([this.name, this.player.index]);
    this.player.stop();
    this.go(name, index);
  }

  goBack() {
    if (this.history.length) this.go(...this.history.pop());
    if (!this.history.length) this.root.focus(); // a disabled button receives no keys
  }

  go(name, index) {
    this.turnTo(name, index);
    this.show();
  }

  // Loads the frames, then draws all of them at once unless the query has changed.
  async show() {
    const [name, index] = [this.name, this.player.index];
    const found = this.found(name, index);
    const needed = [name, ...found.map((one) => one.name)];
    if (!needed.every((one) => this.clips.now(one))) await Promise.all(needed.map((one) => this.clips.load(one)));
    if (this.name !== name || this.player.index !== index) return;
    this.draw(name, index, found);
    this.root.dataset.ready = "true";
  }

  draw(name, index, found) {
    const names = [name, ...found.map((one) => one.name)];
    const { columns, w, h } = this.clips.tile(names, this.player.space(this.body), 4);
    this.body.style.gridTemplateColumns = `repeat(${columns}, ${w}px)`;
    const word = this.clips.word(name, index);
    const text = `query: ${name}\n${this.clips.place(name, index)}${word ? `\n${word}` : ""}`;
    this.query.draw(name, index, w - EDGE, h, text);
    const phase = this.clips.phase(name, index);
    found.forEach((one, i) => this.neighbours[i].draw(one, i + 1, phase, w - EDGE, h));
    this.back.disabled = !this.history.length;
    this.root.dataset.video = name;
    this.showPlace({ film: (...place) => this.drawFilm(...place) });
  }

  // Draws evenly spaced frames of the query's video, each where the timeline has it.
  drawFilm(ctx, width, height) {
    const strip = this.clips.now(this.name);
    const frame = (height * strip.width) / strip.height;
    const shown = Math.max(1, Math.floor(width / frame));
    for (let i = 0; i < shown; i++) {
      const index = Math.round(((i + 0.5) * (strip.count - 1)) / shown);
      strip.draw(ctx, index, (i * width) / shown, 0, Math.min(frame, width / shown), height - 2);
    }
  }
}

class Neighbour {
  constructor(clips, onClick) {
    this.clips = clips;
    this.panel = new Panel(clips);
    this.element = button("", () => onClick(this.name, this.index));
    this.element.append(this.panel.element);
  }

  draw({ name, index, distance }, rank, wanted, width, height) {
    Object.assign(this, { name, index });
    const phase = this.clips.phase(name, index);
    const known = wanted >= 0 && phase >= 0;
    const sign = known ? (phase === wanted ? "✓ " : "✗ ") : "";
    const word = this.clips.word(name, index);
    const text = `${rank}. ${name}\n${this.clips.place(name, index)} · distance ${distance.toFixed(3)}`;
    this.panel.draw(name, index, width, height, `${text}${word ? `\n${sign}${word}` : ""}`);
    this.element.className = `mvf-neighbour${known ? (phase === wanted ? " mvf-right" : " mvf-wrong") : ""}`;
    this.element.title = "Make this frame the query";
  }
}

export default widget(RetrievalView);
