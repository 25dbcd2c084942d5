"""Scores per-frame embeddings from anywhere: `EMBEDDINGS.npz` or `EMBEDDINGS.csv`, and `LABELS.csv`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

import numpy as np

from mvf.config import Config, load_config, nearest
from mvf.data.labels import (
    ELAN,
    LARGEST,
    SegmentTable,
    Tables,
    composed,
    existing,
    parse_starts,
    read_csv,
    read_phase_file,
)  # fmt: skip
from mvf.embedding import EmbeddedVideo
from mvf.evaluation.protocol import NEEDS_MODEL, clocks_of, grouped
from mvf.evaluation.report import score_report
from mvf.files import read_npz

SPLITS = ("train", "val")
COLUMNS = ("name", "path", "split", "action", "phases", "phase_names", "frame", "phase", "boxes", "masks")
HELD_OUT = 5  # without a split column every fifth video by name is for validation


@dataclass
class VideoLabels:
    """The labels of one video.

    Attributes:
        name: Name of the video.
        split: `train` or `val`; empty when the file has no such column.
        action: Class of the whole video.
        starts: First frame of every phase.
        phases: Phase by frame number.
        segments: A table of segments, whose gaps have no phase. At most one of the three is given.
    """

    name: str
    split: str = ""
    action: str = "action"
    starts: list[int] | None = None
    phases: dict[int, int] | None = field(default=None, repr=False)
    segments: SegmentTable | None = field(default=None, repr=False)

    def expand(self, numbers: np.ndarray) -> np.ndarray | None:
        """(T,) phases of the frames with these ascending numbers.

        Raises:
            ValueError: if the labels do not fit the embeddings; the message names both lengths.
        """
        frames = f"{numbers[0]} to {numbers[-1]}"
        if self.starts is not None:
            if self.starts[-1] > numbers[-1]:
                raise ValueError(
                    f'video "{self.name}": the last phase starts at frame {self.starts[-1]}, but its embeddings have '
                    f"{len(numbers)} frames ({frames}): labels and embeddings must count the same frames"
                )
            return np.searchsorted(self.starts, numbers, side="right") - 1
        thinned = len(numbers) != numbers[-1] + 1  # embedded at another rate than the video's
        if self.segments is not None:
            ends = [row.end_frame for row in self.segments.rows_of(self.name)] if thinned else []
            return self.segments.phases_of(self.name, max([numbers[-1] + 1, *ends]))[numbers]
        if self.phases is None:
            return None
        each = self.phases.keys() >= set(numbers.tolist())
        if not (each and (thinned or len(self.phases) == len(numbers))):
            found = f" ({min(self.phases)} to {max(self.phases)})" if self.phases else ""
            raise ValueError(
                f'video "{self.name}" has {len(self.phases)} labelled frames{found}'
                f" and {len(numbers)} embeddings ({frames}): there must be one label per embedding "
                "(-1 for a frame without a phase)"
            )
        return np.array([self.phases[frame] for frame in numbers.tolist()])


def score_embeddings(embeddings: str | Path, labels: str | Path, config: Config | None = None) -> dict:
    """Computes the four tasks, label fractions, alignment error, clocks and verdicts for anyone's embeddings.

    Args:
        embeddings: `.npz` or `.csv`, see `read_embeddings`.
        labels: `.csv`, see `read_labels`.
        config: `stride`, `probe` and `judge` are read, and for the clocks `num_frames`, `fusion_width` and `chunk`;
            None: the paper's Penn Action row.

    Returns:
        A report in the schema of `metrics.json`, without the parts that need a model.

    Raises:
        ValueError: when files cannot be read or do not fit each other.
    """
    config = config or load_config("penn")
    arrays, numbers = _read_arrays(Path(embeddings))
    train, val, protocol = grouped(*match(arrays, read_labels(labels), numbers), config)
    report = score_report(train, val, protocol, clocks_of(config, None))
    reason = "only embeddings were given: this needs the model and its videos"
    report["skipped"] |= dict.fromkeys(NEEDS_MODEL, reason)
    found = {"dataset": Path(labels).name, "preset": Path(embeddings).name, "seed": 0, "stride": config.stride}
    return found | dict.fromkeys(("backbone", "backbone_weights", "objective", "supervision"), "unknown") | report


def read_embeddings(path: str | Path) -> dict[str, np.ndarray]:
    """(T, E) float32 embeddings by video name, from an `.npz` with one array per video, or a `.csv`.

    The `.csv` is like that of `mvf embed`: columns `name`, `frame`, and one for every channel, and a row per frame.

    Raises:
        ValueError: when the file is neither; pickled objects are refused, never run.
    """
    return _read_arrays(Path(path))[0]


def _read_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Embeddings by video name, and the number of each frame in its file where a `.csv` names it."""
    numbers: dict[str, np.ndarray] = {}
    is_csv = path.suffix.lower() == ".csv"
    try:
        if is_csv:
            arrays, numbers = _read_rows(path)
        else:
            arrays = read_npz(path)
    except FileNotFoundError:
        raise ValueError(f"{path} does not exist: give an .npz with one (frames, width) array per video") from None
    except Exception as error:  # zipfile, numpy and zlib each raise their own
        kind = ".csv of embeddings" if is_csv else ".npz of plain arrays (numpy.savez, no objects)"
        raise ValueError(f"{path} is not a readable {kind}: {error}") from None
    for name, array in arrays.items():
        _check_embeddings(path, name, array)
    if not arrays:
        raise ValueError(f"{path} holds no arrays: give one (frames, width) array per video")
    if len({array.shape[1] for array in arrays.values()}) > 1:
        widths = {name: array.shape[1] for name, array in arrays.items()}
        raise ValueError(f"{path}: all videos must have embeddings of one width, got {widths}")
    found = {name: arrays.pop(name).astype(np.float32, copy=False) for name in list(arrays)}  # never two copies of all
    return found, numbers


