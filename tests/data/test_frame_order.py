"""Order of the images in a folder: by the numbers in their names, whatever these are."""

import cv2
import pytest

from mvf.data.video import ImageFolder, VideoError, image_files

from .footage import number_of, picture


def folder_of(folder, stems):
    """Writes images whose brightness tells their place in `stems`."""
    folder.mkdir()
    for place, stem in enumerate(stems):
        cv2.imwrite(str(folder / f"{stem}.png"), picture(place))
    return folder


@pytest.mark.parametrize(
    "stems",
    [
        ["f_0.25", "f_0.5", "f_0.75", "f_1.0", "f_10.5"],  # seconds as Python prints them
        ["t0.033", "t0.067", "t0.1"],
        ["1.9", "1.10", "1.11", "1.1"][3:] + ["1.9", "1.10", "1.11"],  # first to eleventh of part 1
        ["-10", "-2", "0", "3", "12"],
        ["t=-1.5", "t=-0.25", "t=0.5"],
        ["frame-2", "frame-9", "frame-10"],  # a hyphen, no minus
        ["-0001", "-0002", "-0010"],  # an empty prefix before the hyphen
        ["30-01-2024", "31-01-2024", "01-02-2024"],  # day first
        ["01.30.2024 9", "01.30.2024 10", "02.01.2024 1"],  # month first
        ["2024-1-9", "2024-1-10", "2024-2-1"],
        ["IMG_20240131_235959", "IMG_20240201_000000"],
    ],
)
def test_images_are_in_the_order_of_their_numbers(tmp_path, stems):
    folder = folder_of(tmp_path / "clip", stems)
    assert [number_of(frame) for frame in ImageFolder(folder).frames()] == list(range(len(stems)))
    assert [path.stem for path in image_files(folder)] == stems  # as masks are read


def test_dates_that_may_be_either_are_refused(tmp_path):
    folder = folder_of(tmp_path / "clip", ["01-02-2024", "02-01-2024", "03-03-2024"])
    with pytest.raises(VideoError, match="may begin with the day or the month; name the images with the year first"):
        ImageFolder(folder).count()


def test_two_sequences_stay_two(tmp_path):
    folder = folder_of(tmp_path / "clip", ["a_-1", "a_0", "b_-1", "b_0"])
    with pytest.raises(VideoError, match="several sequences"):
        ImageFolder(folder).count()
