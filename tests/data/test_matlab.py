from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from mvf.data import matlab
from mvf.data.matlab import read_arrays
from mvf.data.penn_raw import read_label
from mvf.data.video import VideoError

KINDS = ("f8", "f4", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "?")


def _saved(values: dict, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    savemat(file, values, do_compression=compressed)
    return file.getvalue()


@pytest.mark.parametrize("compressed", [False, True])
def test_arrays_and_texts_are_those_that_scipy_reads(compressed):
    values = {f"n{kind.strip('?')}": np.arange(6).reshape(2, 3).astype(kind) for kind in KINDS}
    values |= {"action": "squat", "one": 1, "none": np.zeros((0, 4)), "cube": np.ones((2, 3, 4)), "rows": ["ab", "cd"]}
    data = _saved(values, compressed)
    wanted, found = loadmat(io.BytesIO(data)), read_arrays(data, values)
    assert set(found) == set(values)
    for name, value in found.items():
        assert np.array_equal(value, wanted[name]) and value.shape == wanted[name].shape, name
        assert value.dtype.kind == wanted[name].dtype.kind, name


def test_only_what_is_asked_for_is_read():
    data = _saved({"x": np.ones(3), "cells": np.array([1, "a"], object), "y": {"a": 1}})
    assert list(read_arrays(data, ("x",))) == ["x"]
    for name in ("cells", "y"):
        with pytest.raises(ValueError, match=f"{name} is of class [12], wanted real numbers or text"):
            read_arrays(data, (name,))
    with pytest.raises(ValueError, match="z is of class 6"):
        read_arrays(_saved({"z": np.ones(3, complex)}), ("z",))


def test_every_cut_and_other_formats_are_refused():
    data = _saved({"x": np.ones((4, 4))})
    for length in range(len(data)):
        if length != 128:  # a header alone is a file without variables
            with pytest.raises(ValueError, match="no MATLAB file of version 5|damaged|longer than the file|values for"):
                read_arrays(data[:length], ("x",))
    assert read_arrays(data[:128], ("x",)) == {}


def test_a_compressed_element_unfolds_no_further_than_any_label_needs(monkeypatch):
    data = _saved({"x": np.zeros((200, 13))}, compressed=True)
    assert read_arrays(data, ("x",))["x"].shape == (200, 13)
    monkeypatch.setattr(matlab, "LARGEST", 1000)
    with pytest.raises(ValueError, match="longer than the file"):
        read_arrays(data, ("x",))


# files that no MATLAB writes ------------------------------------------------------------------------------------------

TEXT, DOUBLE, INT32, INT64, UINT8 = 4, 6, 12, 14, 9  # classes
STORED = {kind: number for number, kind in matlab.STORED.items() if number < 16}


def _element(kind: int, data: bytes) -> bytes:
    return struct.pack("<II", kind, len(data)) + data + bytes(-len(data) % 8)


def _values(kind: str, values: list) -> bytes:
    return _element(STORED[kind], np.array(values, f"<{kind}").tobytes())


def _matrix(kind: int, values: bytes, shape: bytes, name: str = "x") -> bytes:
    """A file of one matrix, of a class and with values and dimensions stored as whatever they are."""
    content = _element(6, struct.pack("<II", kind, 0)) + shape + _element(1, name.encode()) + values
    return b"MATLAB 5.0".ljust(124) + b"\x00\x01IM" + _element(matlab.MATRIX, content)


ROW = _values("i4", [1, 2])
ODD = {
    "dimensions as doubles": (DOUBLE, _values("f8", [1, 2]), _values("f8", [1, 2]), r"shape \(1\.0, 2\.0\), wanted"),
    "dimensions beyond all": (DOUBLE, _values("f8", []), _values("u8", [0, 2**63]), "shape .* wanted whole numbers"),
    "text as doubles": (TEXT, _values("f8", [97, 98]), ROW, "text of float64 that are no characters"),
    "text as nan": (TEXT, _values("f4", [np.nan, 98]), ROW, "text of float32"),
    "text beyond 2^63": (TEXT, _values("u8", [97, 2**63]), ROW, "text of uint64"),
    "text below 0": (TEXT, _values("i1", [97, -1]), ROW, "text of int8"),
    "nan as a whole number": (INT32, _values("f8", [1, np.nan]), ROW, "x holds nan, which is no int32"),
    "infinity as a whole number": (INT64, _values("f4", [np.inf, 1]), ROW, "x holds inf, which is no int64"),
    "half as a whole number": (INT32, _values("f8", [0.5, 1]), ROW, "x holds 0.5, which is no int32"),
    "too much": (UINT8, _values("i4", [255, 256]), ROW, "x holds 256, which is no uint8"),
    "the wrong sign": (INT64, _values("u8", [1, 2**63]), ROW, "x holds 9223372036854775808, which is no int64"),
}


@pytest.mark.parametrize("name", ODD)
def test_numbers_that_cannot_be_what_the_file_says_are_refused(name):
    kind, values, shape, message = ODD[name]
    with pytest.raises(ValueError, match=message):
        read_arrays(_matrix(kind, values, shape), ("x",))


def test_numbers_stored_as_another_kind_that_holds_them_are_read():
    for kind, dtype in ((INT32, "i4"), (UINT8, "u1"), (DOUBLE, "f8")):
        for stored in ("f8", "f4", "u1", "i8"):
            found = read_arrays(_matrix(kind, _values(stored, [3, 200]), ROW), ("x",))["x"]
            assert found.dtype == dtype and found.tolist() == [[3, 200]]
    assert read_arrays(_matrix(TEXT, _values("u4", [97, 0x10FFFF]), ROW), ("x",))["x"] == ["a\U0010ffff"]
    assert read_arrays(_matrix(TEXT, b"", _values("i4", [0, 0])), ("x",))["x"].size == 0


def test_the_reader_of_labels_names_the_file(tmp_path):
    for kind, values, shape, _ in ODD.values():
        (tmp_path / "0001.mat").write_bytes(_matrix(kind, values, shape, "train"))
        with pytest.raises(VideoError, match=r"0001\.mat"):
            read_label(tmp_path / "0001.mat")
