"""The page for a client: what their clips show, beside references; `clips.html` renders it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image

from mvf.data.datasets.folder import ASSUMED_ACTION
from mvf.data.records import VideoRecord
from mvf.embedding import EmbeddedVideo, embed
from mvf.evaluation.controls import Clock, apply_clock
from mvf.evaluation.deviation import INSIDE, Deviation, Moment, deviation
from mvf.evaluation.protocol import clocks_of
from mvf.evaluation.repetitions import find_repetitions
from mvf.evaluation.segments import propose, segment_scores
from mvf.files import atomic
from mvf.metrics.segmentation import phase_runs
from mvf.models.mvformer import FrameEmbedder
from mvf.models.stored import model_folder
from mvf.progress import tqdm
from mvf.segments import NO_TIMES
from mvf.training.run import results_folder
from mvf.workbench.notebook.probe import named_videos
from mvf.workbench.notebook.segments import UNSURE, FoundClips, find_clips, frame_edges
from mvf.workbench.plotting import axis_bottom, paper_figure, phase_colours
from mvf.workbench.plotting.style import OKABE_ITO
from mvf.workbench.report import Chart, chart, data_uri, rendered, webp

KEY_FRAMES = 6  # at most, of a clip
MOMENTS = 3  # at most, of a clip
REFERENCES = 8  # at most of an action, unless they are named: the time grows with their square
WIDTH = 3.6  # inches: half a page
PICTURE = 400, 200  # pixels: largest width and height
SHORT = 5  # seconds: hundredths are printed where every repetition is shorter
OUTSIDE, ORDINARY, LINE = OKABE_ITO[5], "#EBEBEB", "#000000"  # `report.css` has their shades for a dark page


Item = TypeVar("Item")


@dataclass(frozen=True)
class Pass:
    """One pass through the action: a clip, or one of the repetitions in it.

    Attributes:
        record: Its frames.
        first: Its first frame in the clip.
        video: Its embeddings, made from these frames alone.
        unsmeared: The same without the motion skip, which looks far ahead and back: where it deviates.
    """

    record: VideoRecord
    first: int
    video: EmbeddedVideo
    unsmeared: EmbeddedVideo

    @property
    def stop(self) -> int:
        """The frame of the clip after its last one."""
        return self.first + len(self.video.embeddings)


@dataclass(frozen=True)
class FrameSpan:
    """The source of a pass: frames `first` to `stop` of another source."""

    source: Any
    first: int
    stop: int

    @property
    def identity(self) -> str:
        return f"{self.source.identity}|{self.first}-{self.stop}"

    @property
    def source_index(self) -> np.ndarray:
        return np.arange(self.first, self.stop)

    def count(self) -> int:
        return self.stop - self.first

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Any:
        end = self.stop if stop is None else min(self.stop, self.first + stop)
        return self.source.frames(self.first + start, end, step)


@dataclass(frozen=True)
class ClientClip:
    """A clip and what the page says of it.

    Attributes:
        record: The clip.
        passes: Its repetitions; of a clip with one, the clip.
        phases: (T,) phases, -1 where idle time lies outside the repetitions; None if nobody labelled it and no labelled
            clip shows its action.
        confidence: (T,) confidence of each; None for labels by hand.
        names: Names of the phases.
        deviations: One for each pass; empty without references.
    """

    record: VideoRecord
    passes: Sequence[Pass]
    phases: np.ndarray | None = None
    confidence: np.ndarray | None = None
    names: Sequence[str] = ()
    deviations: Sequence[Deviation] = ()

    @property
    def identity(self) -> str:
        return self.record.source.identity

    @property
    def by_hand(self) -> bool:
        return self.phases is not None and self.confidence is None

    @cached_property
    def edges(self) -> np.ndarray:
        """(T + 1,) seconds, or frames, at which frames begin and the last one ends."""
        return frame_edges(self.record)[0]

    @property
    def unit(self) -> str:
        return frame_edges(self.record)[1]

    @cached_property
    def segments(self) -> list[tuple[int, int, int]]:
        """(phase, first frame, end) of each phase of each pass."""
        if self.phases is None:
            return []
        found = []
        for one in self.passes:
            runs = phase_runs(self.phases[one.first : one.stop])
            found += [(phase, one.first + a, one.first + b) for phase, a, b in runs if phase >= 0]
        return found

    @property
    def moments(self) -> list[tuple[Moment, int]]:
        """Stretches outside the band in frames of the clip, each with its pass, the largest excess first."""
        found = [
            (replace(m, start=p.first + m.start, end=p.first + m.end, peak=p.first + m.peak), i)
            for i, (p, one) in enumerate(zip(self.passes, self.deviations))
            for m in one.moments
        ]
        return sorted(found, key=lambda pair: -pair[0].excess)

    @property
    def excess(self) -> float:
        """The largest distance over a band that comes from references; 0 where it comes from the clip itself."""
        own = any(len(one.matched) == 1 for one in self.deviations)
        return 0.0 if own else max((moment.excess for moment, _ in self.moments), default=0.0)

    @property
    def sureness(self) -> float:
        """Mean confidence of its proposed phases; 1 where there are none."""
        if self.confidence is None:
            return 1.0
        return float(np.concatenate([self.confidence[one.first : one.stop] for one in self.passes]).mean())

    @property
    def lengths_of_passes(self) -> np.ndarray:
        """(K,) seconds or frames that each pass lasts."""
        return np.array([self.edges[one.stop] - self.edges[one.first] for one in self.passes])

    def name_of(self, phase: int) -> str:
        return self.names[phase] if self.names else f"phase {phase}"

    def lengths(self, phase: int) -> list[float]:
        """How long each of its segments of a phase lasts."""
        return [float(self.edges[b] - self.edges[a]) for p, a, b in self.segments if p == phase]


def write_clips_page(
    run: str | Path, clips: str | Path, labels: str | Path = "", references: str = "", out: str | Path = ""
) -> Path:
    """Writes the page about clips as one HTML file without scripts, which prints on A4.

    Args:
        run: Run folder, released head, or checkpoint.
        clips: Folder of clips, or one file.
        labels: `videos.csv` of labelled clips; empty for the one beside the clips, if it labels any.
        references: Names of the clips to compare with, separated by commas; empty for all labelled ones.
        out: File to write; empty for `clips-<name>.html` in the run folder, or beside the checkpoint.

    Returns:
        Path of the written file.

    Raises:
        ValueError: if no clip can be read, the labels are no `videos.csv`, or a reference is unknown.
    """
    run, clips = model_folder(run), Path(clips)
    found = find_clips(run, clips, labels or None)
    if not found.given:
        raise ValueError(
            f"none of the clips in {clips} can be used: python -m mvf check folder --data-root {clips} says why"
        )
    name = f"clips-{clips.stem if clips.is_file() else clips.resolve().name}.html"
    path = Path(out) if out else results_folder(run) / name
    text = rendered("clips.html", clips_values(found, references, clips, run))
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")
    return path


# ----------------------------------------------------------------------------------------------------------------------
# What is known of each clip.


def clips_values(found: FoundClips, references: str, clips: Path, run: Path) -> dict[str, object]:
    """Returns the variables of `clips.html`."""
    labelled, everyone = known_clips(found)
    good = _references(labelled, everyone, references)
    given = {record.source.identity for record in found.given}
    shown = [
        compared(clip, others_of(clip, good))
        for clip in tqdm(everyone, "comparing clips", delay=2)
        if clip.identity in given
    ]
    shown.sort(key=lambda clip: (-clip.excess, clip.sureness))
    digits = 2 if max(float(clip.lengths_of_passes.max()) for clip in shown) < SHORT else 1
    phases = {clip.name_of(phase): phase for clip in shown for phase, _, _ in clip.segments}
    colours = phase_colours(1 + max(phases.values(), default=0))
    actions = sorted({clip.record.action for clip in shown} - {ASSUMED_ACTION, ""})
    return {
        "title": " and ".join(actions).replace("_", " ").capitalize() if actions else clips.resolve().stem,
        "cards": [clip_card(c, others_of(c, good), digits, colours) for c in tqdm(shown, "drawing clips", delay=2)],
        "phases": [{"name": name, "colour": colours[i]} for name, i in phases.items()],
        "references": [clip.record.name for clip in good],
        "named": bool(references),
        "labelled": [clip.record.name for clip in labelled],
        "left_out": {name: why.replace(f"{clips.resolve()}/", "") for name, why in found.left_out.items()},
        "scores": scores_by_hand(everyone, labelled, clocks_of(found.config, found.model)["position_only"]),
        "run": run.resolve().name,
        "several_passes": any(len(clip.passes) > 1 for clip in shown),
        "no_times": NO_TIMES if any(clip.unit != "s" for clip in shown) else "",
        "unsure": UNSURE,
        "inside": INSIDE,
    }


def known_clips(found: FoundClips) -> tuple[list[ClientClip], list[ClientClip]]:
    """Embeds clips, repetition by repetition, and proposes phases for those without labels.

    Returns:
        The labelled clips that speak for the others, and all clips.
    """
    records = list({record.source.identity: record for record in [*found.given, *found.labelled]}.values())
    clips = [ClientClip(r, p) for r, p in zip(records, passes_of(found.model, records, found.config.precision))]
    clips = [
        replace(clip, phases=clip.record.phases, names=clip.record.phase_names) if _is_labelled(clip.record) else clip
        for clip in clips
    ]
    by_hand = {record.source.identity for record in found.labelled}
    labelled = [clip for clip in clips if clip.identity in by_hand]
    return labelled, [clip if clip.by_hand else _proposed(clip, others_of(clip, labelled)) for clip in clips]


def passes_of(model: FrameEmbedder, records: Sequence[VideoRecord], precision: str) -> list[list[Pass]]:
    """Embeds clips and cuts them into repetitions, each of which is embedded again as a clip of its own.

    A model knows where in its clip a frame is, so a repetition among several resembles no clip of one: of joined
    pull-ups 0.57 of the phases are right as one pass, 0.79 repetition by repetition (`docs/design.md`, section 7).
    """
    whole = embed(model, records, precision=precision)
    cuts = [find_repetitions(video.embeddings).cuts for video in whole]
    parts = [
        [_part(record, first, stop) for first, stop in zip(cut, cut[1:])] if len(cut) > 2 else []
        for record, cut in zip(records, cuts)
    ]
    again = iter(embed(model, [one for several in parts for one in several], precision=precision))
    found = [
        [(one, int(first), next(again)) for one, first in zip(several, cut)] or [(record, 0, video)]
        for record, video, cut, several in zip(records, whole, cuts, parts)
    ]
    every, trained = [one for several in found for one in several], model.without_skip()
    videos = [video for _, _, video in every]
    unsmeared = iter(videos if trained is model else embed(trained, [one for one, _, _ in every], precision=precision))
    return [[Pass(*one, next(unsmeared)) for one in several] for several in found]


def _part(record: VideoRecord, first: int, stop: int) -> VideoRecord:
    phases = record.phases
    annotations = {} if phases is None else {"phases": lambda: phases[first:stop]}
    source = FrameSpan(record.source, int(first), int(stop))
    return VideoRecord(record.name, record.action, source, annotations, record.phase_names)


def _is_labelled(clip: VideoRecord | EmbeddedVideo) -> bool:
    return clip.phases is not None and bool((clip.phases >= 0).any())


def _proposed(clip: ClientClip, labelled: Sequence[ClientClip]) -> ClientClip:
    """The clip with phases from labelled ones; as it is if there are none."""
    if not labelled:
        return clip
    phases, confidence = np.full(clip.record.num_frames, -1), np.zeros(clip.record.num_frames)
    for one, found in zip(clip.passes, propose(_videos(labelled), [one.video for one in clip.passes])):
        phases[one.first : one.stop], confidence[one.first : one.stop] = found.phases, found.confidence
    return replace(clip, phases=phases, confidence=confidence, names=labelled[0].names)


def _videos(clips: Sequence[ClientClip]) -> list[EmbeddedVideo]:
    return [one.video for clip in clips for one in clip.passes]


def others_of(clip: ClientClip, clips: Sequence[ClientClip]) -> list[ClientClip]:
    """Those of `clips` that show the same action and are not the clip itself."""
    return [c for c in clips if c.record.action == clip.record.action and c.identity != clip.identity]


def _references(labelled: Sequence[ClientClip], everyone: Sequence[ClientClip], names: str) -> list[ClientClip]:
    """The clips with these names, of two with one name the labelled one; without names labelled clips."""
    if not names:
        groups = [
            [c for c in labelled if c.record.action == action] for action in sorted({c.record.action for c in labelled})
        ]
        return [c for group in groups for c in evenly(group, REFERENCES)]
    known = {clip.record.name: clip for clip in [*everyone, *labelled]}
    return [known[r.name] for r in named_videos(names, [c.record for c in known.values()], "--references", 1)]


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many of the items, evenly spaced.

    Example:
        >>> evenly("abcdefg", 3)
        ['a', 'd', 'g']
    """
    return [items[i] for i in np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int)]


