from __future__ import annotations

import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from mvf.files import read_npy, read_npz

from .fuzz.harness import npy_header, unfolding, zipped


@pytest.mark.parametrize("kind", ["f8", "f2", ">i4", "u1", "?"])
@pytest.mark.parametrize("shape", [(), (0, 3), (4,), (2, 3, 4)])
def test_arrays_come_back_as_they_were_saved(tmp_path, kind, shape):
    values = np.asfortranarray(np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(kind))
    np.save(tmp_path / "a.npy", values)
    np.savez_compressed(tmp_path / "a.npz", a=values, b=values)  # zeros unfold a thousandfold and are honest
    for found in (read_npy(tmp_path / "a.npy"), *read_npz(tmp_path / "a.npz").values()):
        assert np.array_equal(found, values) and found.dtype == values.dtype and found.flags.writeable


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (npy_header("(1000000000, 4)"), "takes 32000000000 bytes, 16 follow"),
        (npy_header("(9223372036854775808,)"), "bytes, 16 follow"),
        (npy_header("(-1,)"), "its shape is"),
        (npy_header("(2,)", "'O'"), "it holds object, not numbers"),
        (npy_header("(1,)", "'<U4'"), "it holds <U4, not numbers"),
        (npy_header("(1,)", "'<c16'"), "it holds complex128, not numbers"),
        (npy_header("(2,)", "-" * 3000 + "1"), "header is damaged"),
        (b"", "EOF"),
    ],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(tmp_path, data, reason):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ValueError, match=rf"a\.npy is not a complete \.npy of plain values \(.*{reason}"):
        read_npy(tmp_path / "a.npy")
    (tmp_path / "a.npz").write_bytes(zipped({"a.npy": data}))
    with pytest.raises(ValueError, match=reason):
        read_npz(tmp_path / "a.npz")


def test_a_member_that_unfolds_further_than_it_declares_takes_no_more_than_that(tmp_path):
    data = bytearray(unfolding("a.npy", 1 << 28))
    begin = npy_header("(33554432,)")[:-16].ljust(1000, b"\0")
    for place in (14, data.rindex(b"PK\x01\x02") + 16):
        struct.pack_into("<I", data, place, zlib.crc32(begin))
        struct.pack_into("<I", data, place + 8, len(begin))
    (tmp_path / "a.npz").write_bytes(data)
    tracemalloc.start()
    with pytest.raises(ValueError, match=r'"a\.npy": float64 \(33554432,\) takes 268435456 bytes, \d+ follow'):
        read_npz(tmp_path / "a.npz")
    peak = tracemalloc.get_traced_memory()[1], tracemalloc.stop()
    assert peak[0] < 4e6


def test_a_damaged_member_is_found_by_its_sum(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(100.0))
    data = bytearray((tmp_path / "a.npz").read_bytes())
    data[data.index(np.float64(50).tobytes())] ^= 1
    (tmp_path / "a.npz").write_bytes(data)
    with pytest.raises(zipfile.BadZipFile, match="CRC-32"):
        read_npz(tmp_path / "a.npz")
