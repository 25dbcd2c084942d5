// Labels phases by keyboard and mouse; follows frames.js. Segments are [[first source frame, phase], ...].

const BLOCK = 20; // frames of one message
const BLOCKS = 4; // kept in the page: the block of the current frame and those around it
const BITMAPS = 12; // decoded pictures, which are large
const SILENCE = 5000; // milliseconds without an answer after which the page says so
const LINE = 26; // height of the timeline
const ROOMY = 8; // pixels of a frame on the timeline that is wide enough for a mark
const NEAR = 6; // pixels from a boundary at which the mouse takes it
const SPEEDS = [0.1, 0.25, 0.5, 1, 2, 4];
const ZOOMS = [1, 2, 4, 8, 16]; // of the timeline

// Pictures around one frame, which the kernel decodes when they are asked for, one block at a time.
class KernelFrames extends Clips {
  constructor(model, onFrame, onSilence) {
    super(model);
    Object.assign(this, { onFrame, onSilence, blocks: new Map(), bitmaps: new Map(), broken: new Map() });
    this.at = { name: this.names[0], index: 0, step: 1 };
    this.asked = null;
  }

  go(name, index) {
    const { at } = this;
    if (name !== at.name) this.broken.delete(name);
    const step = name === at.name && index < at.index ? -1 : 1;
    this.at = { name, index, step: name === at.name && index === at.index ? at.step : step };
    this.ask();
    this.decode();
  }

  key(name, index) {
    return `${Math.floor(index / BLOCK)} ${name}`;
  }

  // The first frames of the blocks to have, most urgent first: on the way of the last step, then behind.
  wanted() {
    const { name, index, step } = this.at;
    if (this.broken.has(name)) return [];
    const here = Math.floor(index / BLOCK);
    const firsts = [here, here + step, here - step, here + 2 * step].map((block) => block * BLOCK);
    return firsts.filter((first) => first >= 0 && first < this.meta(name).count);
  }

  ask() {
    if (this.asked) return; // one at a time, so that a jump never waits for more than one block
    const { name } = this.at;
    const first = this.wanted().find((frame) => !this.blocks.has(this.key(name, frame)));
    if (first === undefined) return;
    this.asked = setTimeout(() => {
      this.asked = null;
      this.onSilence();
    }, SILENCE);
    this.model.send({ kind: "frames", video: name, first, count: Math.min(BLOCK, this.meta(name).count - first) });
  }

  receive({ kind, video, first, text }, buffers) {
    clearTimeout(this.asked);
    this.asked = null;
    if (kind === "unreadable") this.broken.set(video, text);
    else {
      const pictures = Array.from(buffers, (buffer) => new Blob([buffer], { type: "image/jpeg" }));
      this.blocks.set(this.key(video, first), pictures);
    }
    this.forget();
    this.ask();
    this.decode();
  }

  forget() {
    const { name } = this.at;
    const near = new Set(this.wanted().map((first) => this.key(name, first)));
    for (const key of this.blocks.keys()) {
      if (this.blocks.size <= BLOCKS) return;
      if (!near.has(key)) this.blocks.delete(key);
    }
  }

  get ahead() {
    const { name, index, step } = this.at;
    return [0, 1, 2, 3].map((steps) => index + steps * step).filter((i) => i >= 0 && i < this.meta(name).count);
  }

  decode() {
    const { name } = this.at;
    for (const index of this.ahead) {
      const key = `${index} ${name}`;
      const picture = this.blocks.get(this.key(name, index))?.[index % BLOCK];
      if (!picture || this.pending.has(key) || this.bitmaps.has(key)) continue;
      this.pending.set(key, picture);
      createImageBitmap(picture).then((bitmap) => this.store(key, bitmap));
    }
  }

  store(key, bitmap) {
    this.pending.delete(key);
    this.bitmaps.set(key, bitmap);
    const near = new Set(this.ahead.map((index) => `${index} ${this.at.name}`));
    for (const [old, picture] of this.bitmaps) {
      if (this.bitmaps.size <= BITMAPS) break;
      if (near.has(old)) continue;
      this.bitmaps.delete(old);
      picture.close();
    }
    if (key === `${this.at.index} ${this.at.name}`) this.onFrame();
    this.decode(); // the page may have moved on
  }

