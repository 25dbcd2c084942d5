from __future__ import annotations

import numpy as np
import pytest

from mvf.files_numpy import read_npy, read_npz

from .fuzz.harness import npy_header, zipped


@pytest.mark.parametrize("kind", ["f8", ">i4", "?", "U3", "c16", "M8[s]"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4,), (2, 3, 4)])
def test_arrays_come_back_as_they_were_saved(tmp_path, kind, shape):
    values = np.asfortranarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind))
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", a=values, b=values)
    for found in (read_npy(tmp_path / "a.npy"), *read_npz(tmp_path / "a.npz").values()):
        assert np.array_equal(found, values) and found.dtype == values.dtype and found.flags.writeable


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy_header("(1000000000, 4)"), "buffer is smaller"),
        (npy_header("(9223372036854775808,)"), "header is damaged"),
        (npy_header("(-1,)"), "its shape is"),
        (npy_header("(2,)", "'O'"), "it holds objects"),
        (npy_header("(2,)", "-" * 3000 + "1"), "header is damaged"),
        (b"", "EOF"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path, data, reason):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.npy is no whole \.npy of plain values \(.*{reason}"):
        read_npy(tmp_path / "a.npy")
    (tmp_path / "a.npz").write_bytes(zipped({"a.npy": data}))
    with pytest.raises(ValueError, match=reason):
        read_npz(tmp_path / "a.npz")
