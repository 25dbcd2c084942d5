"""Sources of frames: video files (PyAV) and folders of numbered images (OpenCV), decoded in order."""

from __future__ import annotations

import hashlib
import logging
import math
import os
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from fnmatch import fnmatchcase
from functools import cached_property, lru_cache, partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from av.video.reformatter import VideoReformatter

from mvf.data.records import frame_slice
from mvf.files import atomic, cache_folder, read_npy, save_array

logger = logging.getLogger(__name__)

# Text in a file's header need not be UTF-8. PyAV 19 has no such argument and keeps the bytes.
UNDECODABLE: dict[str, Any] = {"metadata_errors": "ignore"} if int(av.__version__.split(".")[0]) < 19 else {}
END_BYTES = 2**16  # at each end of a file that are read to tell whether it is another one
VIDEO_SUFFIXES = frozenset(".mp4 .m4v .mov .avi .mkv .webm .mpg .mpeg .wmv .flv .mts .m2ts .3gp .ogv".split())


class VideoFile:
    """The frames of one video file, upright and with square pixels.

    Display matrices and pixel aspect ratios are applied. The length is the number of frames that decode, not the
    header's; it needs one pass over the file, whose result is kept in `$MVF_CACHE`. A file counts as damaged if
    any frame fails to decode or is reported corrupt, and as cut off if it ends before its header says.

    Args:
        path: A file in any format that FFmpeg reads.
        fps: Resamples to this rate with the nearest source frame in time; 0 keeps the frames as they are.
        damage: What is known to be wrong with the file, whose frames before that are used; empty refuses damage.

    Raises:
        VideoError: from every method that reads; the message names the file and the reason.
    """

    def __init__(self, path: str | Path, fps: float = 0.0, damage: str = "") -> None:
        if not (math.isfinite(fps) and fps >= 0):
            raise ValueError(f"fps must be 0 (as recorded) or a positive rate, got {fps}")
        self.path = Path(path).absolute()  # FFmpeg reads "name:rest" as a protocol
        self.fps, self.damage = float(fps), damage

    @property
    def identity(self) -> str:
        return f"{self._source_identity}|{self.fps:g}"

    @property
    def content(self) -> str:
        """A mark of the file's bytes, which is the same for a copy of it."""
        return content_mark([self.path])

    @cached_property
    def num_source_frames(self) -> int:
        """Number of frames in the file, before resampling."""
        return len(self._times)

    @property
    def times(self) -> np.ndarray:
        """(num_source_frames,) seconds at which each frame of the file is shown, NaN where it has no time stamps."""
        return self._times

    @cached_property
    def source_index(self) -> np.ndarray:
        """(count(),) source frame of each frame, which also indexes labels given per source frame."""
        if self.fps and not np.isfinite(self._times).all():
            raise VideoError(f"cannot resample {self.path}: its frames carry no time stamps; use fps=0")
        if not self.fps:
            return np.arange(len(self._times))
        try:
            return resampled_index(ascending_times(self._times, jumps=not self._may_jump), self.fps)
        except ValueError as error:
            raise VideoError(f"cannot resample {self.path}: {error}; use fps=0") from None

    def count(self) -> int:
        return len(self.source_index)

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        yield from self._read(self.source_index[frame_slice(start, stop, step)])

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the frames at ascending positions; frames in between must be decoded but are not converted."""
        yield from self._read(self.source_index[list(positions)])

    def _read(self, wanted: np.ndarray) -> Iterator[np.ndarray]:
        """Yields frames by their ascending numbers in the file."""
        reformatter = VideoReformatter()  # reused: creating one costs more than a conversion
        position = 0
        first = wanted[0] if len(wanted) and not self.damage else 0  # nothing is sought in a damaged file
        found = numbered(self._decoded, partial(_decode, self.path), self._times, first) if len(wanted) else ()
        for number, (frame, aspect, _) in found:
            if number == wanted[position]:
                picture = _upright(frame, aspect, reformatter)
            while number == wanted[position]:
                yield picture
                position += 1
                if position == len(wanted):
                    return
        if position < len(wanted):
            raise VideoError(f"cannot read {self.path}: it became shorter while it was in use")

    @cached_property
    def _times(self) -> np.ndarray:
        """(num_source_frames,) presentation times in seconds, NaN where the file has none."""
        times = remembered(self._source_identity, lambda: np.array([item[2] for item in self._decoded()], dtype=float))
        if not self.damage:
            self._check_end(times)
        return times

    def _check_end(self, times: np.ndarray) -> None:
        reason = cut_off(self.path) or too_short(self.path, times)
        if reason:
            raise VideoError(f"cannot read {self.path}: cut off after {len(times)} frames, {reason}")

    @property
    def _may_jump(self) -> bool:
        return self.path.suffix.lower() in JUMPING_SUFFIXES

    @property
    def _source_identity(self) -> str:
        return file_identity(self.path) + ("|before its damage" if self.damage else "")

    def _decoded(self) -> Iterator[DecodedFrame]:
        try:
            yield from _decode(self.path)
        except VideoError:
            if not self.damage:
                raise


class ImageFolder:
    """A folder with one sequence of numbered images of equal size, in natural order (frame 2 before frame 10).

    Args:
        path: The folder.
        pattern: Selects the images by name, like `rgb_*.png`; empty for all.
        damage: What is known to be wrong with an image, which is used as it decodes, or else the images before it;
            empty refuses damage.

    Raises:
        VideoError: from every method that reads; the message names the image and the reason.
    """

    def __init__(self, path: str | Path, pattern: str = "", damage: str = "") -> None:
        self.path, self.pattern, self.damage = Path(path).absolute(), pattern, damage

    @cached_property
    def files(self) -> list[Path]:
        """The images, in order."""
        return image_sequence(self.path, self.pattern)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256("\n".join(map(file_identity, self.files)).encode()).hexdigest()
        return f"{self.path}|{len(self.files)} images|{digest}" + ("|before its damage" if self.damage else "")

    @property
    def content(self) -> str:
        """A mark of the images' bytes, which is the same for a copy of the folder."""
        return content_mark(self.files)

    @cached_property
    def num_source_frames(self) -> int:
        """Number of images, all of which decode without a warning."""
        return len(remembered(f"{self.identity}|strict", lambda: np.arange(self._count_strictly(), dtype=float)))

    def _count_strictly(self) -> int:
        count, size = 0, None
        try:
            for path in self.files:
                strict = path.suffix.lower() in JPEG_SUFFIXES and not self.damage
                shape = jpeg_shape(path) if strict else read_image(path).shape
                size = size or shape
                _check_size(path, shape, size)
                count += 1
        except VideoError:
            if not self.damage:
                raise
        return count

    @cached_property
    def source_index(self) -> np.ndarray:
        """(count(),) image of each frame; images are never resampled."""
        return np.arange(self.num_source_frames)

    def count(self) -> int:
        return self.num_source_frames

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        chosen = frame_slice(start, stop, step)
        yield from self._read(self.files[: self.num_source_frames][chosen])

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the images at these positions; no others are opened, so damaged ones among those do no harm."""
        return self._read(self.files[position] for position in positions)

    def _read(self, files: Iterable[Path]) -> Iterator[np.ndarray]:
        size = None
        for path in files:
            picture = read_image(path)
            size = size or picture.shape
            _check_size(path, picture.shape, size)
            yield picture


def _check_size(path: Path, shape: tuple[int, ...], before: tuple[int, ...]) -> None:
    if shape != before:
        sizes = f"{shape[1]}x{shape[0]}, the images before it {before[1]}x{before[0]}"
        raise VideoError(f"cannot use {path}: it is {sizes}")


def open_source(
    path: str | Path,
    fps: float = 0.0,
    pattern: str = "",
    use_damaged: bool = False,
    span: tuple[float, float] | None = None,
) -> VideoFile | ImageFolder:
    """Opens a video file or a folder of numbered images, of which `pattern` selects some by name.

    With `use_damaged` a damaged or cut file is opened as far as it decodes; its `damage` says what is wrong. With
    `span`, start and end in seconds, only that part of a file is opened.
    """
    if not Path(path).exists():
        raise VideoError(f"cannot read {path}: it does not exist")
    if fps and Path(path).is_dir():
        raise VideoError(f"cannot resample {path}: a folder of images has no frame rate; use fps=0")
    if span is not None:
        if Path(path).is_dir():
            raise VideoError(f"cannot cut {path}: a folder of images has no times; leave start and end empty")
        return Excerpt(path, *span, fps)

    def opened(damage: str = "") -> VideoFile | ImageFolder:
        return ImageFolder(path, pattern, damage) if Path(path).is_dir() else VideoFile(path, fps, damage)

    source = opened()
    if use_damaged:
        try:
            source.count()
        except VideoError as error:
            source = opened(str(error))
    return source


def resampled_index(times: np.ndarray, fps: float) -> np.ndarray:
    """Returns the nearest source frame in time for each frame of a resampled video; ties go to the earlier one.

    Args:
        times: (N,) presentation times of the source frames in seconds.
        fps: Frames per second of the result; 0 keeps all frames.

    Returns:
        (M,) non-decreasing integers in [0, N-1].

    Example:
        >>> resampled_index(np.arange(6) / 30, 15).tolist(), resampled_index(np.arange(3) / 30, 60).tolist()
        ([0, 2, 4], [0, 0, 1, 1, 2, 2])
    """
    if not fps or len(times) < 2:
        return np.arange(len(times))
    times = np.maximum.accumulate(times - times[0])
    duration = times[-1] * len(times) / (len(times) - 1)  # the last frame is shown for the mean interval
    tolerance = 1e-6  # rounding of times must not change the result
    wanted = np.arange(max(1, math.ceil((duration - tolerance) * fps))) / fps
    return np.searchsorted((times[:-1] + times[1:]) / 2, wanted - tolerance)


def ascending_times(times: np.ndarray, jumps: bool = True) -> np.ndarray:
    """Returns the times at which frames are shown, in decoding order, where those of the file do not ascend.

    Times that are only out of order, as in an AVI with B-frames, are sorted. Where they start again, as in joined
    recordings, the frame follows the one before it after the usual interval.

    Args:
        times: (N,) times of the file in seconds.
        jumps: Whether a leap of more than `LEAP` seconds is an interval; otherwise it becomes the usual one.

    Returns:
        (N,) non-decreasing seconds; `times` itself if nothing is wrong.

    Raises:
        ValueError: if the order of the frames cannot be told.

    Example:
        >>> ascending_times(np.array([1.0, 3, 2, 4])).tolist()
        [1.0, 2.0, 3.0, 4.0]
        >>> ascending_times(np.tile(np.arange(4.0), 2)).tolist()
        [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]
    """
    steps = np.diff(times)
    leaps = (steps > LEAP) & (not jumps)
    again = steps < 0
    if not (leaps | again).any() and (steps.any() or len(times) < 2):
        return times
    ordered = np.sort(times)
    between = np.diff(ordered)
    usual = np.median(between[between > 0]) if between.any() else 0
    if not leaps.any() and (between > usual / 2).all() and usual:
        return ordered
    if again.sum() > len(times) / 8 or not usual:
        raise ValueError("the times of its frames are out of order or all the same")
    return np.concatenate([times[:1], times[0] + np.cumsum(np.where(again | leaps, usual, steps))])


def _decode(path: Path, start: float = 0.0) -> Iterator[DecodedFrame]:
    """Decodes frames in presentation order from about `start` seconds; a seek may land before or after it."""
    number, size = 0, None
    try:
        if path.stat().st_size == 0:
            raise VideoError(f"cannot read {path}: the file is empty (0 bytes)")
        with av.open(str(path), **UNDECODABLE) as container:
            stream = container.streams.best("video")
            if not isinstance(stream, av.VideoStream):
                raise VideoError(f"cannot read {path}: it holds no video stream")
            aspect = float(stream.sample_aspect_ratio or 1)
            origin = (container.start_time or 0) / av.time_base
            if start > 0 and stream.time_base:
                container.seek(int((origin + start) / stream.time_base), stream=stream)
            packets = container.demux(stream)
            for packet in packets:
                if packet.is_corrupt:
                    raise VideoError(f"cannot read {path}: {_what_is_wrong(packet, packets)} after {number} frames")
                for frame in packet.decode():
                    size = size or (frame.height, frame.width)
                    if frame.is_corrupt:
                        raise VideoError(f"cannot read {path}: damaged after {number} frames")
                    if (frame.height, frame.width) != size:
                        raise VideoError(f"cannot use {path}: its frame size changes after {number} frames")
                    yield frame, aspect, math.nan if frame.time is None else frame.time - origin
                    number += 1
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or type(error).__name__
        raise VideoError(f"cannot read {path}: damaged after {number} frames, or not a video ({reason})") from error


def _what_is_wrong(packet: av.Packet, packets: Iterator[av.Packet]) -> str:
    """Tells parts that were joined, at whose seam packets count anew, from damage."""
    known = [p.dts * p.time_base for p in chain([packet], islice(packets, 16)) if p.dts is not None]
    if any(after < before or after - before > LEAP for before, after in zip(known, known[1:])):
        return "it is joined from parts whose times start again (join them with ffmpeg -f concat), which shows"
    return "damaged or cut off"


def _upright(frame: av.VideoFrame, aspect: float, reformatter: VideoReformatter) -> np.ndarray:
    picture: np.ndarray = reformatter.reformat(frame, format="rgb24").to_ndarray()
    width = max(1, round(frame.width * aspect))
    if width != frame.width:
        picture = cv2.resize(picture, (width, frame.height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(_oriented(picture, frame))


def _oriented(picture: np.ndarray, frame: av.VideoFrame) -> np.ndarray:
    """Applies the display matrix, which sends column x and row y to a x + c y and b x + d y."""
    side_data: Any = frame.side_data  # a mapping, of whose values PyAV's types know nothing
    matrix = side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return picture
    a, b, _, c, d, *_ = np.frombuffer(matrix, np.int32).tolist()
    if abs(b) + abs(c) > abs(a) + abs(d):
        picture, a, d = picture.swapaxes(0, 1), c, b
    return picture[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]


def file_identity(path: Path) -> str:
    try:
        found = path.stat()
    except OSError as error:
        raise VideoError(f"cannot read {path}: {error.strerror}") from error
    return f"{path}|{found.st_size}|{found.st_mtime_ns}"


def content_mark(files: Sequence[Path]) -> str:
    """Returns a mark of files' sizes and bytes, in order; of a large file only the bytes at both ends are read.

    Raises:
        VideoError: if a file cannot be read.
    """
    mark = hashlib.sha256()
    for path in files:
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                head = file.read(END_BYTES)
                file.seek(max(len(head), size - END_BYTES))
                tail = file.read()
        except OSError as error:
            raise VideoError(f"cannot read {path}: {error.strerror}") from error
        mark.update(b"|".join((str(size).encode(), head, tail)))
    return mark.hexdigest()[:16]


def remembered(identity: str, compute: Callable[[], np.ndarray]) -> np.ndarray:
    """Returns `compute()`, cached on disk under `identity`; a cache that cannot be used only costs time."""
    path = cache_folder() / "frame_counts" / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.npy"
    try:
        return read_npy(path)
    except (OSError, ValueError):
        values = compute()
    try:
        with atomic(path) as temporary:
            save_array(temporary, values)
    except OSError as error:
        _warn_of_cache(str(cache_folder()), str(error))
    return values


@lru_cache
def _warn_of_cache(folder: str, reason: str) -> None:
    """Warns once of a folder, because every file fails there alike."""
    logger.warning("%s: frame counts cannot be cached, so videos will be read again next time: %s", folder, reason)


# ----------------------------------------------------------------------------------------------------------------------
# Files that are cut off between two packets, which decoding does not notice.

LEAP = 10.0  # seconds: a longer interval between frames of a transport or program stream is a seam, as for ffmpeg
JUMPING_SUFFIXES = frozenset(".ts .mts .m2ts .mpg .mpeg .vob".split())
MATROSKA, SEGMENT = b"\x1a\x45\xdf\xa3", b"\x18\x53\x80\x67"
LAST_PAGE = 4  # flag of an Ogg page
MISSING = (1.0, 0.1)  # seconds, and share of the length, that may be missing: the last frame's duration is not known


def cut_off(path: Path) -> str:
    """Returns what is missing of a file by the size or the end mark in its container; empty if nothing is."""
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(4096)
        file.seek(max(0, size - 2**17))
        end = file.read()
    declared = 0
    if start.startswith(MATROSKA):
        declared = _segment_end(start)
    elif start[:4] == b"RIFF":
        declared = 8 + int.from_bytes(start[4:8], "little")
    elif start[:4] == b"OggS" and not _has_last_page(end):
        return "its last page is missing"
    elif start[:4] == b"GIF8" and b"\x3b" not in end[-1024:]:
        return "its end mark is missing"
    elif any(_ends_within_packet(start, end, size, *packet) for packet in ((188, 0), (192, 4))):
        return "its last packet is incomplete"
    return f"{declared - size} of {declared} bytes are missing" if declared > size else ""


def _ends_within_packet(start: bytes, end: bytes, size: int, length: int, sync: int) -> bool:
    """Whether a transport stream with packets of `length` bytes ends in a part of one, and not in something else."""
    starts = [start[sync + length * place : sync + length * place + 1] for place in range(3)]
    left = size % length
    return starts == [b"\x47"] * 3 and left > sync and end[-left + sync] == 0x47


def _segment_end(data: bytes) -> int:
    """Where the segment of a Matroska or WebM file ends by its header; 0 if that is not known."""
    at = data.find(SEGMENT)
    if at < 0 or at + 12 > len(data) or not data[at + 4]:
        return 0
    length = 9 - data[at + 4].bit_length()
    value = int.from_bytes(data[at + 4 : at + 4 + length], "big") & (1 << 7 * length) - 1
    return 0 if value == (1 << 7 * length) - 1 else at + 4 + length + value


def _has_last_page(data: bytes) -> bool:
    """Whether an Ogg file ends with a page that is marked as the last; also true if no page is in `data`."""
    pages = [match.start() for match in re.finditer(b"OggS\0", data)]
    return not pages or any(data[page + 5] & LAST_PAGE for page in pages if page + 5 < len(data))


def too_short(path: Path, times: np.ndarray) -> str:
    """Returns how much earlier an FLV ends than its header says; empty if it does not, or if sound goes on.

    Other containers have sizes or end marks, or their length is estimated from what is there.
    """
    if path.suffix.lower() != ".flv" or not len(times):
        return ""
    with av.open(str(path), **UNDECODABLE) as container:
        declared = (container.duration or 0) / av.time_base
        found = float(np.nanmax(times))
        if found >= declared - max(MISSING[0], MISSING[1] * declared):
            return ""
        ends = [float(packet.pts * packet.time_base) for packet in container.demux() if packet.pts is not None]
    found = max([found, *ends])
    missing = declared - found > max(MISSING[0], MISSING[1] * declared)
    return f"it ends at {found:g} s, its header says {declared:g} s" if missing else ""


# ----------------------------------------------------------------------------------------------------------------------
# Seeking to a frame far inside a video file.

FAR = 300  # frames: decoding from the start to a nearer frame is about as fast as seeking
RUN_UP = 1.0  # seconds: a seek aims this much before the frame, because it lands late if frames are reordered

# a frame, its pixel aspect ratio (width over height), and its time in seconds from the start of the file, or NaN
DecodedFrame = tuple[av.VideoFrame, float, float]


def numbered(
    decode: Callable[[], Iterator[DecodedFrame]],
    decode_from: Callable[[float], Iterator[DecodedFrame]],
    times: np.ndarray,
    first: int,
) -> Iterator[tuple[int, DecodedFrame]]:
    """Yields decoded frames with their numbers, without gaps, starting at or before frame `first`.

    After a seek, frames are identified by their times, starting at a key frame, from which decoding is exact. If
    seeking fails or finds other frames than counting did, the file is decoded from the start.

    Args:
        decode: Function that decodes all frames from the start.
        decode_from: Function that decodes frames from about the given second on.
        times: (N,) times of all frames in seconds, NaN where the file has none.
        first: The first frame that is needed.
    """
    done = -1
    if first >= FAR and np.isfinite(times).all() and (np.diff(times) > 0).all():
        try:
            for number, item in _sought(decode_from(times[first] - RUN_UP), times):
                if number > first and done < 0 or 0 <= done != number - 1:
                    break  # landed after the frame, or frames are missing
                yield number, item
                done = number
            else:
                if done == len(times) - 1:
                    return
        except VideoError:  # decoding from the start will raise the error, if there is one
            pass
    for number, item in enumerate(decode()):
        if number > done:
            yield number, item


def _sought(frames: Iterator[DecodedFrame], times: np.ndarray) -> Iterator[tuple[int, DecodedFrame]]:
    """Yields frames from the first key frame on, as long as their times match known frames."""
    exact = False
    for item in frames:
        exact = exact or bool(item[0].key_frame)
        if exact:
            number = int(np.searchsorted(times, item[2]))
            if number == len(times) or times[number] != item[2]:
                return
            yield number, item


# ----------------------------------------------------------------------------------------------------------------------
# Single images, and the error for unreadable videos.

JPEG_SUFFIXES = (".jpg", ".jpeg")
IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers


class VideoError(ValueError):
    """Raised for a video that cannot be read; the message names the file and the reason."""


def natural_key(name: str, number: str = r"\d+") -> list[tuple[int, float | str]]:
    """Returns a sort key that orders the numbers in names, given by a pattern, by value.

    Example:
        >>> sorted(["10.png", "9.png"], key=natural_key)
        ['9.png', '10.png']
    """
    parts = filter(None, re.split(f"({number})", name))
    return [
        (0, float(part) if "." in part else int(part)) if re.fullmatch(number, part) else (1, part) for part in parts
    ]


def image_files(folder: Path) -> list[Path]:
    """Lists the images in `folder` with a number in their name, in the order of the numbers (`frame_names`)."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    numbered = [path for path in found if any(map(str.isdecimal, path.stem))]
    names, number = frame_names([path.stem for path in numbered])
    keys = {path: (natural_key(name, number), path.name) for path, name in zip(numbered, names)}
    return sorted(numbered, key=keys.__getitem__)