def _read_rows(path: Path) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Reads a row per frame: name, frame, and the channels."""
    table = read_csv(path)
    if table.columns[:2] != ["name", "frame"] or len(table.columns) < 3:
        found = ", ".join(table.columns[:5]) or "nothing"
        raise ValueError(f"its columns must be name, frame, and one for every channel, found {found}")
    channels = table.columns[2:]
    vectors: dict[str, list[np.ndarray]] = {}
    numbers: dict[str, list[int]] = {}
    for line, row in table.rows():
        try:
            vector, frame = np.array([row[channel] for channel in channels], np.float32), int(row["frame"])
        except KeyError as error:
            raise ValueError(f"line {line} has no column {error.args[0]}") from None
        except ValueError as error:
            raise ValueError(f"line {line}: {error}") from None
        name = row["name"]
        if frame < (numbers[name][-1] if name in numbers else 0):
            raise ValueError(f'line {line}: frame {frame} of video "{name}" is out of order')
        vectors.setdefault(name, []).append(vector)
        numbers.setdefault(name, []).append(frame)
    return {name: np.stack(rows) for name, rows in vectors.items()}, {k: np.array(v) for k, v in numbers.items()}


def read_labels(path: str | Path) -> list[VideoLabels]:
    """Labels by video, from a `.csv` in one of two forms.

    One row per video: `name` (or `path`, as in `videos.csv`), `split`, `action`, `phases`, where `phases` is either the
    first frames of all phases (`0;34;58`) or a `.csv`/`.npy` beside the file with one integer per frame. One row per
    frame: `name`, `frame`, `phase`, and `split`, `action`. `split` and `action` may be absent.

    Raises:
        ValueError: for missing columns or invalid values; the message names the row.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"{path} does not exist: give a .csv with the columns name, split, action, phases")
    table = read_csv(path)
    columns = table.columns
    key = "name" if "name" in columns else "path"
    wanted = {key, "frame", "phase"} if "frame" in columns else {key, "phases"}
    if missing := wanted.difference(columns):
        raise ValueError(
            f"{path} needs the columns name (or path) and phases, or name, frame and phase; "
            f"missing: {', '.join(sorted(missing))}; found: {', '.join(columns) or 'nothing'}"
        )
    table.check_columns(COLUMNS)
    videos: dict[str, VideoLabels] = {}
    tables: Tables = {}
    for number, row in table.rows():
        try:
            _read_row({name: row.get(name, "") for name in columns}, row.get(key, ""), videos, path.parent, tables)
        except (ValueError, TypeError, OSError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
    return list(videos.values())


def match(
    embeddings: Mapping[str, np.ndarray], labels: list[VideoLabels], numbers: Mapping[str, np.ndarray] | None = None
) -> tuple[list[EmbeddedVideo], list[EmbeddedVideo]]:
    """Training and validation videos, in the order of the label file.

    Args:
        embeddings: (T, E) by video name.
        labels: Those of the same videos.
        numbers: (T,) number in its file of every embedded frame, by video name, where it is not 0 to T - 1.

    Raises:
        ValueError: when names or lengths differ between the two files, or a split is empty.
    """
    labels = _without_suffixes(labels, embeddings)
    known = [video.name for video in labels]
    for kind, name, others in (
        *(("embeddings", name, embeddings) for name in known if name not in embeddings),
        *(("labels", name, known) for name in embeddings if name not in known),
    ):
        raise ValueError(f'no {kind} for video "{name}"; {nearest(name, others)}')
    held_out = set(sorted(known)[HELD_OUT - 1 :: HELD_OUT])
    splits: dict[str, list[EmbeddedVideo]] = {split: [] for split in SPLITS}
    for video in labels:
        array = embeddings[video.name]
        split = video.split or SPLITS[video.name in held_out]
        frames = (numbers or {}).get(video.name, np.arange(len(array)))
        splits[split].append(EmbeddedVideo(video.name, video.action, array, video.expand(frames), numbers=frames))
    for split, videos in splits.items():
        if not videos:
            raise ValueError(f'no video has the split "{split}": probes are fitted on train and scored on val')
    return splits["train"], splits["val"]


def _without_suffixes(labels: list[VideoLabels], embeddings: Mapping[str, np.ndarray]) -> list[VideoLabels]:
    """Names labels as the embeddings are: accents in another form, and suffixes dropped where that is unique."""
    spelt = {composed(name): name for name in embeddings}
    labels = [replace(video, name=spelt.get(composed(video.name), video.name)) for video in labels]
    short = {video.name: str(PurePath(video.name).with_suffix("")) for video in labels if PurePath(video.name).suffix}
    times = Counter(composed(short.get(video.name, video.name)) for video in labels)
    usable = {
        name: spelt[composed(to)]
        for name, to in short.items()
        if name not in embeddings and composed(to) in spelt and times[composed(to)] == 1
    }
    return [replace(video, name=usable.get(video.name, video.name)) for video in labels]


def _check_embeddings(path: Path, name: str, array: np.ndarray) -> None:
    if array.ndim != 2 or not len(array) or not np.issubdtype(array.dtype, np.number):
        raise ValueError(f'{path}, "{name}": wanted numbers of shape (frames, width), got {array.dtype} {array.shape}')
    if not np.isfinite(array).all():
        raise ValueError(f'{path}, "{name}": {int((~np.isfinite(array)).sum())} values are not finite')


def _read_row(row: Mapping[str, str], name: str, videos: dict[str, VideoLabels], folder: Path, tables: Tables) -> None:
    split, action = row.get("split", ""), row.get("action") or "action"
    if split and split not in SPLITS:
        raise ValueError(f'unknown split "{split}"; {nearest(split, SPLITS)}')
    video = videos.get(name)
    if "frame" not in row:
        if video is not None:
            raise ValueError(f'video "{name}" is listed twice')
        videos[name] = video = VideoLabels(name, split, action)
        _read_phases(video, row["phases"], folder, tables)
        return
    phases = {} if video is None or video.phases is None else video.phases
    if video is None:
        video = videos[name] = VideoLabels(name, split, action, phases=phases)
    frame, phase = _whole(row, "frame"), _checked_phase(_whole(row, "phase"))
    if (video.split, video.action) != (split, action):
        raise ValueError(f'video "{name}" has split and action {split, action}, earlier {video.split, video.action}')
    if frame in phases:
        raise ValueError(f'frame {frame} of video "{name}" is listed twice')
    phases[frame] = phase


def _read_phases(video: VideoLabels, text: str, folder: Path, tables: Tables) -> None:
    if not text:
        return
    path = folder / existing(folder, text)
    if ELAN.search(text):
        raise ValueError(f"{video.name}: {text} gives seconds, and embeddings have none; write its segments as a table")
    if not text.lower().endswith((".csv", ".npy")):
        video.starts = parse_starts(video.name, text)
        return
    found = read_phase_file(video.name, path, tables=tables)
    if isinstance(found, SegmentTable):
        video.segments = found
    else:
        video.phases = dict(enumerate(found.tolist()))


def _whole(row: Mapping[str, str], column: str) -> int:
    try:
        return int(row[column])
    except ValueError:
        raise ValueError(f'{column} must be a whole number, got "{row[column]}"') from None


def _checked_phase(phase: int) -> int:
    if not -1 <= phase < LARGEST:
        raise ValueError(f"a phase must be 0 or more, or -1 for none, got {phase}")
    return phase
