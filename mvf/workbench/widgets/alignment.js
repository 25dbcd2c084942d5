// Plays videos warped to the time of one of them, if asked with a curve of how far that one is from the others;
// frames.js is joined before this file.

const CURVE = { height: 130, head: 17, foot: 16 }; // pixels: all of it, numbers of moments above, seconds below
const OUTSIDE = "#d55e00";
const FROM_ZERO = 0.4; // share of the largest value below which the axis begins at zero, as in the figure

class AlignmentView extends FrameView {
  constructor(model, el) {
    super(model);
    this.clips = new Clips(model, Infinity); // all videos are shown at once
    this.name = model.get("video");
    this.curve = new Curve(this.clips, this.name, model.get("curve"));
    this.root = this.curve.isEmpty
      ? createRoot(el, "alignment-player", "Alignment player")
      : createRoot(el, "deviation-player", "Deviation player");
    this.state = new Synced(model, ["frame", "warped"], () => this.restore());
    const { count, rate } = this.clips.meta(this.name);
    const keys = this.curve.isEmpty ? {} : { b: () => this.toMoment(-1), n: () => this.toMoment(1) };
    const calls = { onMove: (index) => this.move(index), onSize: () => this.draw() };
    this.player = new Player(this.root, { count, fps: rate ?? 12, keys, ...calls });
    this.recorded = checkbox("as recorded (even pace, not aligned)", false, (on) => this.unwarp(on));
    const order = [this.name, ...this.clips.names.filter((name) => name !== this.name)];
    this.labelled = order.filter((name) => this.clips.meta(name).phases);
    if (this.labelled.length) this.player.timeline.title = `Phases, from above: ${this.labelled.join(", ")}`;
    this.panels = new Map(this.clips.names.map((name) => [name, new Panel(this.clips)]));
    this.grid = element("div", { className: "mvf-grid" }, ...[...this.panels.values()].map((p) => p.element));
    this.root.append(this.grid, this.player.element);
    if (!this.curve.isEmpty) this.root.append(this.momentRow());
    this.root.append(row(this.recorded.element));
    if (!this.curve.isEmpty) this.root.append(this.curve.legend());
    const note = model.get("note");
    if (note) this.root.append(element("p", { className: "mvf-note", textContent: note }));
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

  jump(index) {
    this.player.stop();
    this.player.move(index);
  }

  // The moment before or after the current frame.
  toMoment(step) {
    const peaks = this.curve.moments.map(({ peak }) => peak).sort((a, b) => a - b);
    const now = this.player.index;
    const found = step > 0 ? peaks.find((peak) => peak > now) : peaks.findLast((peak) => peak < now);
    if (found !== undefined) this.jump(found);
  }

  momentRow() {
    const { moments } = this.curve;
    const text = moments.length ? "Outside the band (keys B, N):" : "Nowhere outside the band.";
    this.buttons = moments.slice(0, 8).map(({ peak }, i) => {
      const place = this.clips.seconds(this.name, peak) || `frame ${this.clips.number(this.name, peak)}`;
      return button(`${i + 1}: ${place}`, () => this.jump(peak));
    });
    return row(element("span", { className: "mvf-label", textContent: text }), ...this.buttons);
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
      const isReference = (name === this.name) === this.curve.isEmpty; // with a curve the others are
      panel.draw(name, index, w, h, `${name}${isReference ? " (reference)" : ""}\n${parts.join(" · ")}`);
    }
    if (this.curve.isEmpty) return this.showPlace({ ribbons: this.ribbons() });
    const index = this.player.index;
    this.buttons.forEach((one, i) => (one.ariaPressed = String(this.curve.moments[i].has(index))));
    const film = (ctx, width, height, place) => this.curve.draw(ctx, width, height, place, getComputedStyle(this.root));
    this.showPlace({ ribbons: this.ribbons(), film, filmHeight: CURVE.height, more: this.curve.word(index) });
  }
}

// The distance of every frame to the references, its band, and the moments outside it.
class Curve {
  constructor(clips, name, { distance = [], band = [], moments = [], note = "" }) {
    Object.assign(this, { clips, name, distance, band, note });
    const within = ([start, end, peak]) => ({ start, end, peak, has: (index) => index >= start && index < end });
    this.moments = moments.map(within);
    const values = [...distance, ...band];
    const [low, high] = [Math.min(...values), Math.max(...values)];
    this.bottom = low < FROM_ZERO * high ? 0 : low - (high - low) / 4;
    this.top = high + (high - this.bottom) / 20 + 1e-9;
  }

