"""Containers and codecs as Debian's ffmpeg writes them, against what ffmpeg itself decodes from them."""

import shutil
import subprocess

import cv2
import numpy as np
import pytest

from mvf.data.video import VideoFile

WIDTH, HEIGHT, FRAMES, BIT = 96, 64, 41, 8
CORNERS = [
    (230, 30, 30),
    (30, 230, 30),
    (30, 30, 230),
    (230, 230, 230),
]  # upper left, upper right, lower left, lower right
FILES = {  # by the file's name, the encoder and its options
    "h264.mp4": "libx264 -pix_fmt yuv420p -bf 3",
    "h264.mkv": "libx264 -pix_fmt yuv420p -bf 2 -g 12",
    "h264.mov": "libx264 -pix_fmt yuv444p",
    "h264.flv": "libx264 -pix_fmt yuv420p",
    "h264.mts": "libx264 -pix_fmt yuv420p -bf 2 -f mpegts",
    "h264.3gp": "libx264 -pix_fmt yuv420p -profile:v baseline",
    "h264.avi": "libx264 -pix_fmt yuv420p -bf 2",
    "fragments.mp4": "libx264 -pix_fmt yuv420p -movflags frag_keyframe+empty_moov -g 10",
    "open.mp4": "libx264 -pix_fmt yuv420p -x264-params open-gop=1:keyint=12",
    "hevc.mp4": "libx265 -pix_fmt yuv420p -tag:v hvc1",
    "hevc10.mkv": "libx265 -pix_fmt yuv420p10le",
    "vp8.webm": "libvpx -b:v 2M",
    "vp9.webm": "libvpx-vp9 -b:v 2M",
    "vp9.mp4": "libvpx-vp9 -b:v 2M",
    "av1.mp4": "libaom-av1 -cpu-used 8 -b:v 2M",
    "av1.webm": "libaom-av1 -cpu-used 8 -b:v 2M",
    "mpeg4.avi": "mpeg4 -q:v 2 -bf 2",
    "mpeg4.m4v": "mpeg4 -q:v 2 -f mp4",
    "mpeg2.mpg": "mpeg2video -q:v 2 -bf 2",
    "mpeg2.mpeg": "mpeg2video -q:v 2",
    "mpeg2.m2ts": "mpeg2video -q:v 2 -f mpegts",
    "mpeg1.mpg": "mpeg1video -q:v 2",
    "wmv1.wmv": "wmv1 -q:v 2",
    "wmv2.wmv": "wmv2 -q:v 2",
    "flv1.flv": "flv -q:v 2",
    "theora.ogv": "libtheora -q:v 9",
    "prores.mov": "prores_ks",
    "dnxhd.mov": "dnxhd -profile:v dnxhr_hq -pix_fmt yuv422p -s 256x128",
    "mjpeg.avi": "mjpeg -q:v 2 -pix_fmt yuvj420p",
    "mjpeg.mov": "mjpeg -q:v 2 -pix_fmt yuvj420p",
    "ffv1.mkv": "ffv1",
    "huffyuv.avi": "huffyuv",
    "utvideo.mkv": "utvideo",
    "png.mov": "png",
    "qtrle.mov": "qtrle",
    "raw.avi": "rawvideo -pix_fmt bgr24",
    "h263.3gp": "h263 -q:v 2 -s 128x96 -aspect 4:3",
}
TURNS = {"turned90.mp4": 90, "turned180.mov": 180, "turned270.mp4": 270}


def painted(number):
    image = np.full((HEIGHT, WIDTH, 3), 110, np.uint8)
    for colour, rows, columns in zip(CORNERS, [0, 0, 1, 1], [0, 1, 0, 1]):
        image[rows * (HEIGHT - 16) :, columns * (WIDTH - 16) :][:16, :16] = colour
    for bit in range(10):
        image[24:40, 8 + BIT * bit : 8 + BIT * (bit + 1)] = 235 if number >> bit & 1 else 20
    return image


def number_in(frame):
    frame = cv2.resize(frame, (WIDTH, HEIGHT), interpolation=cv2.INTER_AREA)
    return sum(int(frame[28:36, 8 + BIT * b + 2 : 8 + BIT * (b + 1) - 2].mean() > 127) << b for b in range(10))