def compared(clip: ClientClip, references: Sequence[ClientClip]) -> ClientClip:
    """The clip with the deviation of each pass from the references; as it is if there are none."""
    if not references:
        return clip
    theirs = [one.unsmeared for reference in references for one in reference.passes]
    return replace(clip, deviations=[deviation(theirs, one.unsmeared) for one in clip.passes])


def scores_by_hand(
    clips: Sequence[ClientClip], labelled: Sequence[ClientClip], clock: Clock
) -> dict[str, dict[str, float]]:
    """Scores of phases proposed for clips that have labels, each from the other labelled ones, beside the clock's.

    Returns:
        `segment_scores` of `model` and `clock`; empty if no clip has labels and others to take phases from.
    """
    true: list[np.ndarray] = []
    times: list[np.ndarray] = []
    guesses: dict[str, list[np.ndarray]] = {"model": [], "clock": []}
    for clip in clips:
        sources = _videos(others_of(clip, labelled)) if clip.by_hand else []
        for one in clip.passes if sources else ():
            if one.video.phases is None or not _is_labelled(one.video):
                continue
            true.append(one.video.phases)
            times += [clip.edges[one.first :][: len(one.video.phases)]] if clip.unit == "s" else []
            rounds = {"model": [sources, [one.video]], "clock": apply_clock([sources, [one.video]], clock)}
            for name, (known, new) in rounds.items():
                guesses[name].append(propose(known, new)[0].phases)
    timed = times if len(times) == len(true) else None
    return {name: segment_scores(found, true, timed) for name, found in guesses.items()} if true else {}


