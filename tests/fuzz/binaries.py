"""Targets: label files of Penn Action, pickled indexes, and TFRecord shards."""

from __future__ import annotations

import io
import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from scipy.io import savemat

from mvf.data.datasets.penn import read_label
from mvf.data.formats import crc32c, read_pickle, read_records

from ..data.penn_disk import (
    bytes_feature,
    field,
    phases_of,
    sequence_example,
    text_map,
    write_penn_frames,
    write_penn_label,
    write_penn_phases,
    write_pouring_prepared,
    write_tfrecord,
)
from .harness import NUMBERS, Target, mutated, plain, texts
from .tables import look_at

SHARD = "pouring/pouring_train-0-of-1.tfrecord"
LENGTH = 6

# Penn Action --------------------------------------------------------------------------------------------------------


def _write_penn(home: Path) -> None:
    for number, split in (("0001", "train"), ("0002", "val")):
        write_penn_frames(home, number, LENGTH)
        path = write_penn_label(home, number, "squat", split, LENGTH)
        path.write_bytes(_without_date(path.read_bytes()))
        write_penn_phases(home, number, "squat", split, phases_of(LENGTH, 4))


def _without_date(data: bytes) -> bytes:
    """Every run damages the same file."""
    return data if data[124:126] != b"\x00\x01" else b"MATLAB 5.0".ljust(116) + data[116:]


def _label(home: Path, _: Any) -> None:
    label = read_label(home / "Penn_Action/labels/0001.mat")
    assert label.joints.shape[1:] == (13, 2) and label.boxes.shape[1:] == (4,)


ODD_FIELDS = st.one_of(
    st.sampled_from(
        ["squat", "jump_rope", "", 1, -1, 0, 2.5, np.nan, np.array([]), np.zeros((6, 13)), np.ones((6, 4))]
    ),
    st.sampled_from([np.zeros((0, 13)), np.zeros((2, 13), complex), np.array([1, "a"], object), {"a": 1}]),
    st.sampled_from([np.array([["a", "b"]]), np.zeros((2, 3, 4)), np.full((3, 4), np.inf), True]),
)
FIELDS = st.sampled_from(["action", "x", "y", "visibility", "bbox", "train", "nframes"])


def _mat(changed: dict[str, Any], compressed: bool, old: bool) -> bytes:
    fields = {"action": "squat", "x": np.ones((6, 13)), "y": np.ones((6, 13)), "visibility": np.ones((6, 13))}
    fields |= {"bbox": np.ones((6, 4)), "train": 1} | changed
    file = io.BytesIO()
    try:
        savemat(file, fields, format="4" if old else "5", do_compression=compressed and not old)
    except (TypeError, ValueError):  # kinds that the old format lacks
        savemat(file, fields)
    return _without_date(file.getvalue())


# pickles ------------------------------------------------------------------------------------------------------------


def _write_plain_pickle(home: Path) -> None:
    value = [{"name": "a", "frame_label": torch.arange(6), "array": np.eye(2), "scalar": np.float32(3)}, {1, "b"}, b"c"]
    (home / "index.pkl").write_bytes(pickle.dumps((value, [[0]]), 2))


def _pickle(home: Path, _: Any) -> None:
    read_pickle(home / "index.pkl")


class Call:
    """Pickles as a call, whatever of."""

    def __init__(self, *call: Any) -> None:
        self.call = call

    def __reduce__(self) -> tuple:
        return self.call


CALLED = st.sampled_from(
    [np._core.multiarray._reconstruct, np._core.multiarray.scalar, np.dtype, torch._utils._rebuild_tensor_v2]
    + [torch.storage._load_from_bytes, set, complex, torch.Size, frozenset]
)
ARGUMENTS = st.recursive(
    st.one_of(
        st.sampled_from([*NUMBERS, None, "i8", "O", "V8", b"", bytes(8), np.ndarray, np.dtype("i8"), torch.arange(3)]),
        texts,
    ),
    lambda inner: st.lists(inner, max_size=4).map(tuple),
    max_leaves=6,
)
CALLS = st.builds(
    lambda function, values, state: Call(function, tuple(values), *state),
    CALLED,
    st.lists(ARGUMENTS, max_size=6),
    st.lists(ARGUMENTS, max_size=1),
)
PICKLED = st.one_of(CALLS, plain, st.lists(CALLS, max_size=3), ARGUMENTS)


