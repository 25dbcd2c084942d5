"""Opens the videos that an index lists, and reports those that cannot be used, with the reason."""

from __future__ import annotations

import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from mvf.config import nearest
from mvf.data.augment import derive_seed
from mvf.data.records import Coverage, FrameSource, VideoList, VideoRecord
from mvf.data.video import VideoError
from mvf.progress import tqdm

SHOWN = 10  # lines about omitted videos in a message at most; `Coverage.unreadable` has all of them
VARYING = re.compile(r"\S*/\S*|\S*\d\S*|\S+\.\w+")  # words of a reason that are paths, names of files or numbers

logger = logging.getLogger(__name__)


class _HasName(Protocol):
    @property
    def name(self) -> str: ...


Named = TypeVar("Named", bound=_HasName)


@dataclass(frozen=True)
class IndexEntry:
    """A video that an index lists, before it is known whether it can be used.

    Attributes:
        name: Name of the record.
        open: Returns the source of the frames, or raises `VideoError`.
        record: Makes the record from the source; raises `VideoError` if the video must be left out.
    """

    name: str
    open: Callable[[], FrameSource]
    record: Callable[[FrameSource], VideoRecord]

    @classmethod
    def left_out(cls, name: str, reason: str) -> IndexEntry:
        """Makes an entry for a listed video that cannot be used, with the reason."""

        def refuse() -> FrameSource:
            raise VideoError(reason)

        return cls(name, refuse, lambda source: VideoRecord(name, "", source))


def collect(entries: Sequence[IndexEntry]) -> VideoList:
    """Collects the records of all usable videos; the coverage lists the others, with the reason.

    Every video is decoded once, several in parallel; `$MVF_CACHE` keeps its number of frames. Of videos with the same
    name the first usable one is used.
    """
    records: dict[str, VideoRecord] = {}
    unreadable: dict[str, str] = {}
    damaged: dict[str, str] = {}
    times = Counter(video.name for video in entries)
    for video, source in zip(entries, _open_all(entries)):
        try:
            if video.name in records:
                raise VideoError(f"listed {times[video.name]} times; the first is used")
            if isinstance(source, VideoError):
                raise source
            records[video.name] = video.record(source)
            if damage := getattr(source, "damage", ""):
                damaged[video.name] = f"{source.count()} frames are used; {damage}"
        except VideoError as error:
            unreadable[video.name] = str(error)
    for line in reason_lines(unreadable):
        logger.warning("left out %s", line)
    for line in reason_lines(damaged):
        logger.warning("used although damaged: %s", line)
    fitted = [record for record in records.values() if record.note]
    if fitted:
        logger.info("%d videos have different numbers of labels and frames; the longer was resampled", len(fitted))
    return VideoList(records.values(), Coverage(len(records), len(entries), unreadable, damaged=damaged))


def readable(entries: Sequence[IndexEntry]) -> list[str]:
    """Returns the names of the entries whose videos can be read."""
    return [video.name for video, source in zip(entries, _open_all(entries)) if not isinstance(source, VideoError)]


def reason_lines(reasons: Mapping[str, str]) -> list[str]:
    """Returns a line for every omitted video; of many, one for each kind of reason, and the number of other kinds.

    Example:
        >>> reason_lines({"a": "it is absent"}), reason_lines(dict.fromkeys(map(str, range(99)), "damaged"))
        (['a: it is absent'], ['0: damaged (and 98 more like it)'])
    """
    kinds: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        alone = len(reasons) <= SHOWN or name.startswith("*")
        kind = name if alone else VARYING.sub("", reason)
        kinds.setdefault(kind, []).append(f"{name}: {reason}")
    shown = list(kinds.values())[:SHOWN]
    lines = [line[0] + (f" (and {len(line) - 1} more like it)" if line[1:] else "") for line in shown]
    rest = len(reasons) - sum(map(len, shown))
    return lines + ([f"{rest} more"] if rest else [])


def dev_part(train: Sequence[Named]) -> list[Named]:
    """Selects the fixed fifth of the training videos, at least one, for choosing settings.

    Args:
        train: All training videos of an index, or other objects with a `.name`. Unreadable videos are included, so that
            the selection does not depend on them.
    """
    shuffled = sorted(train, key=lambda video: derive_seed("dev", video.name))
    chosen = {video.name for video in shuffled[: max(1, len(train) // 5)]}
    return [video for video in train if video.name in chosen]


def find_form(
    form: str, places: Mapping[str, Sequence[Path]], root: Path, layout: str, source: str
) -> tuple[str, Path]:
    """Finds which form of a data set is on disk, and in which folder.

    Args:
        form: A key of `places`, or `auto`: the first that is found.
        places: For every form the paths that identify it, in the order in which they are tried; their last components
            may be patterns.
        root: The data folder, for the message.
        layout: The accepted layouts, with `{root}`.
        source: Where the data are published.

    Raises:
        ValueError: for an unknown form, or if nothing is found; the message lists the paths, layouts and source.
    """
    if form not in (*places, "auto"):
        raise ValueError(f'unknown form "{form}"; {nearest(form, [*places, "auto"])}')
    wanted = {name: paths for name, paths in places.items() if form in (name, "auto")}
    for name, paths in wanted.items():
        for path in paths:
            if any(path.parent.glob(path.name)):
                return name, path.parent
    looked = "\n".join(f"  {path}" for paths in wanted.values() for path in paths)
    problem = "holds none of the accepted layouts" if root.is_dir() else "is not a folder"
    raise ValueError(
        f"data_root {root} {problem}; looked for\n{looked}\n{layout.format(root=root)}\npublished: {source}"
    )


def _open_all(entries: Sequence[IndexEntry]) -> list[FrameSource | VideoError]:
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(tqdm(pool.map(_open, entries), "checking videos", len(entries), leave=False, delay=2))


def _open(video: IndexEntry) -> FrameSource | VideoError:
    try:
        source = video.open()
        if source.count() < 2:
            raise VideoError(f"{video.name} is too short: {source.count()} frames, at least 2 are needed")
        return source
    except VideoError as error:
        return error
    except OSError as error:
        return VideoError(f"cannot read {error.filename}: {error.strerror}")
