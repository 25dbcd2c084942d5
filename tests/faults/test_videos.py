"""Damaged and odd videos, made for real: left out by name beside good ones, an error where nothing good is left."""

from __future__ import annotations

import logging
import re
import subprocess
import sys
import wave
from dataclasses import replace
from pathlib import Path

import av
import cv2
import numpy as np
import pytest

import mvf
from mvf.data import find_videos
from mvf.data.video import VideoError, VideoFile
from mvf.workbench.notebook.session import embed_splits, report_on

from ..data.footage import picture, write_images, write_video

FRAMES = 16
PEAK = """
import resource, sys
from mvf.data.video import VideoFile
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
before = peak()
shapes = [frame.shape for frame in VideoFile(sys.argv[1]).frames()]
print(len(shapes), *shapes[0], peak() - before)
"""


# makers -------------------------------------------------------------------------------------------------------------


def _cut(share: float):
    """A file of which only the first `share` is there."""

    def make(path: Path) -> Path:
        data = write_video(path.with_suffix(".mp4"), FRAMES).read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        return path

    return make


def _cut_after_header(path: Path) -> Path:
    """An mp4 that begins with its index, as those of cameras and web sites do, and lacks its last third."""
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=30, options={"g": "4"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        rng = np.random.default_rng(0)
        for _ in range(FRAMES):
            noise = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(noise, format="rgb24")))
        container.mux(stream.encode())
    data = path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")
    path.write_bytes(data[: len(data) * 2 // 3])
    return path


def _empty(path: Path) -> Path:
    path.touch()
    return path


def _text(path: Path) -> Path:
    path.write_text("Dear diary, this is no video.\n" * 20)
    return path


def _audio(path: Path) -> Path:
    with wave.open(str(path.with_suffix(".wav")), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(bytes(16000))
    return path.with_suffix(".wav").rename(path)


def _without_frames(path: Path) -> Path:
    """A header that promises a video stream, and a duration of zero."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=30)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.start_encoding()
    return path


def _one_frame(path: Path) -> Path:
    return write_video(path, 1)


def _broken_picture(path: Path) -> Path:
    folder = write_images(path.with_suffix(""), FRAMES, name="{}.jpg")
    data = (folder / "9.jpg").read_bytes()
    (folder / "9.jpg").write_bytes(data[: len(data) // 2])
    return folder


def _picture_called_mp4(path: Path) -> Path:
    cv2.imwrite(str(path.with_suffix(".png")), picture(0))
    return path.with_suffix(".png").rename(path)


def _video_called_png(path: Path) -> Path:
    folder = write_images(path.with_suffix(""), 3)
    write_video(path, 3).rename(folder / "3.png")
    return folder


def _picture_of_another_size(path: Path) -> Path:
    folder = write_images(path.with_suffix(""), FRAMES)
    write_images(folder, 1, width=32)
    return folder


BAD = {
    "empty": (_empty, r"the file is empty \(0 bytes\)"),
    "text": (_text, "damaged after 0 frames, or not a video"),
    "audio": (_audio, "holds no video stream"),
    "frameless": (_without_frames, "holds no video stream|too short: 0 frames"),
    "single": (_one_frame, "too short: 1 frames, at least 2 are needed"),
    "picture": (_broken_picture, r"9\.jpg: not an image, or damaged"),
    "still": (_picture_called_mp4, "too short: 1 frames, at least 2 are needed"),
    "misnamed": (_video_called_png, r"3\.png: not an image, or damaged"),
    "sizes": (_picture_of_another_size, r"1\.png: it is 64x48, the images before it 32x48"),
    "faststart": (_cut_after_header, r"damaged(?: or cut off)? after \d+ frames"),
    **{f"cut{percent}": (_cut(percent / 100), "damaged after 0 frames, or not a video") for percent in (1, 50, 90)},
}


def _good(root: Path, count: int = 6) -> Path:
    for number in range(count):
        write_video(root / f"good{number}.mp4", FRAMES + number)
    return root


def _bad(root: Path) -> Path:
    for name, (make, _) in BAD.items():
        make(root / f"{name}.mp4")
    return root


def _table(root: Path) -> Path:
    """All videos of a folder for training, but the last two good ones."""
    names = sorted(path.name for path in root.iterdir() if path.suffix == ".mp4" or path.is_dir())
    val = [name for name in names if name.startswith("good")][-2:]
    rows = [f"{name},{'val' if name in val else 'train'},act,0;8" for name in names]
    (root / "videos.csv").write_text("\n".join(["path,split,action,phases", *rows]) + "\n")
    return root


@pytest.fixture
def folder(tiny):
    """`folder(root)`: tiny settings to train on the videos of a folder."""
    return lambda root, **more: tiny(dataset="folder", data_root=str(root), data_options={}, epochs=1, **more)


# promises -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_video_is_left_out_by_name_with_its_reason(tmp_path, caplog, name):
    make, reason = BAD[name]
    make(_good(tmp_path, 2) / f"{name}.mp4")
    with caplog.at_level(logging.WARNING):
        found = [find_videos("folder", split, tmp_path) for split in ("train", "val")]
    unreadable = {k: v for videos in found for k, v in videos.coverage.unreadable.items()}
    assert sorted(record.name for videos in found for record in videos) == ["good0", "good1"]
    assert list(unreadable) == [name]
    assert re.search(reason, unreadable[name])
    assert name in unreadable[name] and f"left out {name}: " in caplog.text


def test_the_good_videos_of_a_folder_train_and_the_report_names_the_others(tmp_path, folder):
    config = folder(_table(_bad(_good(tmp_path / "data"))), localization=False)
    run = mvf.train(config, tmp_path / "run")
    assert len(run.history) == 1 and np.isfinite(run.history[0]["loss"])
    report = report_on(run.model, config, embed_splits(run.model, config))
    assert set(report["coverage"]["train"]["unreadable"]) == set(BAD)
    assert report["coverage"]["train"]["found"] == 4 and report["coverage"]["train"]["expected"] == 4 + len(BAD)
    assert report["coverage"]["val"]["unreadable"] == {}


def test_a_folder_without_one_good_video_is_an_error_that_says_why(tmp_path, folder):
    (tmp_path / "data").mkdir()
    config = folder(_table(_bad(tmp_path / "data")))
    with pytest.raises(ValueError, match=rf"none of the {len(BAD)} folder train videos can be used:") as error:
        mvf.train(config, tmp_path / "run")
    lines = str(error.value).splitlines()[1:]
    assert all(any(line.startswith(f"  {name}: ") for name in BAD) for line in lines[:-1]) and len(lines) <= 11
    counted = sum(1 + int((re.search(r"\(and (\d+) more like it\)$", line) or [0, 0])[1]) for line in lines[:-1])
    last = re.fullmatch(r"  (\d+) more", lines[-1])
    assert counted + (int(last[1]) if last else 1) == len(BAD)
    assert not (tmp_path / "run" / "config.json").exists()


@pytest.mark.parametrize(
    "damage", ["shorter", pytest.param("cut", marks=pytest.mark.slow), pytest.param("gone", marks=pytest.mark.slow)]
)  # the others take the same way
def test_a_video_that_breaks_after_it_was_probed_ends_training_by_name(tmp_path, folder, damage):
    root = _good(tmp_path / "data")
    config = replace(folder(_table(root), features="online"), epochs=3)

    def break_one(row) -> None:
        path = root / "good1.mp4"
        if damage == "shorter":
            write_video(path, 3)
        else:
            path.unlink()
            (_cut(0.5)(path) if damage == "cut" else None)

    wanted = r"good1\.mp4: .*(damaged|became shorter)|No such file or directory: '.*good1\.mp4'"
    with pytest.raises((VideoError, OSError), match=wanted):
        mvf.train(config, tmp_path / "run", break_one)
    assert (tmp_path / "run" / "state.pt").exists()  # the epoch before is kept


def test_frames_that_a_header_promises_and_the_file_lacks_are_not_counted(tmp_path):
    path = write_video(tmp_path / "a.avi", FRAMES, codec="mpeg4")
    data = path.read_bytes()
    for offset in (data.index(b"avih") + 8 + 16, data.index(b"strh") + 8 + 32):
        data = data[:offset] + (10**9).to_bytes(4, "little") + data[offset + 4 :]
    path.write_bytes(data)
    write_video(tmp_path / "b.mp4", 2)
    (record,) = find_videos("folder", "train", tmp_path)
    assert record.num_frames == FRAMES == len(record.load())


@pytest.mark.slow  # decoding 8K on one core
def test_a_video_in_8k_is_decoded_one_frame_at_a_time(tmp_path):
    path, count = tmp_path / "8k.mjpeg", 16
    big = np.kron(picture(3, 60, 36), np.ones((120, 128, 1), np.uint8))
    path.write_bytes(cv2.imencode(".jpg", big)[1].tobytes() * count)
    done = subprocess.run([sys.executable, "-c", PEAK, str(path)], capture_output=True, text=True, check=True)
    frames, height, width, _, megabytes = map(int, done.stdout.split())
    assert (frames, height, width) == (count, 4320, 7680)
    assert megabytes < 800  # all frames together take 1,593


def test_a_header_that_claims_a_frame_too_large_for_any_memory_is_refused(tmp_path):
    path = write_video(tmp_path / "a.avi", 3, codec="mpeg4")
    data = path.read_bytes()
    for offset in (data.index(b"avih") + 8 + 32, data.index(b"strf") + 8 + 4):
        data = data[:offset] + (2**30).to_bytes(4, "little") * 2 + data[offset + 8 :]
    path.write_bytes(data)
    try:  # FFmpeg believes the frames rather than the header, or refuses
        assert next(VideoFile(path).frames()).shape == (48, 64, 3)
    except VideoError as error:
        assert "a.avi" in str(error)
