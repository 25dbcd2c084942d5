// Plays videos warped to the time of one of them; frames.js is joined before this file.

class AlignmentView extends FrameView {
  constructor(model, el) {
    super(model);
    this.clips = new Clips(model, Infinity); // all videos are shown at once
    this.reference = model.get("video");
    this.root = createRoot(el, "alignment-player", "Alignment player");
    this.state = new Synced(model, ["frame", "warped"], () => this.restore());
    const count = this.clips.meta(this.reference).count;
    this.player = new Player(this.root, { count, onMove: (index) => this.move(index) });
    this.recorded = checkbox("as recorded (even pace, not aligned)", false, (on) => this.unwarp(on));
    this.panels = new Map(this.clips.names.map((name) => [name, new Panel(this.clips)]));
    const grid = element("div", { className: "mvf-grid" }, ...[...this.panels.values()].map((p) => p.element));
    this.root.append(this.player.element, row(this.recorded.element), grid);
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

  shown(name) {
    const { map, count } = this.clips.meta(name);
    if (this.state.get("warped")) return map[this.player.index];
    return Math.floor((this.player.index * (count - 1)) / Math.max(1, this.player.count - 1) + 0.5);
  }

  draw() {
    const [space, gap] = [innerWidthOf(this.root), 10];
    const columns = Math.max(1, Math.min(this.panels.size, Math.floor((space + gap) / (170 + gap))));
    const width = Math.floor((space - gap * (columns - 1)) / columns);
    for (const [name, panel] of this.panels) {
      const index = this.shown(name);
      const parts = [`frame ${this.clips.number(name, index)}`, this.clips.word(name, index)].filter(Boolean);
      const title = `${name}${name === this.reference ? " (reference)" : ""}`;
      panel.draw(name, index, width, this.model.get("height"), `${title}\n${parts.join(" · ")}`);
    }
    const number = this.clips.number(this.reference, this.player.index);
    this.root.dataset.frame = number;
    this.player.describe(`${number} of ${this.clips.meta(this.reference).numbers.at(-1)}`);
  }
}

export default widget(AlignmentView);