  // The current frame as Panel draws it; null until it has arrived.
  now(name) {
    const bitmap = this.bitmaps.get(`${this.at.index} ${name}`);
    if (!bitmap) return null;
    const { width, height } = bitmap;
    return { width, height, draw: (ctx, _, ...box) => ctx.drawImage(bitmap, ...box) };
  }

  get bytes() {
    const packed = [...this.blocks.values()].flat().map((picture) => picture.size);
    const decoded = [...this.bitmaps.values()].map(({ width, height }) => 4 * width * height);
    return [...packed, ...decoded].reduce((sum, size) => sum + size, 0);
  }

  dispose() {
    clearTimeout(this.asked);
    this.asked = true; // asks for nothing any more
    for (const bitmap of this.bitmaps.values()) bitmap.close();
    this.bitmaps.clear();
  }
}

class LabelerView extends FrameView {
  constructor(model, el) {
    super(model);
    const silent = "no answer from the kernel: wait if it is busy; if it was restarted, run the cell again";
    this.clips = new KernelFrames(model, () => this.draw(), () => this.say(silent));
    this.drafts = new Map(); // name -> { segments, kind }: "saved", "edited", "proposed" or "empty"; never changed in place
    this.known = { ...model.get("labels") }; // the labels in the table
    this.done = []; // steps that can be undone: [{ name, before, after }, ...] each
    this.undone = [];
    this.waiting = new Map(); // id of a message -> what all clips were before it
    this.root = createRoot(el, "phase-labeler", "Phase labeler");
    this.state = new Synced(model, ["video", "frame"], () => this.restore());
    this.build();
    this.listeners = {
      "msg:custom": (message, buffers) => this.receive(message, buffers),
      "change:labels": () => this.refresh(),
      "change:unsaved": () => this.showUnsaved(),
      "change:palette": () => this.showPhases(),
    };
    for (const [event, listener] of Object.entries(this.listeners)) model.on(event, listener);
    this.onKey = (event) => this.press(event);
    this.root.addEventListener("keydown", this.onKey);
    this.stopResize = onResize(this.root, () => this.draw());
    this.showUnsaved();
    this.restore();
  }

  build() {
    const names = this.clips.names.map((name) => [name, name]);
    this.video = select("Video", names, this.state.get("video"), (name) => this.go(name, 0));
    const calls = { onMove: (i) => this.go(this.name, i), onSize: () => this.draw() };
    this.player = new Player(this.root, { count: 1, speeds: SPEEDS, ...calls });
    this.remove = this.action("Remove boundary (Backspace)", () => this.erase());
    this.undo = this.action("Undo", () => this.turnBack());
    this.redo = this.action("Redo", () => this.repeat());
    this.accept = this.action("Accept and next (Enter)", () => this.save());
    this.all = this.action("Accept all proposals", () => this.saveAll());
    this.all.hidden = !this.model.get("proposes");
    this.write = this.action("Write segments", () => this.writeSegments());
    this.write.title = "Write segments of all clips as a table: saved labels as they are, other clips as proposed from them";
    this.write.hidden = !this.model.get("segments");
    this.phaseRow = row();
    this.editor = row();
    this.editor.hidden = true;
    this.panel = new Panel(this.clips);
    this.line = element("canvas", { className: "mvf-ribbon mvf-seek", role: "img" });
    this.line.onpointerdown = (event) => this.grab(event);
    this.line.onpointermove = (event) => this.drag(event);
    this.line.onpointerup = () => this.drop();
    this.line.onpointercancel = () => this.drop();
    this.curve = element("canvas", { className: "mvf-ribbon", role: "img" });
    this.zoom = select("Zoom", ZOOMS.map((zoom) => [zoom, `${zoom} ×`]), 1, () => this.draw());
    this.player.speed.element.before(this.zoom.element);
    this.label = element("p", { className: "mvf-note" });
    this.trust = element("p", { className: "mvf-note" });
    this.status = element("p", { className: "mvf-status", role: "status" });
    const path = field("Save to", element("input", { type: "text", placeholder: "/home/me/videos.csv" }), "mvf-text");
    this.rescue = row(path.element, this.action("Save all labels there", () => this.saveAs(path.control.value)));
    this.player.timeline.replaceChildren(this.player.slider, this.line); // the line takes the mouse, the slider the keys
    this.player.timeline.after(this.curve);
    this.root.append(row(this.video.element, this.undo, this.redo, this.remove, this.accept, this.all, this.write));
    this.root.append(this.phaseRow, this.editor, this.panel.element, this.player.element);
    this.root.append(this.label, this.trust, this.status, this.rescue);
    const keys =
      "Digits or P: a phase begins at this frame. Arrows: move, with shift ten frames. B, N: boundary before, next. " +
      "Backspace: remove the last boundary. Drag a boundary on the timeline to move it. + and −: zoom the timeline. Ctrl+Z, Ctrl+Y: undo, redo. Enter: accept, next video.";
    this.root.append(element("p", { className: "mvf-note", textContent: keys }));
    this.showPhases();
  }