  get isEmpty() {
    return !this.distance.length;
  }

  word(index) {
    return `distance ${this.distance[index].toPrecision(2)}, band ${this.band[index].toPrecision(2)}`;
  }

  legend() {
    const band = this.note ? "band" : "band: usual among them";
    const parts = { distance: "distance to the references", band, outside: "outside the band" };
    const entries = Object.entries(parts).map(([kind, text]) =>
      element("span", {}, element("span", { className: `mvf-swatch mvf-${kind}` }), text),
    );
    const note = this.note ? [element("div", { className: "mvf-note", textContent: this.note })] : [];
    return element("div", {}, element("div", { className: "mvf-legend" }, ...entries), ...note);
  }

  draw(ctx, width, height, place, { color: ink }) {
    const bottom = height - CURVE.foot;
    const scale = (bottom - CURVE.head) / (this.top - this.bottom);
    const y = (value) => bottom - (value - this.bottom) * scale;
    const line = (values, first = 0) => {
      ctx.beginPath();
      values.forEach((value, i) => ctx.lineTo(place(first + i), y(value)));
    };
    Object.assign(ctx, { font: "11px system-ui, sans-serif", textBaseline: "top", lineJoin: "round" });
    this.moments.forEach(({ start, end }, i) => {
      const [left, right] = [place(start - 0.5), place(end - 0.5)];
      Object.assign(ctx, { fillStyle: OUTSIDE, globalAlpha: 0.25 });
      ctx.fillRect(left, 0, Math.max(2, right - left), bottom);
      Object.assign(ctx, { fillStyle: ink, globalAlpha: 1, textAlign: "center" });
      ctx.fillText(i + 1, Math.max(6, Math.min(width - 6, (left + right) / 2)), 3);
    });
    line(this.band);
    ctx.lineTo(place(this.band.length - 1), bottom);
    ctx.lineTo(place(0), bottom);
    Object.assign(ctx, { fillStyle: ink, globalAlpha: 0.16 });
    ctx.fill();
    ctx.globalAlpha = 1;
    line(this.distance);
    Object.assign(ctx, { strokeStyle: ink, lineWidth: 1.5 });
    ctx.stroke();
    for (const { start, end } of this.moments) {
      line(this.distance.slice(start, end), start);
      Object.assign(ctx, { strokeStyle: OUTSIDE, lineWidth: 2.5 });
      ctx.stroke();
    }
    this.drawScale(ctx, width, bottom, place, ink);
  }

  // Round seconds, or frames where there are no times.
  drawScale(ctx, width, bottom, place, ink) {
    const { times, numbers } = this.clips.meta(this.name);
    const values = times ?? numbers;
    const step = roundStep(Math.max(times ? 0 : 1, (values.at(-1) - values[0]) / Math.max(2, width / 90)));
    Object.assign(ctx, { fillStyle: ink, globalAlpha: 0.75 });
    ctx.fillRect(0, bottom, width, 1);
    for (let k = Math.ceil(values[0] / step); k * step <= values.at(-1); k++) {
      const after = Math.max(1, values.findIndex((value) => value >= k * step));
      const [a, b] = [values[after - 1], values[after] ?? values[after - 1]];
      const x = place(after - 1 + (b > a ? (k * step - a) / (b - a) : 0));
      ctx.fillRect(x, bottom, 1, 3);
      ctx.textAlign = x < 20 ? "left" : x > width - 20 ? "right" : "center";
      const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
      ctx.fillText(times ? `${(k * step).toFixed(digits)} s` : k * step, x, bottom + 4);
    }
    ctx.globalAlpha = 1;
  }
}

// The smallest of 1, 2, 5, 10, 20, ... (or 0.5, 0.2, ...) that is at least `size`.
function roundStep(size) {
  const power = 10 ** Math.floor(Math.log10(Math.max(size, 1e-3)));
  return [1, 2, 5, 10].find((factor) => factor * power >= size) * power;
}

export default widget(AlignmentView);
