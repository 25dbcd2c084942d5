"""Videos and their labels, from the data sets in `mvf.data.datasets`."""

from mvf.data.catalog import check_lines, find_config_videos, find_videos, layout, splits
from mvf.data.datasets import DATASETS
from mvf.data.records import Coverage, VideoList, VideoRecord

__all__ = [
    "DATASETS",
    "Coverage",
    "VideoList",
    "VideoRecord",
    "check_lines",
    "find_config_videos",
    "find_videos",
    "layout",
    "splits",
]