DAY_FIRST = re.compile(r"(?<!\d)(\d{1,2})([-._])(\d{1,2})\2(\d{4})(?!\d)")  # or the month
SIGN = r"(?:(?<![^\W_])-)?"  # a minus that does not follow a letter or a digit


def frame_names(stems: Sequence[str]) -> tuple[list[str], str]:
    """Returns names of images with the year of dates in front, and the pattern of the numbers in them.

    Numbers are whole unless all names have one decimal and no two of these are equal (0.5 and 0.50, like 1.1 and 1.10,
    are the first and tenth of something). A minus is a sign if some names have one and others do not.

    Example:
        >>> frame_names(["31-01-2024", "01-02-2024"])[0]
        ['2024-01-31', '2024-02-01']
    """
    dates = [DAY_FIRST.search(stem) for stem in stems]
    if found := [date for date in dates if date]:
        order = (1, 3) if any(int(date[3]) > 12 for date in found) else (3, 1)
        if len(found) == len(stems):
            stems = [DAY_FIRST.sub("-".join((d[4], d[order[0]], d[order[1]])), d.string) for d in found]
    signed = [re.search(r"(?<![^\W_])-\d", stem) is not None for stem in stems]
    sign = SIGN if any(signed) and not all(signed) else ""
    decimals = [re.fullmatch(rf"\D*?({sign}\d+\.\d+)", stem) for stem in stems]
    values = {float(decimal[1]) for decimal in decimals if decimal}
    return list(stems), sign + (r"\d+\.\d+" if stems and len(values) == len(stems) else r"\d+")


