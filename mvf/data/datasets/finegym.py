"""FineGym99 and FineGym288: gymnastics events whose frames are labelled with elements.

An event is one exercise of one gymnast, a few seconds to two minutes of a competition video. The raw form cuts events
from the source videos at the published times; the prepared form has one file per event.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from mvf.config import nearest
from mvf.data.datasets.prepared import read_index
from mvf.data.index import IndexEntry, collect, dev_part, find_form
from mvf.data.records import VideoList, VideoRecord
from mvf.data.video import ROUNDING, VIDEO_SUFFIXES, Excerpt, VideoError, natural_key
from mvf.files import data_folder

SOURCE = "https://sdolivia.github.io/FineGym (annotations and URLs of the source videos)"
LAYOUT = """accepted layouts (the folder FineGym/ may also be given itself; any version in the file names will do):
  {root}/FineGym/
  raw:       finegym_annotation_info_v1.0.json, EDITION_train_element_v1.0.txt, EDITION_val_element.txt,
             videos/VIDEO_ID.mp4, ...  (or source_videos/; whole source videos)
  prepared:  EDITION_train_v1.0.pkl, EDITION_val.pkl (lists of id, name, video_file, seq_len, frame_label, event_label),
             the video files that they name, or these in videos/"""
LAYOUT_99 = LAYOUT.replace("EDITION", "gym99")
LAYOUT_288 = LAYOUT.replace("EDITION", "gym288") + "\n  optional:  additional_v1.0.pkl (unlabelled training events)"
STAGES = ("first", "last", "all")
EVENTS = {1: "vault", 2: "floor exercise", 3: "balance beam", 4: "uneven bars"}
EVENT = re.compile(r"(.+)_(E_\d+_\d+)")
ELEMENT = re.compile(r"(.+_E_\d+_\d+)_(A_\d+_\d+)\s+(\d{1,4})")

Elements = set[tuple[str, int]]  # segment id and class
Segments = list[tuple[float, float, int]]  # start and end in seconds of the event, and class


def find_events(
    edition: str, split: str, root: str | Path | None, form: str, stage: str, additional: bool = False
) -> VideoList:
    """Finds the events of one split of `edition`, gym99 or gym288; see `find_gym99` and `find_gym288`.

    Raises:
        ValueError: if data are missing or an annotation file is invalid.
    """
    if stage not in STAGES:
        raise ValueError(f'unknown stage "{stage}"; {nearest(stage, STAGES)}')
    form, folder = _find(edition, data_folder(root), form)
    part = "train" if split == "dev" else split
    extra = _newest(folder, "additional*.pkl") if additional and split == "train" else None
    if form == "prepared":
        index = _newest(folder, f"{edition}_{part}*.pkl") or folder / f"{edition}_{part}.pkl"
        entries = read_index(index, _describe)
        unlabelled = read_index(extra, _describe) if extra else []
    else:
        source = RawEvents.read(folder, stage)
        entries = source.labelled(_newest(folder, f"{edition}_{part}_element*.txt"), f"{edition}_{part}_element.txt")
        unlabelled = [source.unlabelled(video) for video in read_index(extra, _describe)] if extra else []
    return collect(dev_part(entries) if split == "dev" else [*entries, *unlabelled])


@dataclass(frozen=True)
class RawEvents:
    """Events as published: times of events and their segments, which are cut from the source videos.

    Attributes:
        times: Path of the JSON file with the times.
        videos: By video id and event id, `timestamps` of the event and of its `segments`.
        files: Source video by video id.
        stage: Which of a segment's time stamps is used.
    """

    times: Path
    videos: Mapping[str, Mapping[str, Any]]
    files: Mapping[str, Path]
    stage: str

    @classmethod
    def read(cls, folder: Path, stage: str) -> RawEvents:
        times = _newest(folder, "finegym_annotation_info*.json")
        places = [home / name for home in (folder, folder.parent) for name in ("videos", "source_videos")]
        found = [path for place in places if place.is_dir() for path in sorted(place.iterdir())]
        files = {path.stem: path for path in reversed(found) if path.suffix.lower() in VIDEO_SUFFIXES}
        if times is None or not files:
            looked = folder / "finegym_annotation_info*.json" if times is None else " and ".join(map(str, places))
            raise ValueError(f"raw FineGym needs its times and its source videos, but none were found in {looked}")
        try:
            videos = json.loads(times.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{times} is not JSON ({error}); download it again") from None
        if not isinstance(videos, dict):
            raise ValueError(f"{times} must map video ids to their events, found {type(videos).__name__}")
        return cls(times, videos, files, stage)

    def labelled(self, index: Path | None, name: str) -> list[IndexEntry]:
        """Returns the events whose elements `index` lists."""
        if index is None:
            return [IndexEntry.left_out(name, f"{name} does not exist beside {self.times}")]
        return [self._event(event, elements) for event, elements in _read_elements(index).items()]

    def unlabelled(self, video: IndexEntry) -> IndexEntry:
        """Returns an unlabelled event, cut from its source video if that exists, else from the listed file."""
        event = EVENT.fullmatch(video.name)
        return self._event(video.name, None) if event and event[1] in self.files else video

    def _event(self, name: str, elements: Elements | None) -> IndexEntry:
        video, _, span = name.rpartition("_E_")
        if video not in self.files:
            return IndexEntry.left_out(name, f"the source video {video}.mp4 does not exist")
        try:
            described = self.videos[video][f"E_{span}"]
            start, stop = _seconds(described["timestamps"], "all")
            segments = [
                (*_seconds(described["segments"][segment]["timestamps"], self.stage), label)
                for segment, label in sorted(elements or ())
            ]
            action = EVENTS.get(described.get("event"), f"event {described.get('event')}")
        except KeyError as error:
            return IndexEntry.left_out(name, f"{self.times} has no {error.args[0]} of {name}")
        except (TypeError, ValueError, IndexError, OverflowError) as error:
            return IndexEntry.left_out(name, f"{self.times} is damaged at {name}: {error}")
        if len({segment for segment, _ in elements or ()}) < len(elements or ()):
            return IndexEntry.left_out(
                name, f"an element of it is listed with several classes: {sorted(elements or ())}"
            )
        record = partial(_record, name, action, None if elements is None else segments)
        return IndexEntry(name, partial(_cut, self.files[video], start, stop), record)


def _find(edition: str, root: Path, form: str) -> tuple[str, Path]:
    """Finds the form on disk and the folder of its annotations."""
    homes = [root / "FineGym", root / "finegym", root]
    places = {
        "prepared": [home / f"{edition}_*.pkl" for home in homes],
        "raw": [home / below / f"{edition}_*_element*.txt" for home in homes for below in ("", "annotations")],
    }
    return find_form(form, places, root, LAYOUT.replace("EDITION", edition), SOURCE)


def _newest(folder: Path, pattern: str) -> Path | None:
    """Finds the file with the highest version in its name."""
    return max(folder.glob(pattern), key=lambda path: natural_key(path.name), default=None)


def _describe(entry: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    """Names the event's class; a number is kept, because prepared files do not say whether they count from 0."""
    event = entry.get("event_label", "gymnastics")
    try:
        return (event.replace("_", " ") if isinstance(event, str) else f"event {int(event)}"), ()
    except (TypeError, ValueError, RuntimeError):
        raise VideoError(f"its event_label must be one number or a word, found {event}") from None


