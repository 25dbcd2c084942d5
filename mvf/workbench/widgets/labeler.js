// Labels phases by keyboard; follows frames.js. Segments are [[first source frame, phase], ...].

class LabelerView extends FrameView {
  constructor(model, el) {
    super(model);
    this.clips = new Clips(model, 8);
    this.drafts = new Map(); // name -> { segments, kind }: "saved", "edited", "proposed" or "empty"
    this.names = this.clips.palette.names;
    this.root = createRoot(el, "phase-labeler", "Phase labeler");
    this.state = new Synced(model, ["video", "frame"], () => this.restore());
    this.build();
    this.onMessage = (message) => this.receive(message);
    this.onLabels = () => this.refresh();
    this.onKey = (event) => this.press(event);
    model.on("msg:custom", this.onMessage);
    model.on("change:labels", this.onLabels);
    this.root.addEventListener("keydown", this.onKey);
    this.stopResize = onResize(this.root, () => this.draw());
    this.restore();
  }

  build() {
    const names = this.clips.names.map((name) => [name, name]);
    this.video = select("Video", names, this.state.get("video"), (name) => this.go(name, 0));
    this.player = new Player(this.root, { count: 1, label: "Frame", onMove: (i) => this.go(this.name, i) });
    this.phases = [...this.names, "unlabelled"].map((name, i) => this.phaseButton(name, i < this.names.length ? i : -1));
    this.remove = this.action("Remove boundary (Backspace)", () => this.erase());
    this.accept = this.action("Accept and next (Enter)", () => this.save());
    this.panel = new Panel(this.clips);
    this.line = element("canvas", { className: "mvf-ribbon mvf-seek", role: "img" });
    this.line.onclick = (event) => this.seek(event.offsetX / this.line.clientWidth);
    this.label = element("p", { className: "mvf-note" });
    this.status = element("p", { className: "mvf-status", role: "status" });
    const begins = element("span", { className: "mvf-label", textContent: "Begins here:" });
    this.root.append(row(this.video.element, this.remove, this.accept), row(begins, ...this.phases), this.player.element);
    this.root.append(this.panel.element, this.line, this.label, this.status);
    const keys = "Digits or P: a phase begins at this frame. Arrows: move. Backspace: remove the last boundary. Enter: accept, next video.";
    this.root.append(element("p", { className: "mvf-note", textContent: keys }));
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

  get saved() {
    return this.model.get("labels");
  }

  // The reply "saved" may arrive before the trait does.
  isLabelled(name) {
    return name in this.saved || this.drafts.get(name)?.kind === "saved";
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
    if (arrived) this.arrive();
    this.draw();
  }

  async arrive() {
    const name = this.name;
    this.player.stop();
    if (this.saved[name] && this.draft?.kind !== "edited") this.keep(name, this.saved[name], "saved");
    if (!this.drafts.has(name)) this.keep(name, [], "empty");
    const asks = ["empty", "proposed"].includes(this.draft.kind) && this.clips.names.some((one) => this.isLabelled(one));
    if (asks && this.model.get("proposes")) this.model.send({ kind: "propose", video: name });
    await this.clips.load(name);
    this.draw();
  }

  keep(name, segments, kind) {
    this.drafts.set(name, { segments: segments.map((pair) => [...pair]), kind });
  }

  // Another view or Python saved a label.
  refresh() {
    for (const [name, segments] of Object.entries(this.saved)) {
      if (this.drafts.get(name)?.kind !== "edited") this.keep(name, segments, "saved");
    }
    this.draw();
  }

  press(event) {
    if (event.target.closest("select") || event.altKey || event.ctrlKey || event.metaKey) return;
    if (event.key === "Enter" && event.target.closest("button")) return; // enter activates that button
    if (/^[0-9]$/.test(event.key)) this.begin(Number(event.key) - 1);
    else if (event.key.toLowerCase() === "p") this.begin(this.phaseBefore(this.number) + 1);
    else if (event.key === "Backspace") this.erase();
    else if (event.key === "Enter") this.save();
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  phaseBefore(number) {
    return this.draft.segments.filter(([first]) => first <= number).at(-1)?.[1] ?? -1;
  }

  // If this frame already has the phase, the boundary before moves here; if the next segment has it, the next boundary
  // moves here; otherwise a boundary is set here.
  begin(phase) {
    if (phase >= this.names.length) return this.say(`there are only ${this.names.length} phases; press a digit to repeat one`);
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
    this.keep(this.name, joined, "edited");
    this.say("");
    this.draw();
  }

  save() {
    if (!this.draft.segments.length) return this.say("nothing to save yet: mark where a phase begins");
    this.player.stop();
    this.say(`saving ${this.name} …`);
    this.model.send({ kind: "accept", video: this.name, segments: this.draft.segments });
  }

  receive({ kind, video, segments, text }) {
    if (kind === "proposal" && segments.length && this.drafts.get(video)?.kind !== "edited" && !this.isLabelled(video)) {
      this.keep(video, segments, "proposed");
    } else if (kind === "saved") {
      this.keep(video, segments, "saved");
      if (video === this.name) this.next();
    }
    if (text) this.say(text);
    this.draw();
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

  seek(share) {
    const { numbers, length } = this.clips.meta(this.name);
    const wanted = share * length;
    const index = numbers.filter((number) => number <= wanted).length - 1;
    this.player.stop();
    this.go(this.name, Math.max(0, index));
  }

  draw() {
    const { length, numbers } = this.clips.meta(this.name);
    const width = Math.min(innerWidthOf(this.root), 860);
    const phase = this.phaseBefore(this.number);
    const word = phase < 0 ? "unlabelled" : this.names[phase];
    const caption = `${this.name} · frame ${this.number} · ${word}`;
    this.panel.draw(this.name, this.player.index, width, this.model.get("height"), caption);
    const { segments, kind } = this.draft;
    drawRibbon(this.line, width, 26, segments, length, this.number + 0.5, this.clips.palette, kind === "proposed");
    const where = segments.map(([first, p]) => `${p < 0 ? "unlabelled" : this.names[p]} from ${first}`).join(", ");
    const state = { saved: "saved", edited: "edited, not saved", proposed: "proposed, press Enter to accept", empty: "no label" }[kind];
    this.label.textContent = where ? `${state}: ${where}` : state;
    this.line.ariaLabel = this.label.textContent;
    for (const control of this.phases) control.ariaPressed = String(Number(control.dataset.phase) === phase);
    for (const option of this.video.control.options) {
      const text = `${this.isLabelled(option.value) ? "✓ " : ""}${option.value}`;
      if (option.textContent !== text) option.textContent = text;
    }
    this.player.describe(`${this.number} of ${numbers.at(-1)}`);
    Object.assign(this.root.dataset, { frame: this.number, video: this.name, label: kind });
    if (this.clips.now(this.name)) this.root.dataset.ready = "true";
  }

  dispose() {
    this.model.off("msg:custom", this.onMessage);
    this.model.off("change:labels", this.onLabels);
    this.root.removeEventListener("keydown", this.onKey);
    super.dispose();
  }
}

export default widget(LabelerView);
