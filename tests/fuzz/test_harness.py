"""The harness sees what it is there to see."""

from __future__ import annotations

import pickle
import time
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import strategies as st

from . import harness
from .harness import BrokenError, Payload, Prepared, Target
from .values import TARGETS


def _target(read, tmp_path, content: bytes = b"valid") -> Prepared:
    prepare = lambda home: (home / "a.bin").write_bytes(content)  # noqa: E731
    return Prepared(Target("parser", lambda home, _: read(home / "a.bin"), st.binary(), prepare, "a.bin"), tmp_path)


def _raise(error: Exception) -> None:
    raise error


def _hidden_end_of_memory(path) -> None:
    try:
        np.ones(1 << 40)
    except MemoryError as error:
        raise ValueError(f"{path} is damaged: {error}") from None


@pytest.mark.parametrize(
    ("read", "fault"),
    [
        (lambda path: _raise(KeyError("x")), "KeyError"),
        (lambda path: _raise(ValueError("damaged")), "does not name"),
        (lambda path: np.ones(1 << 40), "MemoryError"),
        (_hidden_end_of_memory, "stopped only by the end of memory"),
        (lambda path: pickle.loads(path.read_bytes()), "ran code"),
    ],
)
def test_what_no_parser_may_do_is_a_fault(tmp_path, read, fault):
    with pytest.raises(BrokenError, match=fault):
        _target(read, tmp_path).try_case(pickle.dumps(Payload(tmp_path)))
    assert (tmp_path / "a.bin").read_bytes() == b"valid" and not (tmp_path / harness.CANARY).exists()


def test_a_hang_is_a_fault_though_the_parser_catches_every_exception(tmp_path, monkeypatch):
    def read(path) -> None:
        while True:
            try:
                time.sleep(0.01)
            except Exception:
                continue

    monkeypatch.setattr(harness, "SECONDS", 0.2)
    with pytest.raises(BrokenError, match="hangs"):
        _target(read, tmp_path).try_case(b"")


def test_results_and_errors_that_name_the_file_are_fine(tmp_path):
    assert _target(lambda path: path.read_bytes(), tmp_path).try_case(b"x") == "read"
    assert _target(lambda path: path.read_bytes(), tmp_path).try_case(None) == "IsADirectoryError"
    assert _target(lambda path: _raise(ValueError(f"{path}: no")), tmp_path).try_case(b"x") == "ValueError"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("settings: make_config", {"seed": "x"}),
        ("settings: load_config", ("penn", "", {"seed": "x"})),
        ("notebook parameters", {"seed": "x"}),
        ("notebook parameters", {"overrides": {"seed": "x"}}),
        ("notebook parameters", {"overrides": '{"seed": "x"}'}),
    ],
)
def test_an_error_that_does_not_name_the_setting_is_a_fault(tmp_path, name, content):
    (target,) = (target for target in TARGETS if target.name == name)
    assert Prepared(target, tmp_path).try_case(content) == "ValueError"
    for message in ("must be a whole number", "epochs must be a whole number"):
        with pytest.raises(BrokenError, match="does not name"):
            Prepared(replace(target, read=lambda *_, m=message: _raise(ValueError(m))), tmp_path).try_case(content)


def test_an_archive_that_unfolds_is_one_of_the_hostile_files(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.ones(3))
    *_, bomb = harness.within((tmp_path / "a.npz").read_bytes(), [b""])
    (tmp_path / "a.npz").write_bytes(bomb)
    with zipfile.ZipFile(tmp_path / "a.npz") as archive, archive.open("a.npy") as file:
        (member,) = archive.infolist()
        assert member.file_size > harness.MEMORY > 500 * len(bomb)
        assert np.lib.format.read_magic(file) == (1, 0)
        (count,), *_ = np.lib.format.read_array_header_1_0(file)
        assert count * 8 == member.file_size - file.tell() and file.read(1 << 20) == bytes(1 << 20)
