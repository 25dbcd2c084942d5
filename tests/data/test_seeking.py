"""Reading from a frame far inside a file gives the frames that decoding from the start gives."""

import av
import numpy as np
import pytest

from mvf.data import video
from mvf.data import video as seeking
from mvf.data.video import VideoFile
from tests.data.footage import write_video


def write_noise(path, count, codec, options):
    """Noise, which shows every error of decoding; frames depend on each other over key frames 48 apart."""
    generator = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        stream.codec_context.gop_size = 48
        base = generator.integers(0, 256, (32, 32, 3))
        for number in range(count):
            base = np.roll(base, 1, axis=number % 2)
            noisy = np.clip(base + generator.integers(-20, 20, base.shape), 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noisy, format="rgb24")))
        container.mux(stream.encode())
    return path


FILES = [
    ("mp4", "libx264", {"bf": "3"}),
    ("mkv", "libx264", {"bf": "3", "x264-params": "open-gop=1"}),
    ("ts", "libx264", {"x264-params": "open-gop=1"}),
    ("avi", "mpeg4", {}),
    ("mpg", "mpeg2video", {"bf": "2"}),
    ("webm", "libvpx", {}),
]


@pytest.mark.parametrize("suffix, codec, options", FILES, ids=[f"{s}-{c}" for s, c, _ in FILES])
def test_frames_are_the_same_to_the_bit_wherever_reading_begins(tmp_path, monkeypatch, suffix, codec, options):
    monkeypatch.setattr(seeking, "FAR", 1)
    source = VideoFile(write_noise(tmp_path / f"a.{suffix}", 200, codec, options))
    whole = list(VideoFile.frames(source))
    for first in (1, 47, 48, 49, 95, 97, 130, 191, len(whole) - 1):
        np.testing.assert_array_equal(list(source.frames(first)), whole[first:])
    np.testing.assert_array_equal(list(source.frames(100, 150, 7)), whole[100:150:7])
    np.testing.assert_array_equal(list(source.frames_at([97, 98, 130, 191])), [whole[i] for i in (97, 98, 130, 191)])


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("avi", "mpeg4"), ("mkv", "libx264")])
def test_what_lies_far_before_is_not_decoded(tmp_path, monkeypatch, suffix, codec):
    source = VideoFile(write_noise(tmp_path / f"a.{suffix}", 900, codec, {}))
    assert source.count() == 900
    decoded, decode = [], video._decode
    monkeypatch.setattr(video, "_decode", lambda *args: (decoded.append(0) or item for item in decode(*args)))
    assert len(list(source.frames(800, 820))) == 20
    assert len(decoded) < 20 + 48 + 2 * 25 + 5


def test_a_resampled_video_is_sought_in_too(tmp_path):
    path = write_noise(tmp_path / "a.mp4", 700, "libx264", {})
    whole = list(VideoFile(path, fps=20).frames())
    np.testing.assert_array_equal(list(VideoFile(path, fps=20).frames(500, 520)), whole[500:520])


def test_where_seeking_fails_all_is_decoded(tmp_path, monkeypatch):
    source = VideoFile(write_video(tmp_path / "a.mp4", 400, width=32, height=32))
    whole = list(source.frames())

    def fails(path, *start):
        if start:
            raise video.VideoError("no seeking here")
        return decode(path)

    def lands_late(path, *start):
        return decode(path, *(time + 2 for time in start))

    def leaves_one_out(path, *start):
        for index, item in enumerate(decode(path, *start)):
            if not (start and index == 45):
                yield item

    decode = video._decode
    for broken in (fails, lands_late, leaves_one_out):
        monkeypatch.setattr(video, "_decode", broken)
        np.testing.assert_array_equal(list(source.frames(310)), whole[310:])
