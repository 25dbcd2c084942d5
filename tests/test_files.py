"""Files and folders: temporary files of killed processes, who holds a folder, and arrays that are read safely."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import struct
import time
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest

from mvf.files import LOCK, atomic, clear_leftovers, explained, held, read_npy, read_npz
from tests.faults.processes import CONTEXT, leftovers

from .fuzz.harness import npy_header, unfolding, zipped


def die_in_a_write(path):
    with atomic(path) as temporary:
        temporary.write_text("half")
        os.kill(os.getpid(), 9)


def test_what_a_killed_process_left_is_cleared_by_the_next_write_of_any_file_there(tmp_path):
    for name in ("state.pt", "history.csv"):
        child = CONTEXT.Process(target=die_in_a_write, args=(tmp_path / name,))
        child.start()
        child.join()
        assert len(leftovers(tmp_path)) == 1, "they do not pile up"
        assert not (tmp_path / name).exists()
    with atomic(tmp_path / "other.json") as path:
        path.write_text("{}")
    assert [path.name for path in tmp_path.iterdir()] == ["other.json"]


def test_temporary_files_of_living_processes_other_machines_and_other_programs_stay(tmp_path):
    with atomic(tmp_path / "a.txt") as living:
        living.write_text("half")
        others = [tmp_path / name for name in (".a.mvf-000000-999999.txt", ".a.txt.swp", "a.mvf.txt")]
        for path in others:
            path.write_text("")
        clear_leftovers.cache_clear()
        clear_leftovers(tmp_path, os.getpid())
        assert living.exists() and all(path.exists() for path in others)


# folders that one process holds -------------------------------------------------------------------------------------


def outlive(folder, ready):
    """Dies by SIGKILL while a worker that it forked, and that shares its lock, lives on for two seconds."""
    with held(folder):
        multiprocessing.get_context("fork").Process(target=time.sleep, args=(2,)).start()
        ready.set()
        os.kill(os.getpid(), signal.SIGKILL)


def test_a_killed_process_whose_workers_are_still_ending_is_waited_for(tmp_path):
    ready = CONTEXT.Event()
    child = CONTEXT.Process(target=outlive, args=(tmp_path / "run", ready))
    child.start()
    child.join()
    assert ready.is_set()
    started = time.monotonic()
    with held(tmp_path / "run"):
        assert time.monotonic() - started < 15


def test_one_who_waited_at_a_lock_that_was_deleted_holds_the_new_one(tmp_path):
    with held(tmp_path):
        (tmp_path / LOCK).unlink()
        with held(tmp_path), pytest.raises(OSError, match=f"process {os.getpid()} on"), held(tmp_path):
            pass


def test_a_disc_without_locks_is_said_and_does_not_stop_a_training(tmp_path, monkeypatch, caplog):
    def no_locks(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", no_locks)
    with held(tmp_path):
        assert "has no locks" in caplog.text


def test_a_read_only_disc_is_said(tmp_path, monkeypatch):
    def read_only(*_, **__):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("mvf.files._take", read_only)
    with pytest.raises(PermissionError, match="its disc is read-only; choose another folder"), held(tmp_path / "run"):
        pass


# arrays -------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize(
    ("variable", "place"), [("MVF_CACHE", "banks/a"), ("MVF_CACHE", "weights"), ("MVF_DATA", "squat")]
)
def test_a_read_only_folder_of_the_package_names_its_variable(tmp_path, monkeypatch, variable, place):
    monkeypatch.setenv(variable, str(tmp_path / "own"))
    failure = OSError(errno.EROFS, os.strerror(errno.EROFS))
    with pytest.raises(PermissionError, match=f"its disc is read-only; set {variable} to another folder"):
        with explained(tmp_path / "own" / place / "file"):
            raise failure
