// Code for widgets that show several videos (mvf.workbench.widgets.frames.FrameWidget); follows common.js.
//
//   Clips(model, most)   strips of the videos: await clips.load(name); clips.now(name) once loaded, else null;
//                        clips.meta(name), clips.number(name, index), clips.phase(name, index) (-1: unlabelled),
//                        clips.word(name, index) ("" without labels); clips.place(name, index) in frames and, where
//                        they are known, seconds. At most `most` videos stay decoded.
//   FrameView(model)     the base class of their views: view.turnTo(name, index), view.showPlace(), view.dispose()
//   Panel(clips)         a picture with caption and, where the video has phases, a ribbon with a cursor
//   drawRibbon(canvas, width, height, runs, length, cursor, palette, dashed, under)   under(ctx) draws below the cursor
//   legend(palette, unlabelled)

class Clips {
  constructor(model, most = 24) {
    this.model = model;
    this.most = most;
    this.metas = new Map(model.get("strips").map((meta) => [meta.name, meta]));
    this.names = [...this.metas.keys()];
    this.palette = model.get("palette");
    this.pending = new Map();
    this.strips = new Map();
  }

  meta(name) {
    return this.metas.get(name);
  }

  number(name, index) {
    return this.meta(name).numbers[index];
  }

  phase(name, index) {
    return this.meta(name).phases?.[index] ?? -1;
  }

  word(name, index) {
    if (!this.meta(name).phases) return "";
    return this.paletteOf(name).names[this.phase(name, index)] ?? "unlabelled";
  }

  // Videos of different actions may have their own names of phases.
  paletteOf(name) {
    return { ...this.palette, names: this.meta(name).names ?? this.palette.names };
  }

  // Where the file shows a frame, as text; empty if it has no time stamps.
  seconds(name, index) {
    const time = this.meta(name).times?.[index];
    return time === undefined ? "" : `${time.toFixed(2)} s`;
  }

  place(name, index, of = "") {
    return [`frame ${this.number(name, index)}${of}`, this.seconds(name, index)].filter(Boolean).join(" · ");
  }

  // How many pictures of these videos in a row, and how large, below each a ribbon and `lines` of text.
  tile(names, space, lines = 2) {
    const aspects = names.map((name) => this.meta(name).width / this.meta(name).height);
    const mean = aspects.reduce((sum, aspect) => sum + aspect, 0) / aspects.length;
    return tile(names.length, mean, space, 20 + 17 * lines);
  }

  now(name) {
    return this.strips.get(name) ?? null;
  }

  async load(name) {
    const known = this.now(name);
    if (known) {
      this.strips.delete(name);
      this.strips.set(name, known); // the most recently used video is last
      return known;
    }
    if (!this.pending.has(name)) {
      const { sheets } = this.meta(name);
      this.pending.set(name, Strip.load(this.meta(name), this.model.get("sheets").slice(...sheets)));
    }
    const strip = await this.pending.get(name);
    this.pending.delete(name);
    this.strips.set(name, strip);
    this.forget();
    return strip;
  }

  forget() {
    for (const [name, strip] of this.strips) {
      if (this.strips.size <= this.most) return;
      this.strips.delete(name);
      for (const sheet of strip.sheets) sheet.close();
    }
  }
}

// Subclasses set `clips`, `player`, `state` and `stopResize`, and `video` if a dropdown selects the video.
class FrameView {
  constructor(model) {
    this.model = model;
  }

  turnTo(name, index) {
    const { count, rate } = this.clips.meta(name);
    this.name = name;
    this.video.control.value = name;
    this.player.fps = rate ?? 12;
    this.player.setCount(count);
    this.player.show(index);
    this.state.set("video", name);
    this.state.set("frame", this.player.index);
  }

