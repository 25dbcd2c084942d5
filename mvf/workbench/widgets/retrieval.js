// Shows the nearest frames of other videos; frames.js is joined before this file.

const THUMBNAIL = 44; // height of a frame in the film strip, CSS pixels

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
    this.player = new Player(this.root, { count: 1, onMove: (i) => this.go(this.name, i) });
    this.film = element("canvas", { className: "mvf-seek", role: "img", ariaLabel: "Film strip of the query video" });
    this.film.onclick = (event) => this.pick(event);
    this.query = new Panel(this.clips);
    this.neighbours = Array.from({ length: this.k }, () => new Neighbour(this.clips, (...to) => this.ask(...to)));
    const buttons = this.neighbours.map((neighbour) => neighbour.element);
    this.query.element.className = "mvf-query";
    this.body = element("div", { className: "mvf-grid" }, this.query.element, ...buttons);
    this.film.style.marginBottom = "10px";
    this.root.append(row(this.video.element, this.back), this.player.element, this.film, this.body);
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
    const [space, gap, height] = [innerWidthOf(this.root), 10, this.model.get("height")];
    const columns = Math.max(2, Math.min(this.k + 1, Math.floor((space + gap) / (150 + gap))));
    const width = Math.floor((space - gap * (columns - 1)) / columns) - 10; // borders and padding of the buttons
    const number = this.clips.number(name, index);
    const word = this.clips.word(name, index);
    this.query.draw(name, index, width, height, `query: ${name}\nframe ${number}${word ? `\n${word}` : ""}`);
    const phase = this.clips.phase(name, index);
    found.forEach((one, i) => this.neighbours[i].draw(one, i + 1, phase, width, height));
    this.drawFilm(name, space);
    this.back.disabled = !this.history.length;
    Object.assign(this.root.dataset, { frame: number, video: name });
    this.player.describe(`${number} of ${this.clips.meta(name).numbers.at(-1)}`);
  }

  // Draws evenly spaced frames; the one nearest to the query is outlined.
  drawFilm(name, space) {
    const strip = this.clips.now(name);
    const width = (THUMBNAIL * strip.width) / strip.height;
    const shown = Math.max(1, Math.min(strip.count, Math.floor(space / (width + 2))));
    this.thumbnails = Array.from({ length: shown }, (_, i) => Math.round((i * (strip.count - 1)) / Math.max(1, shown - 1)));
    const ctx = fitCanvas(this.film, shown * (width + 2), THUMBNAIL);
    ctx.clearRect(0, 0, space, THUMBNAIL);
    const away = this.thumbnails.map((frame) => Math.abs(frame - this.player.index));
    const nearest = away.indexOf(Math.min(...away));
    this.thumbnails.forEach((frame, i) => {
      strip.draw(ctx, frame, i * (width + 2), 0, width, THUMBNAIL);
      if (i !== nearest) return;
      ctx.lineWidth = 3;
      ctx.strokeStyle = getComputedStyle(this.root).getPropertyValue("--mvf-accent") || "#1976d2";
      ctx.strokeRect(i * (width + 2) + 1.5, 1.5, width - 3, THUMBNAIL - 3);
    });
  }

  pick(event) {
    const share = event.offsetX / this.film.clientWidth;
    const frame = this.thumbnails[Math.min(this.thumbnails.length - 1, Math.floor(share * this.thumbnails.length))];
    this.ask(this.name, frame);
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
    const text = `${rank}. ${name}\nframe ${this.clips.number(name, index)} · distance ${distance.toFixed(3)}`;
    this.panel.draw(name, index, width, height, `${text}${word ? `\n${sign}${word}` : ""}`);
    this.element.className = `mvf-neighbour${known ? (phase === wanted ? " mvf-right" : " mvf-wrong") : ""}`;
    this.element.title = "Make this frame the query";
  }
}

export default widget(RetrievalView);