def pickled(value: Any, protocol: int = 2) -> bytes:
    try:
        return pickle.dumps(value, protocol)
    except Exception:  # calls that pickle itself refuses to write
        return pickle.dumps(repr(value), protocol)


ENTRIES = st.lists(
    st.one_of(
        st.fixed_dictionaries(
            {"name": st.one_of(st.just("pour_a"), plain), "video_file": st.one_of(st.just("videos/pour_a.mp4"), plain)},
            optional={
                "frame_label": st.one_of(
                    st.lists(st.sampled_from([0, 1, 4, 5, -1, -2, 1.5]), max_size=16),
                    st.sampled_from(
                        [torch.arange(14) // 3, torch.zeros(2, 2), torch.tensor(3), np.zeros(14), np.array(["a"])]
                    ),
                    plain,
                ),
            },
        ),
        plain,
    ),
    max_size=3,
)


# TFRecords ----------------------------------------------------------------------------------------------------------


def _write_shard(home: Path) -> None:
    records = [sequence_example(name, LENGTH, phases_of(LENGTH, 5)) for name in ("pour_a", "pour_b")]
    write_tfrecord(home / SHARD, records)
    write_tfrecord(home / SHARD.replace("train", "val"), records[:1])


def _shard(records: list[bytes]) -> bytes:
    """A shard whose sums are right, whatever its records are."""
    parts = []
    for data in records:
        length = len(data).to_bytes(8, "little")
        parts += [length, _masked(length), data, _masked(data)]
    return b"".join(parts)


def _masked(data: bytes) -> bytes:
    crc = crc32c(data)
    return (((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, "little")


def _promise(length: int) -> bytes:
    """A record of which only the length is there, with its right sum."""
    return length.to_bytes(8, "little") + _masked(length.to_bytes(8, "little")) + bytes(40)


def _records(home: Path, _: Any) -> None:
    size = (home / SHARD).stat().st_size
    assert all(0 <= record.start <= record.stop <= size for record in read_records(home / SHARD))


EXAMPLE = sequence_example("pour_a", LENGTH, phases_of(LENGTH, 5))
MESSAGES = st.one_of(
    mutated(EXAMPLE),
    st.builds(
        lambda name, frames, labels: (
            field(1, text_map({"name": bytes_feature(name)}))
            + field(2, text_map({"video": b"".join(field(1, f) for f in frames), "frame_labels": labels}))
        ),
        st.binary(max_size=6),
        st.lists(st.one_of(st.binary(max_size=6), st.binary(max_size=6).map(bytes_feature)), max_size=4),
        st.binary(max_size=12),
    ),
)
SHARDS = st.one_of(
    st.lists(MESSAGES, max_size=3).map(_shard),
    st.sampled_from([1 << 60, (1 << 64) - 1, 1 << 31, 41, 40, 36, 0]).map(_promise),
)

TARGETS = (
    Target(
        *("Penn label .mat", _label),
        st.builds(_mat, st.dictionaries(FIELDS, ODD_FIELDS, max_size=3), st.booleans(), st.booleans()),
        *(_write_penn, "Penn_Action/labels/0001.mat"),
    ),
    Target(
        *("Penn raw, through .mat", partial(look_at, "penn")),
        st.builds(_mat, st.dictionaries(FIELDS, ODD_FIELDS, max_size=3), st.booleans(), st.booleans()),
        *(_write_penn, "Penn_Action/labels/0001.mat", r"0001\.mat|0001_"),
    ),
    Target(
        *("Penn phases .npy", partial(look_at, "penn"), st.binary(max_size=64)),
        *(_write_penn, "penn_action_labels/train/squat/0001.npy", r"0001\.npy|0001_squat"),
    ),
    Target("pickle", _pickle, PICKLED.map(pickled), _write_plain_pickle, "index.pkl"),
    Target(
        *("prepared index .pkl", partial(look_at, "pouring"), ENTRIES.map(pickled)),
        *(write_pouring_prepared, "pouring/train.pkl", r"train\.pkl|videos can be used"),
    ),
    Target("TFRecord", _records, SHARDS, _write_shard, SHARD),
    Target("SequenceExample", partial(look_at, "pouring"), SHARDS, _write_shard, SHARD, "tfrecord|videos can be used"),
)
