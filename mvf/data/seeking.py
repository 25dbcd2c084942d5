"""Reading a video file from a frame far inside it, without decoding all that lies before."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import av
import numpy as np

from mvf.data.images import VideoError

FAR = 300  # frames: what lies nearer is decoded from the start, about as fast as seeking
RUN_UP = 1.0  # seconds before the frame to seek to: seeks land late where frames are reordered

# a frame, the width of its pixels over their height, and when it is shown: seconds from the start of its file or NaN
DecodedFrame = tuple[av.VideoFrame, float, float]


def numbered(
    decode: Callable[[], Iterator[DecodedFrame]],
    decode_from: Callable[[float], Iterator[DecodedFrame]],
    times: np.ndarray,
    first: int,
) -> Iterator[tuple[int, DecodedFrame]]:
    """Decoded frames with their numbers, in order and without gaps, beginning at frame `first` or before it.

    A frame found by seeking is known by its time, and from a key frame on only, where decoding is exact. Where the
    file cannot be sought in, or what is found is not what counting found, all is decoded from the start.

    Args:
        decode: All frames from the start.
        decode_from: Frames from about so many seconds on.
        times: (N,) of all frames, in seconds; NaN where there are none.
        first: Frame that is wanted first.
    """
    done = -1
    if first >= FAR and np.isfinite(times).all() and (np.diff(times) > 0).all():
        try:
            for number, item in _sought(decode_from(times[first] - RUN_UP), times):
                if number > first and done < 0 or 0 <= done != number - 1:
                    break  # landed behind the frame, or frames are missing
                yield number, item
                done = number
            else:
                if done == len(times) - 1:
                    return
        except VideoError:  # decoding from the start says what is wrong, if anything is
            pass
    for number, item in enumerate(decode()):
        if number > done:
            yield number, item


def _sought(frames: Iterator[DecodedFrame], times: np.ndarray) -> Iterator[tuple[int, DecodedFrame]]:
    """Frames from the first key frame on, as long as their times are those of known frames."""
    exact = False
    for item in frames:
        exact = exact or bool(item[0].key_frame)
        if exact:
            number = int(np.searchsorted(times, item[2]))
            if number == len(times) or times[number] != item[2]:
                return
            yield number, item