def run(*arguments, data=None):
    command = ["ffmpeg", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True)
    if b"Unknown encoder" in done.stderr or b"not supported in container" in done.stderr:
        pytest.skip(done.stderr.decode().splitlines()[0])
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def decoded_by_ffmpeg(path, size):
    data = run("-i", path, "-fps_mode", "passthrough", "-pix_fmt", "rgb24", "-f", "rawvideo", "-")
    return np.frombuffer(data, np.uint8).reshape(-1, size[0], size[1], 3)


@pytest.fixture
def pictures():
    if shutil.which("ffmpeg") is None:
        pytest.skip("ffmpeg is not installed")
    return b"".join(painted(n).tobytes() for n in range(FRAMES))


def source_of(size=f"{WIDTH}x{HEIGHT}"):
    return "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", size, "-r", "25", "-i", "-"


def check(path, turned=0):
    found = list(VideoFile(path).frames())
    wanted = decoded_by_ffmpeg(path, found[0].shape[:2])
    assert len(found) == VideoFile(path).count() == len(wanted) == FRAMES
    upright = [np.rot90(frame, turned // 90) for frame in found]
    assert [number_in(frame) for frame in upright] == list(range(FRAMES))
    for frame, other in zip(found, wanted):
        assert np.abs(frame.astype(int) - other).mean() < 2, "colours differ from ffmpeg's"
    height, width, _ = upright[0].shape
    for colour, y, x in zip(CORNERS, [0.1, 0.1, 0.9, 0.9], [0.06, 0.94, 0.06, 0.94]):
        seen = upright[20][int(y * height), int(x * width)].astype(int)
        assert np.abs(seen - colour).max() < 60, (colour, seen)
    middle = next(VideoFile(path).frames_at([33]))
    assert (middle == found[33]).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_files_of_ffmpeg_are_read_as_ffmpeg_reads_them(tmp_path, pictures, name):
    run(*source_of(), "-c:v", *FILES[name].split(), tmp_path / name, data=pictures)
    check(tmp_path / name)


@pytest.mark.slow
@pytest.mark.parametrize("name", TURNS)
def test_turned_files_of_ffmpeg_are_upright(tmp_path, pictures, name):
    run(*source_of(), "-c:v", "libx264", "-pix_fmt", "yuv420p", tmp_path / "plain.mp4", data=pictures)
    plain, turn = ["-i", tmp_path / "plain.mp4", "-c", "copy"], TURNS[name]
    if b"-display_rotation" in run("-h", "full"):
        run("-display_rotation", 360 - turn, *plain, tmp_path / name)
    else:  # before version 6
        run(*plain, "-metadata:s:v", f"rotate={turn}", tmp_path / name)
    turned = VideoFile(tmp_path / name)
    assert next(turned.frames()).shape[:2] == ((HEIGHT, WIDTH) if TURNS[name] == 180 else (WIDTH, HEIGHT))
    check(tmp_path / name, turned=-turn % 360)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sound.mp4", "chapters.mkv", "subtitles.mkv", "cover.mp4"])
def test_other_streams_do_not_matter(tmp_path, pictures, name):
    run(*source_of(), "-c:v", "libx264", "-pix_fmt", "yuv420p", tmp_path / "plain.mp4", data=pictures)
    (tmp_path / "words.srt").write_text("1\n00:00:00,000 --> 00:00:01,000\nup\n")
    cv2.imwrite(str(tmp_path / "cover.png"), painted(999))
    (tmp_path / "marks.txt").write_text(";FFMETADATA1\n[CHAPTER]\nTIMEBASE=1/1000\nSTART=0\nEND=500\ntitle=ключ\n")
    more = {
        "sound.mp4": ["-f", "lavfi", "-i", "sine=d=1.64", "-map", "1", "-map", "0"],
        "chapters.mkv": ["-i", tmp_path / "marks.txt", "-map_metadata", "1"],
        "subtitles.mkv": ["-i", tmp_path / "words.srt", "-map", "1", "-map", "0"],
        "cover.mp4": ["-i", tmp_path / "cover.png", "-map", "1", "-map", "0", "-disposition:v:0", "attached_pic"],
    }
    run("-i", tmp_path / "plain.mp4", *more[name], "-c:v", "copy", tmp_path / name)
    found = [number_in(frame) for frame in VideoFile(tmp_path / name).frames()]
    assert found == list(range(FRAMES))