def image_sequence(folder: Path, pattern: str = "") -> list[Path]:
    """Lists the numbered images of `folder`, in the order of the numbers, which must be one sequence.

    A sequence has one suffix and one text around its numbers. If two numbers of a name change, like those of
    `cam1_0001.png`, the frames of one prefix must not be those of another.

    Args:
        folder: The folder.
        pattern: Selects images by name, like `rgb_*.png`; empty for all.

    Raises:
        VideoError: if there are several sequences, or one number twice; the message names them.
    """
    files = [path for path in image_files(folder) if not pattern or fnmatchcase(path.name, pattern)]
    if not files and pattern:
        raise VideoError(f'cannot use {folder}: no numbered image there is named like pattern "{pattern}"')
    names, number = frame_names([path.stem for path in files])
    files = [files[i] for i in sorted(range(len(files)), key=lambda i: natural_key(names[i], number))]
    names.sort(key=lambda name: natural_key(name, number))
    kinds = Counter(re.sub(number, "#", name) + path.suffix.lower() for name, path in zip(names, files))
    if len(kinds) == 1:
        kinds = _prefixes(files, [re.findall(number, name) for name in names])
    if len(kinds) > 1:
        found = ", ".join(f"{count} of {kind}" for kind, count in kinds.most_common(5))
        more = f" and {len(kinds) - 5} more kinds" if len(kinds) > 5 else ""
        raise VideoError(
            f"cannot use {folder}: it has several sequences of images ({found}{more}); leave only one there, or choose "
            f'it with data_options {{"pattern": "..."}}'
        )
    return files


