from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

from mvf.data import video
from mvf.data.video import ImageFolder, VideoError, VideoFile, ascending_times, open_source, resampled_index

from .footage import SHARED, damage, number_of, picture, set_display_matrix, write_images, write_video


def _numbers(source, *span) -> list[int]:
    return [number_of(frame) for frame in source.frames(*span)]


def _count(path: Path) -> int:
    return VideoFile(path).count()


def test_frames_are_rgb_in_order_and_counted(tmp_path):
    source = VideoFile(write_video(tmp_path / "a.mp4", 12))
    frames = list(source.frames())
    assert source.count() == len(frames) == 12
    assert {(frame.shape, frame.dtype.name) for frame in frames} == {((48, 64, 3), "uint8")}
    assert [number_of(frame) for frame in frames] == list(range(12))


def test_colours_are_red_green_blue_in_both_kinds_of_source(tmp_path):
    red = np.zeros((48, 64, 3), np.uint8)
    red[..., 0] = 250
    with av.open(str(tmp_path / "red.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(red, format="rgb24")))
        container.mux(stream.encode())
    (tmp_path / "images").mkdir()
    cv2.imwrite(str(tmp_path / "images" / "1.png"), red[..., ::-1])
    for source in (VideoFile(tmp_path / "red.mp4"), ImageFolder(tmp_path / "images")):
        assert np.abs(next(source.frames()).astype(int) - red).mean() < 4


@pytest.mark.parametrize("span", [(0, None, 1), (3, 9, 2), (5,), (0, 4), (11, 12), (4, 4), (0, 100), (-3,)])
def test_spans_mean_what_slices_mean(tmp_path, span):
    expected = list(range(12))[slice(*span) if len(span) > 1 else slice(span[0], None)]
    assert _numbers(VideoFile(write_video(tmp_path / "a.mp4")), *span) == expected
    assert _numbers(ImageFolder(write_images(tmp_path / "images")), *span) == expected


def test_step_below_one_is_refused(tmp_path):
    with pytest.raises(ValueError, match="step must be at least 1, got 0"):
        next(VideoFile(write_video(tmp_path / "a.mp4")).frames(0, None, 0))


def test_frames_are_decoded_only_when_asked_for(tmp_path, monkeypatch):
    source = VideoFile(write_video(tmp_path / "a.mp4", 60))
    source.count()
    decoded, decode = [], video._decode
    monkeypatch.setattr(video, "_decode", lambda path: (decoded.append(0) or item for item in decode(path)))
    frames = source.frames(2)
    assert number_of(next(frames)) == 2 and len(decoded) == 3
    assert number_of(next(frames)) == 3 and len(decoded) == 4


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_rotation_flags_are_honoured(tmp_path, rotation):
    path = write_video(tmp_path / "a.mp4", 3, rotation=rotation)
    frame = next(VideoFile(path).frames())
    assert np.abs(frame.astype(int) - np.rot90(picture(0), rotation // 90)).mean() < 3
    assert np.abs(frame.astype(int) - cv2.VideoCapture(str(path)).read()[1][..., ::-1]).mean() < 3


@pytest.mark.parametrize("aspect, width", [(Fraction(4, 3), 85), (Fraction(1, 2), 32), (Fraction(1), 64)])
def test_pixels_become_square(tmp_path, aspect, width):
    path = write_video(tmp_path / "a.mp4", 3, aspect=aspect)
    assert next(VideoFile(path).frames()).shape == (48, width, 3)


def test_pixels_become_square_before_the_frame_is_turned(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3, aspect=Fraction(2), rotation=90)
    assert next(VideoFile(path).frames()).shape == (128, 48, 3)


def test_decoded_frames_are_trusted_not_the_header(tmp_path):
    path = write_video(tmp_path / "a.avi", 20, codec="mpeg4")
    data = path.read_bytes()
    for offset in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):  # the two frame counts of an AVI
        data = data[:offset] + (99).to_bytes(4, "little") + data[offset + 4 :]
    path.write_bytes(data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames == 99
    assert VideoFile(path).count() == len(list(VideoFile(path).frames())) == 20


# resampling -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fps", [5, 10, 12.5, 20, 29.97, 30, 47, 60, 120])
def test_resampling_takes_the_nearest_frame_in_time(fps):
    times = np.arange(50) / 30
    index = resampled_index(times, fps)
    wanted = np.arange(len(index)) / fps
    best = np.abs(times[None] - wanted[:, None]).min(axis=1)
    assert np.allclose(np.abs(times[index] - wanted), best, atol=2e-6)
    assert abs(len(index) - 50 / 30 * fps) < 1
    assert (np.diff(index) >= 0).all() and index[0] == 0


def test_resampling_follows_uneven_times():
    assert resampled_index(np.array([0, 0.1, 0.5, 0.6]) + 3, 10).tolist() == [0, 1, 1, 1, 2, 2, 3, 3]


def test_frames_are_resampled(tmp_path):
    path = write_video(tmp_path / "a.mp4", 12, fps=30)
    assert _numbers(VideoFile(path, 15)) == [0, 2, 4, 6, 8, 10]
    assert VideoFile(path, 60).count() == 24
    assert _numbers(VideoFile(path, 60), 1, 7) == [0, 1, 1, 2, 2, 3]
    assert _numbers(VideoFile(path, 30)) == list(range(12))
    uneven = write_video(tmp_path / "b.mkv", 4, fps=10, times=[0, 1, 5, 6])
    assert _numbers(VideoFile(uneven, 10)) == [0, 1, 1, 1, 2, 2, 3, 3]


def test_rate_must_be_a_rate(tmp_path):
    for fps in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="fps must be 0"):
            VideoFile(tmp_path / "a.mp4", fps)


# folders of images ----------------------------------------------------------------------------------------------------


def test_images_are_in_natural_order(tmp_path):
    source = ImageFolder(write_images(tmp_path / "images", 12))
    assert source.count() == 12
    assert _numbers(source) == list(range(12))


def test_images_without_a_number_and_hidden_ones_are_no_frames(tmp_path):
    folder = write_images(tmp_path / "images", 3)
    for name in ("cover.png", "._1.png"):
        cv2.imwrite(str(folder / name), picture(9))
    assert ImageFolder(folder).count() == 3


def test_a_damaged_image_is_named(tmp_path):
    folder = write_images(tmp_path / "images", 3)
    (folder / "1.png").write_bytes(b"no image")
    with pytest.raises(VideoError, match="1.png: not an image"):
        ImageFolder(folder).count()


def test_images_of_another_size_are_named(tmp_path):
    folder = write_images(tmp_path / "images", 3)
    cv2.imwrite(str(folder / "2.png"), picture(2, 32, 32))
    with pytest.raises(VideoError, match="2.png: it is 32x32, the images before it 64x48"):
        ImageFolder(folder).count()


def test_source_is_opened_by_what_it_is(tmp_path):
    assert isinstance(open_source(write_images(tmp_path / "images", 2)), ImageFolder)
    assert open_source(write_video(tmp_path / "a.mp4"), 15).fps == 15
    with pytest.raises(VideoError, match="no frame rate; use fps=0"):
        open_source(tmp_path / "images", 15)
    with pytest.raises(VideoError, match="b.mp4: it does not exist"):
        open_source(tmp_path / "b.mp4")


# damage ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix, codec", [("mp4", "libx264"), ("mp4", "mpeg4"), ("mkv", "libx264")])
def test_a_video_damaged_in_its_middle_is_damaged_as_a_whole(tmp_path, suffix, codec):
    path = damage(write_video(tmp_path / f"a.{suffix}", 60, codec=codec))
    with pytest.raises(VideoError, match=f"a.{suffix}.*damaged after"):
        VideoFile(path).count()


@pytest.mark.parametrize("suffix", ["mp4", "avi"])
def test_a_cut_off_file_is_damaged(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", 60, codec="mpeg4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(VideoError, match="damaged"):
        VideoFile(path).count()


def test_files_that_are_no_videos_say_why(tmp_path):
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(VideoError, match="empty.mp4: the file is empty"):
        VideoFile(tmp_path / "empty.mp4").count()
    (tmp_path / "text.mp4").write_text("not a video " * 100)
    with pytest.raises(VideoError, match="text.mp4.*Invalid data"):
        VideoFile(tmp_path / "text.mp4").count()
    with pytest.raises(VideoError, match="gone.mp4: No such file"):
        VideoFile(tmp_path / "gone.mp4").count()
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(VideoError, match="no video stream"):
        VideoFile(tmp_path / "sound.wav").count()


# counts are remembered ------------------------------------------------------------------------------------------------


def test_a_video_is_counted_once(tmp_path, monkeypatch):
    path = write_video(tmp_path / "a.mp4")
    assert VideoFile(path).count() == 12
    monkeypatch.setattr(video, "_decode", None)
    assert VideoFile(path).count() == 12
    assert VideoFile(path, 15).count() == 6


def test_a_changed_video_is_counted_again(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    before = VideoFile(path).count(), VideoFile(path).identity
    write_video(path, 20)
    assert (VideoFile(path).count(), before[0]) == (20, 12)
    assert VideoFile(path).identity != before[1]
    assert VideoFile(path, 15).identity != VideoFile(path).identity


def test_identity_of_a_folder_changes_with_its_images(tmp_path):
    folder = write_images(tmp_path / "images", 3)
    before = ImageFolder(folder).identity
    assert ImageFolder(folder).identity == before
    os.utime(folder / "1.png", (1, 1))
    assert ImageFolder(folder).identity != before


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY"])
def test_a_spoilt_cache_is_not_believed(tmp_path, monkeypatch, content):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    path = write_video(tmp_path / "a.mp4")
    VideoFile(path).count()
    (kept,) = (tmp_path / "cache" / "frame_counts").iterdir()
    kept.write_bytes(content)
    assert VideoFile(path).count() == 12


def test_a_cache_that_cannot_be_written_does_not_fail_reading(tmp_path, monkeypatch, caplog):
    path = write_video(tmp_path / "a.mp4")
    (tmp_path / "file").touch()
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "file" / "cache"))
    assert VideoFile(path).count() == 12
    assert caplog.text.count("cannot be cached") == 1


def test_processes_may_count_at_once(tmp_path):
    path = write_video(tmp_path / "a.mp4")
    with ProcessPoolExecutor(2) as pool:
        assert list(pool.map(_count, [path] * 6)) == [12] * 6


# real footage ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not (SHARED / "real").exists(), reason="needs the real footage beside the repository")
@pytest.mark.parametrize("pattern", ["pullups/*rep0[05].mp4", "clips/*.*", "multiview/*.mp4"])
def test_real_footage_decodes_as_by_another_reader(pattern):
    paths = sorted((SHARED / "real").glob(pattern))
    assert paths
    for path in paths:
        capture, count = cv2.VideoCapture(str(path)), 0
        while capture.grab():
            count += 1
        assert VideoFile(path).count() == count, path


@pytest.mark.skipif(not (SHARED / "real").exists(), reason="needs the real footage beside the repository")
def test_real_footage_gets_square_pixels():
    """340x256 with pixels 64:51 is 427x256."""
    assert next(VideoFile(SHARED / "real/clips/demo.mp4").frames()).shape == (256, 427, 3)


# seeking --------------------------------------------------------------------------------------------------------------


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
    monkeypatch.setattr(video, "FAR", 1)
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
            raise VideoError("no seeking here")
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


def test_a_header_that_is_no_utf_8_does_not_matter(tmp_path):
    path = write_video(tmp_path / "a.mp4", 3)
    data = path.read_bytes()
    assert data.count(b"Lavf") == 1  # the program that wrote the file, in its header
    path.write_bytes(data.replace(b"Lavf", b"caf\xe9"))
    assert [number_of(frame) for frame in VideoFile(path).frames()] == [0, 1, 2]


# orientation, times, cut files, several sequences -------------------------------------------------------------------


@pytest.mark.parametrize("matrix", [(1, 0, 0, 1), (-1, 0, 0, -1), (-1, 0, 0, 1), (1, 0, 0, -1)])
def test_display_matrices_that_keep_rows_are_applied(tmp_path, matrix):
    path = write_video(tmp_path / "a.mp4", 2)
    set_display_matrix(path, matrix)
    wanted = picture(0)[:: matrix[3], :: matrix[0]]
    assert np.abs(next(VideoFile(path).frames()).astype(int) - wanted).mean() < 3


@pytest.mark.parametrize("matrix", [(0, 1, 1, 0), (0, 1, -1, 0), (0, -1, 1, 0), (0, -1, -1, 0)])
def test_display_matrices_that_swap_rows_and_columns_are_applied(tmp_path, matrix):
    path = write_video(tmp_path / "a.mp4", 2)
    set_display_matrix(path, matrix)
    wanted = picture(0).swapaxes(0, 1)[:: matrix[1], :: matrix[2]]
    assert np.abs(next(VideoFile(path).frames()).astype(int) - wanted).mean() < 3


@pytest.mark.parametrize(
    "times, jumps, wanted",
    [
        ([0, 1, 2, 3], True, [0, 1, 2, 3]),
        ([1, 3, 2, 4], True, [1, 2, 3, 4]),
        ([0, 1, 1, 3], True, [0, 1, 1, 3]),
        ([*range(9), *range(9)], True, list(range(18))),
        ([0, 1, 2, 90, 91], False, [0, 1, 2, 3, 4]),
        ([0, 1, 2, 90, 91], True, [0, 1, 2, 90, 91]),
    ],
)
def test_times_ascend_in_decoding_order(times, jumps, wanted):
    assert ascending_times(np.array(times, float), jumps).tolist() == wanted


@pytest.mark.parametrize("times", [[3, 3, 3], [0, 5, 0, 5, 0, 5], [0, 2, 0, 2, 1]])
def test_times_without_an_order_are_refused(times):
    with pytest.raises(ValueError, match="out of order or all the same"):
        ascending_times(np.array(times, float))


@pytest.mark.parametrize("suffix, codec", [("mkv", "libx264"), ("webm", "libvpx"), ("flv", "libx264")])
def test_a_file_cut_between_packets_is_cut_off(tmp_path, suffix, codec):
    path = write_video(tmp_path / f"a.{suffix}", 90, fps=10, codec=codec)
    whole = path.read_bytes()
    assert VideoFile(path).count() == 90
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(VideoError, match="cut off|damaged"):
        VideoFile(path).count()


@pytest.mark.parametrize("names", [("{}.png", "{}.jpg"), ("rgb_{}.png", "depth_{}.png"), ("{}.png", "{} (1).png")])
def test_several_sequences_are_refused_or_chosen(tmp_path, names):
    for name in names:
        write_images(tmp_path, 3, name=name)
    with pytest.raises(VideoError, match="several sequences of images .3 of .*pattern"):
        ImageFolder(tmp_path).count()
    assert _numbers(ImageFolder(tmp_path, names[1].format("[0-9]"))) == [0, 1, 2]


def test_cameras_are_told_from_dates_and_decimals(tmp_path):
    for camera in (1, 2):
        write_images(tmp_path / "cameras", 3, name=f"cam{camera}_{{}}.png")
        write_images(tmp_path / "decimals", 3, name=f"{camera}.{{}}.png")
    with pytest.raises(VideoError, match="3 of cam1_#, 3 of cam2_#"):
        ImageFolder(tmp_path / "cameras").count()
    assert ImageFolder(tmp_path / "decimals").count() == 6


@pytest.mark.parametrize("at", [0.4, 0.5, 0.7])
def test_a_jpeg_damaged_in_its_middle_is_named(tmp_path, at):
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.jpg"), noise)
    data = bytearray((tmp_path / "1.jpg").read_bytes())
    start = int(at * len(data))
    data[start : start + len(data) // 5] = bytes(len(data) // 5)
    (tmp_path / "1.jpg").write_bytes(data)
    with pytest.raises(VideoError, match="1.jpg: damaged .Corrupt JPEG"):
        list(ImageFolder(tmp_path).frames())


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_with_something_after_their_end_are_read(tmp_path, suffix):
    write_images(tmp_path, 3, name="{}." + suffix)
    (tmp_path / f"1.{suffix}").write_bytes((tmp_path / f"1.{suffix}").read_bytes() + b"behind" * 20)
    assert _numbers(ImageFolder(tmp_path)) == [0, 1, 2]


@pytest.mark.parametrize("suffix", ["ts", "mkv", "mp4", "avi", "webm"])
def test_videos_with_something_after_their_end_are_read(tmp_path, suffix):
    path = write_video(tmp_path / f"a.{suffix}", 12, codec="libvpx" if suffix == "webm" else "mpeg4")
    path.write_bytes(path.read_bytes() + b"behind" * 20)
    assert VideoFile(path).count() == 12