  get names() {
    return this.clips.palette.names;
  }

  showPhases() {
    this.clips.palette = this.model.get("palette");
    const control = (name, i) => this.phaseButton(name, i < this.names.length ? i : -1);
    this.phases = [...this.names, "unlabelled"].map(control);
    const begins = element("span", { className: "mvf-label", textContent: "Begins here:" });
    const add = this.action("Add phase", () => this.addPhase());
    const edit = this.action("Names and colours", () => (this.editor.hidden = !this.editor.hidden));
    this.phaseRow.replaceChildren(begins, ...this.phases, add, edit);
    const focused = document.activeElement?.closest("[data-mvf]") === this.root && document.activeElement.ariaLabel;
    const drop = this.action("Remove last phase", () => this.rename(this.names.slice(0, -1)));
    drop.disabled = this.names.length < 2;
    this.editor.replaceChildren(...this.names.map((name, i) => this.phaseEditor(name, i)), drop);
    if (focused) [...this.editor.querySelectorAll("input")].find((input) => input.ariaLabel === focused)?.focus();
    if (this.name) this.draw();
  }

  phaseEditor(name, i) {
    const text = element("input", { type: "text", value: name, ariaLabel: `Name ${i + 1}` });
    text.onchange = () => this.rename(this.names.map((one, k) => (k === i ? text.value : one)));
    const colour = element("input", { type: "color", ariaLabel: `Colour ${i + 1}` });
    colour.value = this.clips.palette.colours[i].toLowerCase();
    colour.onchange = () => this.model.send({ kind: "colour", phase: i, colour: colour.value });
    return element("span", { className: "mvf-field" }, field(`Name ${i + 1}`, text, "mvf-text").element, colour);
  }

  addPhase() {
    const count = this.names.length + 1;
    let name = `phase ${count - 1}`;
    while (this.names.includes(name)) name += "'";
    this.editor.hidden = false;
    this.rename([...this.names, name]);
  }

  rename(names) {
    const used = [...this.drafts].find(([, { segments }]) => segments.some(([, phase]) => phase >= names.length));
    if (used) return this.say(`${used[0]} has the phase ${this.names.at(-1)}: remove it there first`);
    this.model.send({ kind: "names", names });
  }

  phaseButton(name, phase) {
    const key = phase < 9 ? `${phase + 1} ` : "";
    const control = this.action(`${key}${name}`, () => this.begin(phase));
    control.classList.add("mvf-phase");
    control.style.borderLeftColor = phase < 0 ? this.clips.palette.unlabelled : this.clips.palette.colours[phase];
    control.dataset.phase = phase;
    return control;
  }

  // Return the focus to the labeler after a click, so that its keys keep working.
  action(text, act) {
    return button(text, () => {
      act();
      this.root.focus();
    });
  }

  // The reply "saved" may arrive before the trait does.
  isLabelled(name) {
    return name in this.known;
  }

  get draft() {
    return this.drafts.get(this.name);
  }

  get number() {
    return this.clips.number(this.name, this.player.index);
  }

  restore() {
    this.go(this.state.get("video"), this.state.get("frame"));
  }

  go(name, index) {
    const arrived = name !== this.name;
    this.turnTo(name, index);
    this.clips.go(name, this.player.index);
    if (arrived) this.arrive();
    this.draw();
  }