def _prefixes(files: Sequence[Path], texts: Sequence[Sequence[str]]) -> Counter[str]:
    """Counts the images of every sequence among names that differ in their numbers alone."""
    numbers = [[float(text) if "." in text else int(text) for text in found] for found in texts]
    for before, after, path in zip(numbers, numbers[1:], files[1:]):
        if before == after:
            raise VideoError(f"cannot use {path.parent}: two images there have the number of {path.name}")
    _check_dates(files)
    changing = [place for place, values in enumerate(zip(*numbers)) if len(set(values)) > 1]
    template = re.sub(r"\d+", "#", files[0].stem)
    if len(changing) != 2 or re.fullmatch(r"[^#]*#\.#", template):  # one number, a date, or a decimal
        return Counter({files[0].name: len(files)})
    first, second = changing
    frames: dict[float, set[float]] = {}
    for values in numbers:
        frames.setdefault(values[first], set()).add(values[second])
    groups = list(frames.values())
    apart = sum(map(len, groups)) == len(set().union(*groups))
    counts = Counter(_before(path, second) for path in files)
    return Counter({files[0].name: len(files)}) if apart else Counter({f"{k}#": n for k, n in counts.items()})


def _check_dates(files: Sequence[Path]) -> None:
    """Raises VideoError if the dates in names may have day or month first and the order depends on it."""
    dates = [match for path in files if (match := DAY_FIRST.search(path.stem))]
    firsts, seconds = ({int(date[place]) for date in dates} for place in (1, 3))
    if len(firsts) > 1 and len(seconds) > 1 and max(firsts | seconds) <= 12:
        raise VideoError(
            f"cannot use {files[0].parent}: dates like that of {files[0].name} may begin with the day or the month; "
            "name the images with the year first (2024-01-31)"
        )


