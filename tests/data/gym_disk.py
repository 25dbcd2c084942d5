"""Small FineGym and Kinetics-400 data sets on disk, in the formats in which they are published.

Every writer returns the `data_root` to pass. Frames are 10 a second and tell their number (`footage.number_of`).
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import torch

from .footage import write_video

FPS = 10
EVENTS = {"E_000000_000003": (0.5, 2.9), "E_000003_000006": (3.0, 5.4)}  # seconds in the source video
SEGMENTS = {  # seconds in the event
    "A_0000_0001": [[0.2, 0.8]],
    "A_0001_0002": [[0.9, 1.1], [1.2, 1.3], [1.4, 1.6]],
    "A_0002_0002": [[1.7, 2.2]],
}
CLASSES = (5, 41, 74)  # of the three segments, in both splits
EVENT_LABELS = [-1, -1, *[5] * 6, -1, *[41] * 7, -1, *[74] * 5, -1, -1]  # all 24 frames of an event
VIDEOS = {"train": ("0Lt_S9w", "E_1-x"), "val": ("_A_2b",)}
UNLABELLED = "0Lt_S9w_E_000006_000008"


def event_names(split: str) -> list[str]:
    return [f"{video}_{event}" for video in VIDEOS[split] for event in EVENTS]


def write_finegym99_raw(folder: Path) -> Path:
    return _write_raw(folder, "gym99_train_element_v1.0.txt", "gym99_val_element.txt")


def write_finegym288_raw(folder: Path) -> Path:
    _write_additional(folder / "FineGym")
    return _write_raw(folder, "gym288_train_element_v1.1.txt", "gym288_val_element.txt")


def write_finegym99_prepared(folder: Path) -> Path:
    return _write_prepared(folder, "gym99_train_v1.0.pkl", "gym99_val.pkl")


def write_finegym288_prepared(folder: Path) -> Path:
    _write_additional(folder / "FineGym")
    write_video(folder / "FineGym" / "videos" / f"{UNLABELLED}.mp4", 20, fps=FPS)
    return _write_prepared(folder, "gym288_train_v1.0.pkl", "gym288_val.pkl")


def write_kinetics_csv(folder: Path) -> Path:
    home = folder / "kinetics400"
    lines = ["label,youtube_id,time_start,time_end,split"]
    for number, label in enumerate(("riding a bike", "zumba", "riding a bike", "zumba")):
        lines.append(f"{label},-id_{number},{number},{number + 10},train")
        write_video(home / "train" / f"-id_{number}_{number:06d}_{number + 10:06d}.mp4", 12)
    (home / "train.csv").write_text("\n".join(lines) + "\n")
    (home / "val.csv").write_text(f"{lines[0]}\nzumba,abc,0,10,val\n")
    return folder


def write_kinetics_folders(folder: Path) -> Path:
    for label in ("riding_a_bike", "zumba"):
        for number in range(2):
            write_video(folder / "kinetics400" / "train" / label / f"id{number}_000000_000010.mp4", 12)
    return folder


def write_pickle(path: Path, value: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(value))


def _write_raw(folder: Path, train: str, val: str) -> Path:
    home = folder / "FineGym"
    segments = {name: {"stages": len(times), "timestamps": times} for name, times in SEGMENTS.items()}
    events = {
        name: {"event": number, "timestamps": [list(times)], "segments": segments}
        for number, (name, times) in enumerate(EVENTS.items(), start=3)
    }
    videos = {video: dict(events) for split in VIDEOS for video in VIDEOS[split]}
    videos["0Lt_S9w"]["E_000006_000008"] = {"event": 1, "timestamps": [[5.4, 6.4]], "segments": None}
    for video in videos:
        write_video(home / "videos" / f"{video}.mp4", 64, fps=FPS)
    (home / "finegym_annotation_info_v1.0.json").write_text(json.dumps(videos))
    for split, name in zip(VIDEOS, (train, val)):
        lines = [
            f"{event}_{segment} {label}" for event in event_names(split) for segment, label in zip(SEGMENTS, CLASSES)
        ]
        (home / name).write_text("\n".join(lines) + "\n")
    return folder


def _write_prepared(folder: Path, train: str, val: str) -> Path:
    home = folder / "FineGym"
    for split, file_name in zip(VIDEOS, (train, val)):
        entries = [_entry(number, name) for number, name in enumerate(event_names(split))]
        for entry in entries:
            entry |= {"frame_label": torch.tensor(EVENT_LABELS), "event_label": 2}
            write_video(home / "videos" / f"{entry['name']}.mp4", len(EVENT_LABELS), fps=FPS)
        write_pickle(home / file_name, entries)
    return folder


def _write_additional(home: Path) -> None:
    write_pickle(home / "additional_v1.0.pkl", [_entry(0, UNLABELLED)])


def _entry(number: int, name: str) -> dict:
    # the path of another machine, as in published files
    return {"id": number, "name": name, "video_file": f"/data/somebody/{name}.mp4", "seq_len": len(EVENT_LABELS)}