  arrive() {
    const name = this.name;
    this.player.stop();
    if (this.known[name] && this.draft?.kind !== "edited") this.keep(name, this.known[name], "saved");
    if (!this.drafts.has(name)) this.keep(name, [], "empty");
    const asks = ["empty", "proposed"].includes(this.draft.kind) && Object.keys(this.known).length > 0;
    this.asks = asks && this.model.get("proposes"); // once the picture is there, which is wanted first
  }

  keep(name, segments, kind, others = {}) {
    this.drafts.set(name, { segments: segments.map((pair) => [...pair]), kind, ...others });
  }

  // Another view or Python saved or removed a label.
  refresh() {
    const before = this.known;
    this.known = { ...this.model.get("labels") };
    for (const [name, segments] of Object.entries(this.known)) {
      if (this.drafts.get(name)?.kind !== "edited") this.keep(name, segments, "saved");
    }
    for (const name of Object.keys(before)) {
      if (!(name in this.known) && this.drafts.get(name)?.kind === "saved") this.keep(name, [], "empty");
    }
    this.draw();
  }

  // Labels that could not be written are drafts again, also in a page that is loaded anew.
  showUnsaved() {
    const unsaved = this.model.get("unsaved");
    for (const [name, segments] of Object.entries(unsaved)) {
      if (this.drafts.get(name)?.kind !== "edited") this.keep(name, segments, "edited");
    }
    this.rescue.hidden = Object.keys(unsaved).length === 0;
    if (this.name) this.draw();
  }

  press(event) {
    if (event.target.closest("select, input:not([type=range])") || event.altKey) return;
    if (event.key === "Enter" && event.target.closest("button")) return; // enter activates that button
    const act = event.ctrlKey || event.metaKey ? this.chord(event) : this.plain(event.key);
    if (!act) return;
    act();
    event.preventDefault();
    event.stopPropagation();
  }

  chord({ key, shiftKey }) {
    const letter = key.toLowerCase();
    if (letter === "y" || (letter === "z" && shiftKey)) return () => this.repeat();
    return letter === "z" ? () => this.turnBack() : null;
  }

  plain(key) {
    if (/^[0-9]$/.test(key)) return () => this.begin(Number(key) - 1);
    const acts = {
      p: () => this.begin(this.phaseBefore(this.number) + 1),
      b: () => this.toBoundary(-1),
      n: () => this.toBoundary(1),
      "+": () => this.zoomBy(1),
      "-": () => this.zoomBy(-1),
      backspace: () => this.erase(),
      enter: () => this.save(),
    };
    return acts[key.toLowerCase()];
  }

  phaseBefore(number) {
    return this.shown.filter(([first]) => first <= number).at(-1)?.[1] ?? -1;
  }

  // If this frame already has the phase, the boundary before moves here; if the next segment has it, the next boundary
  // moves here; otherwise a boundary is set here.
  begin(phase) {
    if (phase >= this.names.length) return this.say(`there are only ${this.names.length} phases; "Add phase" makes one more`);
    this.player.stop();
    const { number } = this;
    const segments = this.draft.segments.map((pair) => [...pair]);
    const here = segments.filter(([first]) => first <= number).length - 1;
    if (segments[here]?.[1] === phase) segments[here][0] = number;
    else if (segments[here + 1]?.[1] === phase) segments[here + 1][0] = number;
    else if (segments[here]?.[0] === number) segments[here][1] = phase;
    else segments.splice(here + 1, 0, [number, phase]);
    this.edit(segments);
  }

  erase() {
    const here = this.draft.segments.filter(([first]) => first <= this.number).length - 1;
    if (here < 0) return this.say("there is no boundary at or before this frame");
    this.player.stop();
    this.edit(this.draft.segments.filter((_, i) => i !== here));
  }

  edit(segments) {
    const distinct = segments.filter(([first], i) => first !== segments[i + 1]?.[0]);
    const joined = distinct.filter(([, phase], i) => phase !== (i ? distinct[i - 1][1] : -1));
    const before = this.condition(this.name);
    this.keep(this.name, joined, "edited");
    this.remember([{ name: this.name, before, after: this.condition(this.name) }]);
    this.say("");
    this.draw();
  }

  condition(name) {
    return { draft: this.drafts.get(name) ?? { segments: [], kind: "empty" }, saved: this.known[name] ?? null };
  }

  remember(changes) {
    this.done.push(changes);
    this.undone = [];
  }