def _before(path: Path, place: int) -> str:
    """The start of a name up to its number at `place`."""
    return path.name[: [match.start() for match in re.finditer(r"\d+", path.stem)][place]]


# Libjpeg only prints its warnings, and without a name. Another process keeps its standard error apart from ours.
JPEG_DECODER = """
import sys, cv2, numpy
for line in sys.stdin:
    picture = cv2.imdecode(numpy.fromfile(bytes.fromhex(line), numpy.uint8), cv2.IMREAD_COLOR)
    print("SHAPE", *(() if picture is None else picture.shape), file=sys.stderr, flush=True)
"""
JPEG_WARNING = re.compile(rb"(?:Corrupt JPEG|Premature end|Inconsistent progression|Invalid SOS)")
JPEG_PADDING = re.compile(rb"Corrupt JPEG data: \d extraneous bytes? before marker 0xd9")  # whole files of some cameras
of_thread = threading.local()


def jpeg_shape(path: Path) -> tuple[int, ...]:
    """Decodes a JPEG file in another process, one for every thread, and returns its (H, W, 3).

    Raises:
        VideoError: if it is not an image, is cut short, or libjpeg warns of it; the message names the file.
    """
    if not path.stat().st_size:
        raise VideoError(f"cannot read {path}: not an image, or damaged")
    if getattr(of_thread, "process", None) != os.getpid() or of_thread.decoder.poll() is not None:  # new, forked, ended
        command = [sys.executable, "-c", JPEG_DECODER]
        of_thread.decoder = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        of_thread.process = os.getpid()
    asked, answers = of_thread.decoder.stdin, of_thread.decoder.stderr
    asked.write(os.fsencode(path).hex().encode() + b"\n")
    asked.flush()
    warning = b""
    for line in answers:
        if line.startswith(b"SHAPE"):
            break
        if JPEG_WARNING.match(line) and not JPEG_PADDING.match(line):
            warning = warning or line.strip()
    else:
        raise VideoError(f"cannot read {path}: its decoder ended")
    if warning:
        raise VideoError(f"cannot read {path}: damaged ({warning.decode(errors='replace')})")
    shape = tuple(map(int, line.split()[1:]))
    if not shape:
        raise VideoError(f"cannot read {path}: not an image, or damaged")
    return shape