  // Says where the player is, and draws its timeline, whose ribbons are the phases of the video or those given.
  showPlace({ film = null, filmHeight, ribbons = null, more = "" } = {}) {
    const { phases, numbers } = this.clips.meta(this.name);
    const place = this.clips.place(this.name, this.player.index, ` of ${numbers.at(-1)}`);
    this.player.describe([place, more].filter(Boolean).join(" · "));
    this.player.drawTrack(ribbons ?? (phases ? [phases] : []), this.clips.paletteOf(this.name), film, filmHeight);
    this.root.dataset.frame = numbers[this.player.index];
  }

  dispose() {
    this.stopResize();
    this.player.dispose();
    this.state.dispose();
  }
}

class Panel {
  constructor(clips) {
    this.clips = clips;
    this.canvas = element("canvas");
    this.ribbon = element("canvas", { className: "mvf-ribbon" });
    this.caption = element("figcaption");
    this.element = element("figure", {}, this.canvas, this.ribbon, this.caption);
  }

  // Shows a frame in a box of width x height with its aspect ratio kept; does nothing until its strip is decoded.
  draw(name, index, width, height, caption) {
    const strip = this.clips.now(name);
    if (!strip) return;
    const scale = Math.min(width / strip.width, height / strip.height);
    const [w, h] = [Math.round(strip.width * scale), Math.round(strip.height * scale)];
    strip.draw(fitCanvas(this.canvas, w, h), index, 0, 0, w, h);
    const { phases, numbers } = this.clips.meta(name);
    this.ribbon.style.display = phases ? "block" : "none";
    if (phases) drawRibbon(this.ribbon, w, 10, runsOf(phases), phases.length, index + 0.5, this.clips.palette);
    this.caption.textContent = caption;
    Object.assign(this.canvas, { role: "img", ariaLabel: caption });
    Object.assign(this.element.dataset, { video: name, number: numbers[index] });
    this.element.style.width = `${w}px`;
  }
}

function drawRibbon(canvas, width, height, runs, length, cursor, palette, dashed = false, under = null) {
  const ctx = fitCanvas(canvas, width, height);
  ctx.clearRect(0, 0, width, height);
  ctx.fillStyle = palette.unlabelled;
  ctx.fillRect(0, 0, width, height);
  runs.forEach(([first, phase], i) => {
    const [left, right] = [first, runs[i + 1]?.[0] ?? length].map((frame) => (frame * width) / length);
    ctx.globalAlpha = dashed ? 0.45 : 1;
    ctx.fillStyle = phase < 0 ? palette.unlabelled : palette.colours[phase];
    ctx.fillRect(left, 0, right - left, height);
    ctx.globalAlpha = 1;
    if (!dashed) return;
    ctx.setLineDash([5, 4]);
    ctx.strokeStyle = "#000";
    ctx.strokeRect(left + 1, 1, right - left - 2, height - 2);
    ctx.setLineDash([]);
  });
  under?.(ctx);
  const x = Math.max(2, Math.min(width - 2, (cursor * width) / length));
  ctx.fillStyle = "#fff"; // visible on every phase's colour
  ctx.fillRect(x - 2, 0, 4, height);
  ctx.fillStyle = "#000";
  ctx.fillRect(x - 1, 0, 2, height);
}

function legend(palette, unlabelled) {
  const entries = palette.names.map((name, i) => [name, palette.colours[i]]);
  if (unlabelled) entries.push(["unlabelled", palette.unlabelled]);
  const parts = entries.map(([name, colour]) => {
    const swatch = element("span", { className: "mvf-swatch" });
    swatch.style.background = colour;
    return element("span", {}, swatch, name);
  });
  return element("div", { className: "mvf-legend" }, ...parts);
}

function hasUnlabelled(clips) {
  return clips.names.some((name) => clips.meta(name).phases?.includes(-1) ?? true);
}

// Calls `draw` at most once per animation frame when the width changes; returns a function that stops it.
function onResize(root, draw) {
  const observer = new ResizeObserver(onePerFrame(draw));
  observer.observe(root);
  return () => observer.disconnect();
}