  turnBack() {
    const changes = this.done.pop();
    if (!changes) return this.say("nothing to undo");
    this.undone.push(changes);
    this.apply(changes, "before", "after", "undone");
  }

  repeat() {
    const changes = this.undone.pop();
    if (!changes) return this.say("nothing to redo");
    this.done.push(changes);
    this.apply(changes, "after", "before", "done again");
  }

  // Labels that were saved in this step are put back in the table, too.
  apply(changes, to, from, word) {
    this.player.stop();
    const labels = {};
    for (const change of changes) {
      const { name } = change;
      const { draft, saved } = change[to];
      this.drafts.set(name, draft);
      if (JSON.stringify(saved) === JSON.stringify(change[from].saved)) continue;
      labels[name] = saved ?? [];
      if (saved) this.known[name] = saved;
      else delete this.known[name];
    }
    this.say(`${word}: ${changes.length === 1 ? changes[0].name : `${changes.length} clips`}`);
    if (Object.keys(labels).length) this.model.send({ kind: "accept", labels });
    if (changes.length === 1 && changes[0].name !== this.name) this.go(changes[0].name, 0);
    this.draw();
  }

  send(kind, content) {
    this.serial = (this.serial ?? 0) + 1;
    this.waiting.set(this.serial, new Map(this.clips.names.map((name) => [name, this.condition(name)])));
    this.model.send({ kind, id: this.serial, ...content });
  }

  save() {
    if (!this.draft.segments.length) return this.say("nothing to save yet: mark where a phase begins");
    this.player.stop();
    this.say(`saving ${this.name} …`);
    this.send("accept", { labels: { [this.name]: this.draft.segments } });
  }

  saveAll() {
    this.player.stop();
    this.say("saving all proposals …");
    this.send("accept all", { but: this.clips.names.filter((name) => this.drafts.get(name)?.kind === "edited") });
  }

  // Of saved labels: what is edited and not accepted is named, because it is not among them.
  writeSegments() {
    const edited = this.clips.names.find((name) => this.drafts.get(name)?.kind === "edited");
    if (edited) return this.say(`${edited} is edited, not saved: accept it first, or undo`);
    this.say("writing segments …");
    this.model.send({ kind: "segments" });
  }

  saveAs(path) {
    this.model.send({ kind: "save as", path: path.trim() });
  }

  receive(message, buffers) {
    const { kind, text } = message;
    if (["frames", "unreadable"].includes(kind)) this.clips.receive(message, buffers);
    if (kind === "proposal") this.takeProposal(message);
    if (["saved", "copied"].includes(kind)) this.takeSaved(message);
    if (kind === "problem") this.takeProblem(message);
    if (text) this.say(text);
    this.draw();
  }

  takeProposal({ video, segments, agreement, clips }) {
    if (!segments.length || this.drafts.get(video)?.kind === "edited" || this.isLabelled(video)) return;
    this.keep(video, segments, "proposed", { agreement, clips });
  }

  takeSaved({ kind, id, labels }) {
    const before = this.waiting.get(id);
    this.waiting.delete(id);
    if (!before && kind === "saved") return; // of an undone step, which is shown already
    const changes = [];
    for (const [name, segments] of Object.entries(labels)) {
      this.keep(name, segments, segments.length ? "saved" : "empty");
      if (segments.length) this.known[name] = segments;
      if (before) changes.push({ name, before: before.get(name), after: this.condition(name) });
    }
    if (before) this.remember(changes);
    if (changes.length === 1 && changes[0].name === this.name) this.next();
  }

  takeProblem({ of, id }) {
    this.waiting.delete(id);
    if (["accept", "accept all"].includes(of)) this.rescue.hidden = false;
    if (of === "names") this.showPhases();
  }

  // Finds the next video without a label, from here to the end and then from the start.
  next() {
    const { names } = this.clips;
    const here = names.indexOf(this.name);
    const rest = [...names.slice(here + 1), ...names.slice(0, here)];
    const unlabelled = rest.find((name) => !this.isLabelled(name));
    if (unlabelled) this.go(unlabelled, 0);
  }

  say(text) {
    this.status.textContent = text;
  }

  // The segments on the screen: those of a boundary that is being dragged, or the draft's.
  get shown() {
    return this.dragged?.segments ?? this.draft.segments;
  }