def read_image(path: Path, flag: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray:
    """Reads an image as uint8 (H, W, 3) RGB, or (H, W) for `cv2.IMREAD_GRAYSCALE`.

    Raises:
        VideoError: if the file is not an image or is cut short; the message names it.
    """
    try:
        picture = decode_image(path.read_bytes(), flag)
    except OSError as error:
        raise VideoError(f"cannot read {path}: {error.strerror}") from None
    if picture is None:
        raise VideoError(f"cannot read {path}: not an image, or damaged")
    return picture


def decode_image(data: bytes, flag: int = cv2.IMREAD_COLOR_RGB) -> np.ndarray | None:
    """Decodes the image in a file's bytes; returns None if there is none or it is incomplete."""
    cut = data.startswith(JPEG_START) and data.rfind(JPEG_END) < data.rfind(JPEG_SCAN)  # OpenCV fills up with grey
    return None if cut or not data else cv2.imdecode(np.frombuffer(data, np.uint8), flag)


# ----------------------------------------------------------------------------------------------------------------------
# Excerpts of longer video files.

SLACK = 1.0  # seconds: an excerpt may end this much after its file, because annotated times are rounded
ROUNDING = 1e-6  # seconds: a frame at `start` belongs to the excerpt despite rounding


class Excerpt(VideoFile):
    """The frames of a video file from `start` until before `stop`.

    Decoded frames are numbered from 0. Only the range is decoded, wherever it is in the file; damage elsewhere in the
    file does not matter.

    Args:
        path: A file in any format that FFmpeg reads.
        start: Seconds from the start of the file.
        stop: End, in seconds from the start of the file.
        fps: Resamples to this rate; 0 keeps the frames as they are.

    Raises:
        ValueError: if the range is empty.
        VideoError: from every method that reads, and if the file ends more than a second before `stop`.
    """

    def __init__(self, path: str | Path, start: float, stop: float, fps: float = 0.0) -> None:
        if not 0 <= start < stop < float("inf"):
            raise ValueError(f"an excerpt needs seconds 0 <= start < stop, got {start} and {stop}")
        super().__init__(path, fps)
        self.start, self.stop = float(start), float(stop)

    @property
    def times(self) -> np.ndarray:
        """(count(),) time of each frame in seconds after `start`."""
        return self._times - self.start

    @property
    def _source_identity(self) -> str:
        return f"{super()._source_identity}|{self.start!r} to {self.stop!r} s"

    def _decoded(self) -> Iterator[DecodedFrame]:
        last = before = -math.inf
        if self._may_jump and not self._ascends:
            raise VideoError(f"cannot cut {self._range}: its times start again or leap, so seconds are ambiguous")
        for frame, aspect, last in self._from_before():
            if last < before:
                raise VideoError(f"cannot cut {self._range}: the times of its frames are out of order at {last:g} s")
            before = last
            if last >= self.stop - ROUNDING:
                return
            if last >= self.start - ROUNDING:
                yield frame, aspect, last
        if last < self.stop - SLACK:
            raise VideoError(f"cannot cut {self._range}: the video ends at {max(last, 0.0):g} s, is it complete?")

    @property
    def _ascends(self) -> bool:
        """Whether the packets of the whole file, none of which is decoded, are in order and without leaps."""
        steps = np.diff(remembered(f"{super()._source_identity}|packets", partial(_packet_times, self.path)))
        return bool((steps >= 0).all() and (steps <= LEAP).all())

    def _check_end(self, times: np.ndarray) -> None:
        """Does nothing: an excerpt needs only its range."""

    def _from_before(self) -> Iterator[DecodedFrame]:
        """Decodes from somewhere before the range, or from the start of the file if seeking fails."""
        for begin in (self.start - RUN_UP, 0.0):
            frames = _decode(self.path, begin)
            first = next(frames, None)
            if first is None or begin > 0 and not first[2] <= self.start:
                continue
            if np.isnan(first[2]):
                raise VideoError(f"cannot cut {self._range}: its frames carry no time stamps")
            return chain([first], frames)
        return iter(())

    @property
    def _range(self) -> str:
        return f"{self.path} from {self.start:g} to {self.stop:g} s"


def _packet_times(path: Path) -> np.ndarray:
    """(packets,) decoding times in seconds of the video in a file; the packets are not decoded."""
    with av.open(str(path), **UNDECODABLE) as container:
        packets = container.demux(container.streams.best("video"))
        return np.array([float(packet.dts * packet.time_base) for packet in packets if packet.dts is not None])