# ----------------------------------------------------------------------------------------------------------------------
# What the page says of each clip.


def clip_card(
    clip: ClientClip, references: Sequence[ClientClip], digits: int, colours: Sequence[str]
) -> dict[str, object]:
    """Returns everything that the page says of one clip."""
    say = Quantities(clip.unit, digits)
    return {
        "clip": clip,
        "name": clip.record.name,
        "length": say.length(clip.edges[-1] - clip.edges[0]),
        "look": _worth_looking(clip, say),
        "totals": {clip.name_of(p): say.length(sum(clip.lengths(p))) for p in {p for p, _, _ in clip.segments}},
        "confidence": "by hand" if clip.by_hand else f"{clip.sureness:.2f}" if clip.segments else "–",
        "key_frames": _key_frames(clip, say),
        "rows": _phase_rows(clip, references, say, colours),
        "repetitions": _repetitions(clip, say, colours) if len(clip.passes) > 1 else None,
        "curve": _curve(clip, colours) if clip.deviations else None,
        "note": _note(clip),
        "moments": _moments(clip, references, say),
        "more": [_when(clip, moment, say) for moment, _ in clip.moments[MOMENTS:]],
    }


@dataclass(frozen=True)
class Quantities:
    """Formats times and lengths of a clip, in seconds, or in frames where it has no times.

    Example:
        >>> Quantities("s", 1).span(3.21, 3.9), Quantities("frames", 1).span(2, 14), Quantities("s", 2).at(0.4)
        ('3.2 to 3.9 s', 'frames 2 to 14', '0.40 s')
    """

    unit: str
    digits: int

    def number(self, value: float) -> str:
        return f"{value:.{self.digits if self.unit == 's' else 0}f}"

    def length(self, value: float) -> str:
        return f"{self.number(value)} {self.unit}"

    def at(self, value: float) -> str:
        return f"{self.number(value)} s" if self.unit == "s" else f"frame {self.number(value)}"

    def span(self, start: float, end: float) -> str:
        span = f"{self.number(start)} to {self.number(end)}"
        return f"{span} s" if self.unit == "s" else f"frames {span}"

    def spread(self, values: Sequence[float]) -> str:
        """Mean ± standard deviation; a single value without."""
        spread = f" ± {self.number(float(np.std(values, ddof=1)))}" if len(values) > 1 else ""
        return f"{self.number(float(np.mean(values)))}{spread} {self.unit}"