  // The first shown frame at or after a source frame.
  indexOf(number) {
    const index = this.clips.meta(this.name).numbers.findIndex((one) => one >= number);
    return index < 0 ? this.player.count - 1 : index;
  }

  toBoundary(step) {
    const firsts = this.draft.segments.map(([first]) => first);
    const found = step > 0 ? firsts.find((first) => first > this.number) : firsts.findLast((first) => first < this.number);
    if (found === undefined) return this.say(`there is no boundary ${step > 0 ? "after" : "before"} this frame`);
    this.player.stop();
    this.go(this.name, this.indexOf(found));
  }

  zoomBy(step) {
    const place = ZOOMS.indexOf(Number(this.zoom.control.value)) + step;
    this.zoom.control.value = ZOOMS[Math.max(0, Math.min(ZOOMS.length - 1, place))];
    this.draw();
  }

  // The frames on the timeline, around the current one; they stay while a boundary is being dragged.
  get view() {
    if (this.dragged) return this.dragged.view;
    const { length } = this.clips.meta(this.name);
    const span = length / Number(this.zoom.control.value);
    return { start: Math.max(0, Math.min(length - span, this.number + 0.5 - span / 2)), span };
  }

  // Which boundary is under the mouse; -1 for none.
  boundaryAt(x) {
    const { start, span } = this.view;
    const distances = this.draft.segments.map(([first]) => Math.abs(((first - start) * this.line.clientWidth) / span - x));
    const least = Math.min(...distances);
    return least <= NEAR ? distances.indexOf(least) : -1;
  }

  grab(event) {
    this.player.stop();
    this.root.focus();
    this.line.setPointerCapture(event.pointerId);
    const place = this.boundaryAt(event.offsetX);
    this.dragged = { view: this.view, place, segments: place < 0 ? null : this.draft.segments.map((pair) => [...pair]) };
    if (place < 0) this.drag(event);
  }

  drag(event) {
    const { length, numbers } = this.clips.meta(this.name);
    if (!this.dragged) {
      this.line.style.cursor = this.boundaryAt(event.offsetX) < 0 ? "pointer" : "ew-resize";
      return;
    }
    const { place, segments } = this.dragged;
    const wanted = this.view.start + (event.offsetX / this.line.clientWidth) * this.view.span;
    if (place < 0) return this.go(this.name, Math.max(0, numbers.filter((number) => number <= wanted).length - 1));
    const [least, most] = [segments[place - 1]?.[0] ?? -1, segments[place + 1]?.[0] ?? length];
    const free = numbers.filter((number) => number > least && number < most);
    if (!free.length) return;
    segments[place][0] = free.reduce((best, n) => (Math.abs(n - wanted) < Math.abs(best - wanted) ? n : best));
    this.go(this.name, this.indexOf(segments[place][0]));
  }

  drop() {
    const segments = this.dragged?.segments;
    this.dragged = null;
    if (segments && JSON.stringify(segments) !== JSON.stringify(this.draft.segments)) this.edit(segments);
    else this.draw();
  }

