"""Sources of frames: video files (PyAV) and folders of numbered images (OpenCV), decoded in order."""

from __future__ import annotations

import hashlib
import logging
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property, partial
from itertools import chain
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

    Rotation flags and pixel aspect ratios are applied. The length is the number of frames that decode, not the
    header's; it needs one pass over the file, whose result is kept in `$MVF_CACHE`. A file counts as damaged if
    any frame fails to decode or is reported corrupt.

    Args:
        path: A file in any format that FFmpeg reads.
        fps: Resamples to this rate with the nearest source frame in time; 0 keeps the frames as they are.

    Raises:
        VideoError: from every method that reads; the message names the file and the reason.
    """

    def __init__(self, path: str | Path, fps: float = 0.0) -> None:
        if not (math.isfinite(fps) and fps >= 0):
            raise ValueError(f"fps must be 0 (as recorded) or a positive rate, got {fps}")
        self.path = Path(path).absolute()  # FFmpeg reads "name:rest" as a protocol
        self.fps = float(fps)

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

    @cached_property
    def source_index(self) -> np.ndarray:
        """(count(),) source frame of each frame, which also indexes labels given per source frame."""
        if self.fps and not np.isfinite(self._times).all():
            raise VideoError(f"cannot resample {self.path}: its frames carry no time stamps; use fps=0")
        return resampled_index(self._times, self.fps)

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
        found = numbered(self._decoded, partial(_decode, self.path), self._times, wanted[0]) if len(wanted) else ()
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
        return remembered(self._source_identity, lambda: np.array([item[2] for item in self._decoded()], dtype=float))

    @property
    def _source_identity(self) -> str:
        return file_identity(self.path)

    def _decoded(self) -> Iterator[DecodedFrame]:
        return _decode(self.path)


class ImageFolder:
    """A folder of numbered images of equal size, in natural order (frame 2 before frame 10).

    Args:
        path: The folder.

    Raises:
        VideoError: from every method that reads; the message names the image and the reason.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).absolute()

    @cached_property
    def files(self) -> list[Path]:
        """The images, in order."""
        return image_files(self.path)

    @property
    def identity(self) -> str:
        digest = hashlib.sha256("\n".join(map(file_identity, self.files)).encode()).hexdigest()
        return f"{self.path}|{len(self.files)} images|{digest}"

    @property
    def content(self) -> str:
        """A mark of the images' bytes, which is the same for a copy of the folder."""
        return content_mark(self.files)

    @cached_property
    def num_source_frames(self) -> int:
        """Number of images, all of which decode."""
        return len(remembered(self.identity, lambda: np.arange(sum(1 for _ in self._read(self.files)), dtype=float)))

    @cached_property
    def source_index(self) -> np.ndarray:
        """(count(),) image of each frame; images are never resampled."""
        return np.arange(self.num_source_frames)

    def count(self) -> int:
        return self.num_source_frames

    def frames(self, start: int = 0, stop: int | None = None, step: int = 1) -> Iterator[np.ndarray]:
        return self._read(self.files[frame_slice(start, stop, step)])

    def frames_at(self, positions: Sequence[int]) -> Iterator[np.ndarray]:
        """Yields the images at these positions; no others are opened, so damaged ones among those do no harm."""
        return self._read(self.files[position] for position in positions)

    def _read(self, files: Iterable[Path]) -> Iterator[np.ndarray]:
        size = None
        for path in files:
            picture = read_image(path)
            size = size or picture.shape
            if picture.shape != size:
                (h, w, _), (height, width, _) = picture.shape, size
                raise VideoError(f"cannot use {path}: it is {w}x{h}, the images before it {width}x{height}")
            yield picture


def open_source(path: str | Path, fps: float = 0.0) -> VideoFile | ImageFolder:
    """Opens a video file or a folder of numbered images."""
    if not Path(path).exists():
        raise VideoError(f"cannot read {path}: it does not exist")
    if not Path(path).is_dir():
        return VideoFile(path, fps)
    if fps:
        raise VideoError(f"cannot resample {path}: a folder of images has no frame rate; use fps=0")
    return ImageFolder(path)


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
            for packet in container.demux(stream):
                if packet.is_corrupt:
                    raise VideoError(f"cannot read {path}: damaged or cut off after {number} frames")
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


def _upright(frame: av.VideoFrame, aspect: float, reformatter: VideoReformatter) -> np.ndarray:
    picture: np.ndarray = reformatter.reformat(frame, format="rgb24").to_ndarray()
    width = max(1, round(frame.width * aspect))
    if width != frame.width:
        picture = cv2.resize(picture, (width, frame.height), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rot90(picture, round(frame.rotation / 90)))


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
        logger.warning("frame counts cannot be cached, so videos will be read again next time: %s", error)
    return values


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

IMAGE_SUFFIXES = frozenset(".jpg .jpeg .png .bmp .webp .tif .tiff".split())

JPEG_START, JPEG_SCAN, JPEG_END = b"\xff\xd8", b"\xff\xda", b"\xff\xd9"  # markers


class VideoError(ValueError):
    """Raised for a video that cannot be read; the message names the file and the reason."""


def natural_key(name: str) -> list[tuple[int, int | str]]:
    """Returns a sort key that orders numbers in names by value.

    Example:
        >>> sorted(["10.png", "9.png"], key=natural_key)
        ['9.png', '10.png']
    """
    return [(0, int(part)) if part.isdecimal() else (1, part) for part in re.split(r"(\d+)", name) if part]


def image_files(folder: Path) -> list[Path]:
    """Lists the images in `folder` with a number in their name, in natural order."""
    found = [path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES and path.name[0] != "."]
    numbered = [path for path in found if any(map(str.isdecimal, path.stem))]
    return sorted(numbered, key=lambda path: natural_key(path.name))


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

    Raises:
        ValueError: if the range is empty.
        VideoError: from every method that reads, and if the file ends more than a second before `stop`.
    """

    def __init__(self, path: str | Path, start: float, stop: float) -> None:
        if not 0 <= start < stop < float("inf"):
            raise ValueError(f"an excerpt needs seconds 0 <= start < stop, got {start} and {stop}")
        super().__init__(path)
        self.start, self.stop = float(start), float(stop)

    @cached_property
    def times(self) -> np.ndarray:
        """(count(),) time of each frame in seconds after `start`."""
        return self._times - self.start

    @property
    def _source_identity(self) -> str:
        return f"{super()._source_identity}|{self.start!r} to {self.stop!r} s"

    def _decoded(self) -> Iterator[DecodedFrame]:
        last = 0.0
        for frame, aspect, last in self._from_before():
            if last >= self.stop - ROUNDING:
                return
            if last >= self.start - ROUNDING:
                yield frame, aspect, last
        if last < self.stop - SLACK:
            raise VideoError(f"cannot cut {self._range}: the video ends at {last:g} s, is it complete?")

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
