"""Targets: phase labels of Penn Action, pickled indexes, and the framing of TFRecord shards."""

from __future__ import annotations

import pickle
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st

from mvf.data.formats import read_pickle, read_records

from ..data.penn_disk import (
    masked,
    phases_of,
    sequence_example,
    write_penn_frames,
    write_penn_label,
    write_penn_phases,
    write_pouring_prepared,
    write_tfrecord,
)
from .harness import NUMBERS, Target, plain, texts
from .tables import look_at

SHARD = "pouring/pouring_train-0-of-1.tfrecord"
LENGTH = 6

# Penn Action --------------------------------------------------------------------------------------------------------


def _write_penn(home: Path) -> None:
    for number, split in (("0001", "train"), ("0002", "val")):
        write_penn_frames(home, number, LENGTH)
        write_penn_label(home, number, "squat", split, LENGTH)
        write_penn_phases(home, number, "squat", split, phases_of(LENGTH, 4))


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


def _promise(length: int) -> bytes:
    """A record of which only the length is there, with its right sum."""
    return length.to_bytes(8, "little") + masked(length.to_bytes(8, "little")) + bytes(40)


def _records(home: Path, _: Any) -> None:
    size = (home / SHARD).stat().st_size
    assert all(0 <= record.start <= record.stop <= size for record in read_records(home / SHARD))


PROMISES = st.sampled_from([1 << 60, (1 << 64) - 1, 1 << 31, 41, 40, 36, 0]).map(_promise)

TARGETS = (
    Target(
        *("Penn phases .npy", partial(look_at, "penn"), st.binary(max_size=64)),
        *(_write_penn, "penn_action_labels/train/squat/0001.npy", r"0001\.npy|0001_squat"),
    ),
    Target("pickle", _pickle, PICKLED.map(pickled), _write_plain_pickle, "index.pkl"),
    Target(
        *("prepared index .pkl", partial(look_at, "pouring"), ENTRIES.map(pickled)),
        *(write_pouring_prepared, "pouring/train.pkl", r"train\.pkl|videos can be used"),
    ),
    Target("TFRecord", _records, PROMISES, _write_shard, SHARD),
)