def _worth_looking(clip: ClientClip, say: Quantities) -> str:
    """Where a clip differs most from the references, and whether its phases are unsure; empty if neither."""
    found = [_outside(clip, clip.moments[0][0], say)] if clip.excess else []
    return "; ".join([*found, *(["phases are unsure"] if clip.sureness < UNSURE else [])])


def _note(clip: ClientClip) -> str:
    """What to know about the band, where the clip is furthest outside it; empty if nothing."""
    if not clip.deviations:
        return ""
    place = clip.moments[0][1] if clip.moments else 0
    note = clip.deviations[place].note
    which = f"Repetition {place + 1}: {note[:1]}" if len(clip.passes) > 1 else note[:1].upper()
    return f"{which}{note[1:]}." if note else ""


def _outside(clip: ClientClip, moment: Moment, say: Quantities) -> str:
    return f"{_when(clip, moment, say)} ({moment.excess:.2f} × band)"


def _when(clip: ClientClip, moment: Moment, say: Quantities) -> str:
    if moment.end - moment.start == clip.record.num_frames:
        return "throughout"
    return say.span(*clip.edges[[moment.start, moment.end]])


def _key_frames(clip: ClientClip, say: Quantities) -> list[tuple[str, str]]:
    """(picture, caption): the middle of each repetition, else of each phase, else evenly spaced."""
    last = clip.record.num_frames
    if len(clip.passes) > 1:
        found = [(f"{i}:", (one.first + one.stop) // 2) for i, one in enumerate(clip.passes, 1)]
    elif clip.segments:
        found = [(clip.name_of(phase), (start + stop) // 2) for phase, start, stop in clip.segments]
    else:
        found = [("", int(frame)) for frame in np.linspace(0, last - 1, 6)[1:-1]]
    found = evenly(found, KEY_FRAMES)
    pictures = _pictures(clip.record, [frame for _, frame in found])
    return [(pictures[frame], f"{name} {say.at(clip.edges[frame])}".strip()) for name, frame in found]


def _pictures(record: VideoRecord, frames: Sequence[int]) -> dict[int, str]:
    """Small pictures of frames as data addresses."""
    found, wanted = {}, sorted(set(frames))
    for frame, pixels in zip(wanted, record.frames_at(wanted)):
        image = Image.fromarray(pixels)
        image.thumbnail(PICTURE)
        found[frame] = data_uri("image/webp", webp(image))
    return found


def _phase_rows(
    clip: ClientClip, references: Sequence[ClientClip], say: Quantities, colours: Sequence[str]
) -> list[dict[str, object]]:
    """A row for each segment; of several repetitions one for each phase."""
    confidence = clip.confidence
    together = len(clip.passes) > 1
    if together:
        groups = [[s for s in clip.segments if s[0] == phase] for phase in sorted({s[0] for s in clip.segments})]
    else:
        groups = [[segment] for segment in clip.segments]
    rows: list[dict[str, object]] = []
    for group in groups:
        phase, lengths = group[0][0], [float(clip.edges[stop] - clip.edges[start]) for _, start, stop in group]
        theirs = [length for one in references if one.unit == clip.unit for length in one.lengths(phase)]
        sure = None if confidence is None else np.mean(np.concatenate([confidence[a:b] for _, a, b in group]))
        rows.append({
            "name": clip.name_of(phase),
            "colour": colours[phase],
            "when": f"{len(group)} ×" if together else say.span(*clip.edges[[group[0][1], group[0][2]]]),
            "lasts": say.spread(lengths),
            "beside": _beside(float(np.mean(lengths)), theirs, say),
            "confidence": "by hand" if sure is None else f"{sure:.2f}",
        })  # fmt: skip
    return rows


def _beside(length: float, theirs: Sequence[float], say: Quantities) -> str:
    """How much longer a phase lasts than in the references; empty without any."""
    if not theirs:
        return ""
    more = float(say.number(length - float(np.mean(theirs))))
    word = f"{say.length(abs(more))} {'longer' if more > 0 else 'shorter'} than" if more else "as long as"
    return f"{word} {say.spread(theirs)}"


def _repetitions(clip: ClientClip, say: Quantities, colours: Sequence[str]) -> dict[str, object]:
    lengths = clip.lengths_of_passes
    change = round(100 * (lengths[-1] / lengths[0] - 1))
    last = f"{abs(change)} % {'longer' if change > 0 else 'shorter'} than" if change else "as long as"
    return {
        "text": f"{len(lengths)} repetitions of {say.spread(lengths.tolist())}, from {say.number(lengths.min())} to "
        f"{say.length(lengths.max())}; the last is {last} the first. Each is compared on its own.",
        "chart": _repetition_chart(clip, say, colours),
    }


def _repetition_chart(clip: ClientClip, say: Quantities, colours: Sequence[str]) -> Chart:
    """Draws a bar for each repetition, as long as it lasts, of its phases."""
    lengths = clip.lengths_of_passes
    with paper_figure(WIDTH, 0.9) as figure:
        axes = figure.subplots()
        starts = clip.edges[[one.first for one in clip.passes]]
        axes.bar(range(1, len(lengths) + 1), lengths, color=ORDINARY, width=0.7)
        for phase, first, stop in clip.segments:
            i = int(np.searchsorted(starts, clip.edges[first], "right")) - 1
            begin, end = clip.edges[first] - starts[i], clip.edges[stop] - starts[i]
            axes.bar(i + 1, end - begin, bottom=begin, color=colours[phase], width=0.7)
        for i, length in enumerate(lengths if len(lengths) <= 12 else [], 1):
            axes.annotate(say.number(length), (i, length), (0, 1), textcoords="offset points", ha="center", fontsize=7)
        axes.set(xticks=range(1, len(lengths) + 1), ylabel=clip.unit)
        axes.margins(y=0.2)
    return chart(figure, f"Repetitions of {clip.record.name}")


def _curve(clip: ClientClip, colours: Sequence[str]) -> Chart:
    """Draws the distance to the references over time, in front of the band, above a ribbon of phases."""
    with paper_figure(WIDTH, 1.1) as figure:
        axes = figure.subplots()
        curves = np.concatenate([part for one in clip.deviations for part in (one.distance, one.band)])
        bottom, high = axis_bottom(curves), float(curves.max())
        step = (high - bottom) / 10 + 1e-9
        for one, found in zip(clip.passes, clip.deviations):
            times = clip.edges[one.first :][: len(found.distance)]
            axes.fill_between(times, bottom, found.band, color=ORDINARY, linewidth=0)
            beyond = found.distance >= found.band
            axes.fill_between(
                times, found.band, found.distance, where=beyond.tolist(), interpolate=True, color=OUTSIDE, linewidth=0
            )
            axes.plot(times, found.distance, color=LINE, linewidth=1)
            if one.first:
                axes.axvline(times[0], color="#7F7F7F", linewidth=0.6, linestyle=(0, (3, 2)))
        for phase, first, stop in clip.segments:
            axes.broken_barh([(clip.edges[first], clip.edges[stop] - clip.edges[first])], (bottom - 1.3 * step, step),
                             color=colours[phase], linewidth=0)  # fmt: skip
        axes.set(xlim=clip.edges[[0, -1]], ylim=(bottom - 1.4 * step, high + step), yticks=[], ylabel="distance")
        axes.set_xlabel("seconds" if clip.unit == "s" else "frames", labelpad=1)
    return chart(figure, f"Distance of {clip.record.name} to the references")


def _moments(clip: ClientClip, references: Sequence[ClientClip], say: Quantities) -> list[dict[str, object]]:
    """The moments with the largest excess, each with the clip's frame and the matched one of the closest reference."""
    places = [(one, part) for one in references for part in one.passes]
    chosen = clip.moments[:MOMENTS]
    own = _pictures(clip.record, [moment.peak for moment, _ in chosen])
    found: list[dict[str, object]] = []
    for moment, i in chosen:
        here = clip.passes[i]
        reference, part = places[clip.deviations[i].closest]
        frame = part.first + int(clip.deviations[i].matched[clip.deviations[i].closest, moment.peak - here.first])
        theirs = replace(say, unit=reference.unit).at(reference.edges[frame])
        found.append({
            "text": _outside(clip, moment, say),
            "pictures": [
                (own[moment.peak], f"here, {say.at(clip.edges[moment.peak])}"),
                (_pictures(reference.record, [frame])[frame], f"{reference.record.name}, {theirs}"),
            ],
        })  # fmt: skip
    return found
