// Plays videos warped to the time of one of them; frames.js is joined before this file.

class AlignmentView extends FrameView {
  constructor(model, el) {
    super(model);
    this.clips = new Clips(model, Infinity); // all videos are shown at once
    this.name = model.get("video");
    this.root = createRoot(el, "alignment-player", "Alignment player");
    this.state = new Synced(model, ["frame", "warped"], () => this.restore());
    const { count, rate } = this.clips.meta(this.name);
    const calls = { onMove: (index) => this.move(index), onSize: () => this.draw() };
    this.player = new Player(this.root, { count, fps: rate ?? 12, ...calls });
    this.recorded = checkbox("as recorded (even pace, not aligned)", false, (on) => this.unwarp(on));
    const order = [this.name, ...this.clips.names.filter((name) => name !== this.name)];
    this.labelled = order.filter((name) => this.clips.meta(name).phases);
    if (this.labelled.length) this.player.timeline.title = `Phases, from above: ${this.labelled.join(", ")}`;
    this.panels = new Map(this.clips.names.map((name) => [name, new Panel(this.clips)]));
    this.grid = element("div", { className: "mvf-grid" }, ...[...this.panels.values()].map((p) => p.element));
    this.root.append(this.grid, this.player.element, row(this.recorded.element));
    if (this.clips.palette.names.length) this.root.append(legend(this.clips.palette, hasUnlabelled(this.clips)));
    this.stopResize = onResize(this.root, () => this.draw());
    this.start();
  }

  async start() {
    await Promise.all(this.clips.names.map((name) => this.clips.load(name)));
    this.restore();
    this.root.dataset.ready = "true";
  }

  restore() {
    this.player.show(this.state.get("frame"));
    this.recorded.control.checked = !this.state.get("warped");
    this.draw();
  }

  move(index) {
    this.state.set("frame", index);
    this.draw();
  }

  unwarp(on) {
    this.state.set("warped", !on);
    this.draw();
  }

  shown(name, index = this.player.index) {
    const { map, count } = this.clips.meta(name);
    if (this.state.get("warped")) return map[index];
    return Math.floor((index * (count - 1)) / Math.max(1, this.player.count - 1) + 0.5);
  }

  // The phases of every labelled video at each frame of the reference, which is the first.
  ribbons() {
    const frames = Array.from({ length: this.player.count }, (_, index) => index);
    return this.labelled.map((name) => frames.map((index) => this.clips.phase(name, this.shown(name, index))));
  }

  draw() {
    const { columns, w, h } = this.clips.tile(this.clips.names, this.player.space(this.grid));
    this.grid.style.gridTemplateColumns = `repeat(${columns}, ${w}px)`;
    for (const [name, panel] of this.panels) {
      const index = this.shown(name);
      const parts = [this.clips.place(name, index), this.clips.word(name, index)].filter(Boolean);
      panel.draw(name, index, w, h, `${name}${name === this.name ? " (reference)" : ""}\n${parts.join(" · ")}`);
    }
    this.showPlace({ ribbons: this.ribbons() });
  }
}

export default widget(AlignmentView);
