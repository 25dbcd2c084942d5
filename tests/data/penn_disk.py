"""Small copies of Penn Action and Pouring on disk, in their real formats.

Each writer returns the `data_root` to pass. Every action has two training and two validation videos of 12 to 20
frames, 64 x 48; boxes span the upper left quarter.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from scipy.io import savemat

from .footage import picture, write_video

PENN = (  # number, action, split, frames
    ("0001", "squat", "train", 16),
    ("0002", "squat", "train", 20),
    ("0003", "squat", "val", 12),
    ("0004", "squat", "val", 14),
    ("0005", "pushup", "train", 12),
    ("0006", "pushup", "train", 15),
    ("0007", "pushup", "val", 13),
    ("0008", "pushup", "val", 16),
)
PENN_PHASES = {"squat": 4, "pushup": 2}
POURING = {"train": (("pour_a", 14), ("pour_b", 16), ("pour_c", 12)), "val": (("pour_d", 15), ("pour_e", 13))}


def phases_of(length: int, count: int) -> np.ndarray:
    """(length,) `count` phases of about equal length."""
    return np.arange(length) * count // length


def write_penn_raw(folder: Path) -> Path:
    """Frames, label files and phase labels of the raw release."""
    for number, action, split, length in PENN:
        write_penn_frames(folder, number, length)
        write_penn_label(folder, number, action, split, length)
        write_penn_phases(folder, number, action, split, phases_of(length, PENN_PHASES[action]))
    return folder


def write_penn_frames(folder: Path, number: str, length: int) -> None:
    frames = folder / "Penn_Action" / "frames" / number
    frames.mkdir(parents=True, exist_ok=True)
    for index in range(length):
        cv2.imwrite(str(frames / f"{index + 1:06}.jpg"), picture(index))


def write_penn_label(folder: Path, number: str, action: str, split: str, length: int, /, **changed) -> Path:
    """A label file with fields for `length` frames; joint 3 is invisible; `None` leaves a field out."""
    place = np.arange(length)[:, None] + np.arange(13) / 4
    visibility = np.ones((length, 13), np.uint8)
    visibility[:, 3] = 0
    fields = {
        "action": action,
        "pose": "front",
        "x": place + 1,
        "y": place + 2,
        "visibility": visibility,
        "train": 1 if split == "train" else -1,
        "bbox": np.tile([0.75, 0.75, 32.0, 24.0], (length, 1)),
        "dimensions": np.array([[48, 64, length]], np.uint16),
        "nframes": length,
    }
    path = folder / "Penn_Action" / "labels" / f"{number}.mat"
    path.parent.mkdir(parents=True, exist_ok=True)
    savemat(path, {name: value for name, value in (fields | changed).items() if value is not None})
    return path


def write_penn_phases(folder: Path, number: str, action: str, split: str, phases: np.ndarray) -> Path:
    path = folder / "penn_action_labels" / split / action / f"{number}.npy"
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, phases)
    return path


def write_penn_prepared(folder: Path) -> Path:
    """Video files and the two pickles; the stored paths are those of another machine."""
    actions = sorted(PENN_PHASES)
    for split in ("train", "val"):
        entries = []
        for number, action, part, length in PENN:
            if part == split:
                entry = prepared_entry(
                    folder / "penn_action", f"{number}_{action}", number, length, PENN_PHASES[action]
                )
                entries.append(entry | {"id": len(entries), "action_label": actions.index(action)})
        lists = [[i for i, entry in enumerate(entries) if entry["action_label"] == label] for label in range(13)]
        write_index(folder / "penn_action" / f"{split}.pkl", (entries, lists))
    return folder


def prepared_entry(folder: Path, name: str, file_name: str, length: int, phases: int) -> dict:
    """Writes a video and returns what an index says of it."""
    write_video(folder / "videos" / f"{file_name}.mp4", length)
    labels = torch.from_numpy(phases_of(length, phases))
    return {
        "name": name,
        "video_file": f"/home/someone/data/videos/{file_name}.mp4",
        "seq_len": length,
        "frame_label": labels,
    }


def write_index(path: Path, contents) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(contents))
    return path


def write_pouring_prepared(folder: Path) -> Path:
    """Video files and the two pickles."""
    for split, videos in POURING.items():
        entries = [
            prepared_entry(folder / "pouring", name, name, length, 5) | {"id": number}
            for number, (name, length) in enumerate(videos)
        ]
        write_index(folder / "pouring" / f"{split}.pkl", entries)
    return folder


# TFRecords, written by hand -----------------------------------------------------------------------------------------


def write_pouring_tfrecords(folder: Path) -> Path:
    """Two shards a split."""
    for split, videos in POURING.items():
        for shard, part in enumerate((videos[:2], videos[2:]) if split == "train" else (videos[:1], videos[1:])):
            records = [sequence_example(name, length, phases_of(length, 5)) for name, length in part]
            write_tfrecord(folder / "pouring" / f"pouring_{split}-{shard}-of-2.tfrecord", records)
    return folder


def sequence_example(name: str, length: int, labels: Sequence[int] | None, packed: bool = True) -> bytes:
    frames = [cv2.imencode(".jpg", picture(index))[1].tobytes() for index in range(length)]
    context = {"name": bytes_feature(name.encode()), "len": int_feature(length), "label": int_feature(0)}
    lists = {"video": [bytes_feature(frame) for frame in frames]}
    if labels is not None:
        lists["frame_labels"] = [int_feature(int(label), packed) for label in labels]
    feature_lists = {key: b"".join(field(1, feature) for feature in features) for key, features in lists.items()}
    return field(1, text_map(context)) + field(2, text_map(feature_lists))


def text_map(values: dict[str, bytes]) -> bytes:
    return b"".join(field(1, field(1, key.encode()) + field(2, value)) for key, value in values.items())


def bytes_feature(value: bytes) -> bytes:
    return field(1, field(1, value))


def int_feature(value: int, packed: bool = True) -> bytes:
    number = varint(value % (1 << 64))
    return field(3, field(1, number) if packed else varint(1 << 3) + number)


def field(number: int, data: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(data)) + data


def varint(value: int) -> bytes:
    parts = []
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    return bytes([*parts, value])


def write_tfrecord(path: Path, records: Sequence[bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    lengths = [len(data).to_bytes(8, "little") for data in records]
    path.write_bytes(b"".join(n + masked(n) + data + masked(data) for n, data in zip(lengths, records)))
    return path


def masked(data: bytes) -> bytes:
    crc = naive_crc32c(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def naive_crc32c(data: bytes) -> int:
    """Bit by bit, by the definition."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
