from __future__ import annotations

import io

import numpy as np
import pytest
from scipy.io import loadmat, savemat

from mvf.data import matlab
from mvf.data.matlab import read_arrays

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