  draw() {
    const { name } = this;
    const { numbers } = this.clips.meta(name);
    const { index } = this.player;
    const width = innerWidthOf(this.root);
    const { kind } = this.draft;
    const phase = this.phaseBefore(this.number);
    const word = phase < 0 ? "unlabelled" : this.names[phase];
    const picture = this.clips.now(name);
    const problem = this.clips.broken.get(name);
    const space = this.player.space(this.panel.element);
    const caption = `${name} · ${this.clips.place(name, index)} · ${word}`;
    if (picture) this.panel.draw(name, index, space.width, space.height - 40, caption);
    else this.panel.caption.textContent = problem ?? `${name} · frame ${this.number} is being read …`;
    this.panel.canvas.style.opacity = picture ? 1 : 0.15;
    const { start, span } = this.view;
    const runs = this.shown.map(([first, p]) => [first - start, p]);
    const scale = (ctx) => this.drawScale(ctx, width, runs);
    drawRibbon(this.line, width, LINE, runs, span, this.number + 0.5 - start, this.clips.palette, kind === "proposed", scale);
    this.drawTrust(width, index);
    const from = (first) => [first, this.clips.seconds(name, this.indexOf(first))].filter((part) => part !== "").join(" · ");
    const where = this.shown.map(([first, p]) => `${p < 0 ? "unlabelled" : this.names[p]} from ${from(first)}`).join(", ");
    const state = { saved: "saved", edited: "edited, not saved", proposed: "proposed, press Enter to accept", empty: "no label" }[kind];
    this.label.textContent = where ? `${state}: ${where}` : state;
    this.line.ariaLabel = this.label.textContent;
    for (const control of this.phases) control.ariaPressed = String(Number(control.dataset.phase) === phase);
    for (const option of this.video.control.options) {
      const text = `${this.isLabelled(option.value) ? "✓ " : ""}${option.value}`;
      if (option.textContent !== text) option.textContent = text;
    }
    this.undo.disabled = !this.done.length;
    this.redo.disabled = !this.undone.length;
    this.player.describe(this.clips.place(name, index, ` of ${numbers.at(-1)}`));
    Object.assign(this.root.dataset, { frame: this.number, video: name, label: kind, bytes: this.clips.bytes });
    this.root.dataset.ready = String(Boolean(picture || problem));
    if (!this.asks || !(picture || problem)) return;
    this.asks = false;
    this.model.send({ kind: "propose", video: name });
  }

  // On the timeline: names of phases, marks between frames where there is room, and which part of the clip is shown.
  drawScale(ctx, width, runs) {
    const { start, span } = this.view;
    const { length } = this.clips.meta(this.name);
    const x = (frame) => (frame * width) / span;
    Object.assign(ctx, { font: "11px system-ui, sans-serif", textBaseline: "middle" });
    runs.forEach(([first, phase], i) => {
      const [left, right] = [Math.max(0, first), Math.min(span, runs[i + 1]?.[0] ?? span)].map(x);
      const name = this.names[phase] ?? "";
      ctx.fillStyle = this.draft.kind === "proposed" || phase < 0 ? "#000" : inkOn(this.clips.palette.colours[phase]);
      if (ctx.measureText(name).width + 10 < right - left) ctx.fillText(name, left + 5, LINE / 2 - 1);
    });
    ctx.fillStyle = "#0008";
    for (let frame = Math.ceil(start); x(1) >= ROOMY && frame < start + span; frame++) ctx.fillRect(x(frame - start), 0, 1, 5);
    if (span === length) return;
    ctx.fillStyle = "#fffc";
    ctx.fillRect(0, LINE - 4, width, 4);
    ctx.fillStyle = "#000";
    ctx.fillRect((start * width) / length, LINE - 4, (span * width) / length, 4);
  }

  // How well the labelled clips agree with the proposal: a bar for every frame, its mean and what it is in words.
  drawTrust(width, index) {
    const { kind, agreement, clips } = this.draft;
    const shares = kind === "proposed" ? agreement : null;
    this.curve.style.display = shares ? "block" : "none";
    this.trust.textContent = "";
    if (kind === "proposed" && !shares) this.trust.textContent = "proposed from one labelled clip: there is no agreement to compare";
    if (!shares) return;
    const { length, numbers } = this.clips.meta(this.name);
    const { start, span } = this.view;
    const ctx = fitCanvas(this.curve, width, 16);
    ctx.clearRect(0, 0, width, 16);
    ctx.fillStyle = getComputedStyle(this.label).color;
    shares.forEach((share, i) => {
      const ends = [numbers[i], numbers[i + 1] ?? length];
      const [left, right] = ends.map((frame) => Math.round(((frame - start) * width) / span));
      ctx.fillRect(left, 16 * (1 - share), right - left, 16 * share);
    });
    const mean = shares.reduce((sum, share) => sum + share, 0) / shares.length;
    const [here, all] = [shares[index], mean].map((share) => `${Math.round(100 * share)} %`);
    const text = `agreement of ${clips} labelled clips: ${all} on average, ${here} at this frame. `;
    this.trust.textContent = `${text}It is the share of them that, each alone, propose the phase shown; not a probability.`;
    this.curve.ariaLabel = text;
  }

  dispose() {
    for (const [event, listener] of Object.entries(this.listeners)) this.model.off(event, listener);
    this.root.removeEventListener("keydown", this.onKey);
    this.clips.dispose();
    super.dispose();
  }
}

export default widget(LabelerView);