def _read_elements(path: Path) -> dict[str, Elements]:
    """Reads the elements of every event, in the order of the file."""
    events: dict[str, Elements] = {}
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    for number, line in enumerate(lines, start=1):
        found = ELEMENT.fullmatch(line.strip())
        if found:
            events.setdefault(found[1], set()).add((found[2], int(found[3])))
        elif line.strip():
            wanted = "VIDEO_E_START_END_A_START_END CLASS"
            raise ValueError(f'{path}, line {number}: expected "{wanted}", found "{line.strip()}"')
    return events


def _seconds(timestamps: Sequence[Sequence[float]], stage: str) -> tuple[float, float]:
    """Returns the start and end of the first or last stage, or of all stages together."""
    spans = [(float(start), float(end)) for start, end in timestamps]
    return spans[-1 if stage == "last" else 0][0], spans[0 if stage == "first" else -1][1]


def _cut(path: Path, start: float, stop: float) -> Excerpt:
    try:
        return Excerpt(path, start, stop)
    except ValueError as error:
        raise VideoError(f"its time is wrong: {error}") from None


def _record(name: str, action: str, segments: Segments | None, source: Excerpt) -> VideoRecord:
    annotations = {} if segments is None else {"phases": partial(_phases, segments, source.times)}
    return VideoRecord(name, action, source, annotations)


def _phases(segments: Segments, times: np.ndarray) -> np.ndarray:
    """Returns the (T,) class of each frame's segment, the later one if two overlap; -1 outside all segments."""
    phases = np.full(len(times), -1)
    for start, end, label in sorted(segments):
        phases[(times >= start - ROUNDING) & (times < end - ROUNDING)] = label
    return phases


def find_gym99(
    split: str = "val", root: str | Path | None = None, *, form: str = "auto", stage: str = "all"
) -> VideoList:
    """Finds the events of FineGym99; `phases` are element classes, -1 outside all elements.

    Events that cannot be used are left out and listed in `.coverage`: the source video is missing or ends more than a
    second before the event, or the JSON file lacks the event or one of its elements.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of `train`.
        root: Its folder, or the parent of its folder; empty for `$MVF_DATA`, else `~/mvf_data`.
        form: `raw`, `prepared`, or `auto`, which is prepared if its files exist, else raw.
        stage: An element with several stages (a vault has three) has a time stamp for each. Its frames are those of
            the `first` stage, of the `last`, or of `all`, from the start of the first to the end of the last. Only
            for the raw form.

    Raises:
        ValueError: if data are missing or an annotation file is invalid.
    """
    return find_events("gym99", split, root, form, stage)


def find_gym288(
    split: str = "val",
    root: str | Path | None = None,
    *,
    form: str = "auto",
    stage: str = "all",
    additional: bool = True,
) -> VideoList:
    """Finds the events of FineGym288, like `find_gym99`.

    Args:
        split: `train`, `val`, or `dev`: a fixed fifth of the labelled events of `train`.
        root: As in `find_gym99`.
        form: As in `find_gym99`.
        stage: As in `find_gym99`.
        additional: Adds the unlabelled events of `additional_v1.0.pkl`, if it exists, to `train`. In the raw form they
            are cut from their source video, or else read from the listed file.

    Raises:
        ValueError: if data are missing or an annotation file is invalid.
    """
    return find_events("gym288", split, root, form, stage, additional)
