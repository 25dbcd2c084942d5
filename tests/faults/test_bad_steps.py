"""Workers that die and numbers that are not finite: the last complete epoch stays, and the run goes on from it."""

import re

import numpy as np
import pytest
from accelerate import Accelerator

import mvf
from mvf.__main__ import main
from mvf.data.dataset import VideoDataset
from mvf.data.video import VideoError
from mvf.training.run import read_history, write_epoch
from tests.conftest import TINY
from tests.data.footage import write_video
from tests.faults.processes import assert_same, check_whole, fail, finish, leftovers


def test_a_worker_that_dies_is_named_and_the_run_goes_on_to_the_same_result(tmp_path):
    finish("train", tmp_path / "reference", epochs=5)
    said = fail("train", tmp_path / "run", epochs=5, workers=2, worker_dies_after=3)
    assert said.startswith("ChildProcessError: a worker that reads data died (DataLoader worker (pid")
    assert "use fewer workers (now 2; 0 needs none)" in said and f"{tmp_path}/run/run keeps the last complete" in said
    check_whole(tmp_path / "run")
    assert not leftovers(tmp_path / "run") and len(read_history(tmp_path / "run" / "run")) == 3
    finish("train", tmp_path / "run", epochs=5, workers=0)
    (tmp_path / "run" / "run" / "config.json").write_bytes(
        (tmp_path / "reference" / "run" / "config.json").read_bytes()  # they differ in workers alone
    )
    assert_same(tmp_path / "reference", tmp_path / "run")


@pytest.mark.parametrize("torn", [ConnectionResetError(104, "Connection reset by peer"), EOFError()])
def test_a_pipe_torn_before_the_worker_counts_as_dead_is_its_death(tiny, tmp_path, monkeypatch, torn):
    def loader(*args, **settings):
        yield from ()
        raise torn

    monkeypatch.setattr("mvf.data.loading.DataLoader", loader)
    monkeypatch.setattr("mvf.data.loading.PATIENCE", 0.0)
    with pytest.raises(ChildProcessError, match="a worker that reads data died .*pid unknown.*use fewer workers"):
        mvf.train(tiny(features="online", workers=1), tmp_path / "run")


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("no buffer left"),
        ConnectionError("no buffer left"),
        EOFError(),
        VideoError("a.mp4 is damaged:\n\nkey frame"),
        FileNotFoundError(2, "No such file", "a.mp4"),
        KeyError("a.mp4"),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_an_error_in_a_worker_that_lives_is_one_line_above_its_traceback(tiny, tmp_path, monkeypatch, error):
    def fail(self, item):
        try:
            raise ZeroDivisionError("before it")
        except ZeroDivisionError as cause:
            raise error from cause

    monkeypatch.setattr(VideoDataset, "__getitem__", fail)
    with pytest.raises(ChildProcessError) as raised:
        mvf.train(tiny(features="online", workers=1), tmp_path / "run")
    name, text = type(error).__name__, f": {error}" if str(error) else ""
    assert re.fullmatch(rf"a worker that reads data failed: ([a-z.]*){name}{re.escape(text)}", str(raised.value))
    assert "in fail" in str(raised.value.__cause__), "where it was raised can still be found"


def test_a_video_that_breaks_is_one_line_with_workers_as_without(tmp_path, monkeypatch, capsys, own_cache):
    videos, said = tmp_path / "videos", {}
    words = {**{name: value for name, value in TINY.items() if name != "data_options"}, "features": "online"}
    words |= {"data_root": videos, "epochs": 3, "batch_size": 2}

    def spoil(*arguments):
        write_epoch(*arguments)
        for path in videos.iterdir():
            path.write_bytes(path.read_bytes()[:1500])

    monkeypatch.setattr("mvf.training.trainer.write_epoch", spoil)
    for workers in (0, 1):
        for number in range(6):
            write_video(videos / f"v{number}.mp4", 12)
        settings = [word for name, value in (words | {"workers": workers}).items() for word in ("-p", name, str(value))]
        capsys.readouterr()
        assert main(["train", "folder", "--run-dir", str(tmp_path / f"run{workers}"), *settings]) == 1
        said[workers] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mvf: ")]
        assert "Traceback" not in "".join(said[workers]) and ".mp4" in said[workers][0]
    assert len(said[0]) == len(said[1]) == 1
    without, with_workers = (re.sub(r"v\d\.mp4", "VIDEO", lines[0]) for lines in said.values())
    assert "a worker that reads data failed: " in with_workers
    assert with_workers.endswith(without.removeprefix("mvf: "))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_video_with_nan_stops_the_run_which_goes_on_when_it_is_mended(tiny, tmp_path, own_cache):
    config = tiny(features="banked", epochs=4)
    mvf.train(config, tmp_path / "reference")
    victims = sorted(own_cache.rglob("view?.layer02"))[:2]  # both views of a video
    good, seen = [victim.read_bytes() for victim in victims], []

    def spoil(row):
        seen.append({path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()})
        if row["epoch"] == 2:
            for victim, data in zip(victims, good):
                with open(victim, "r+b") as file:  # in place: the training has it mapped
                    file.write(np.full(len(data) // 2, 0x7FC0, np.uint16).tobytes())

    names = "|".join(record.name for record in mvf.data.find_config_videos(config, "train"))
    # batches are made ahead, so the first spoilt one may be of epoch 4
    wanted = rf"loss is nan at step [5-8] \(epoch [34]\), videos (({names})[, ]*)+; {tmp_path}/run keeps the last"
    with pytest.raises(FloatingPointError, match=wanted):
        mvf.train(config, tmp_path / "run", on_epoch=spoil)
    left = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    assert len(seen) in (2, 3) and left == {
        name: data for name, data in seen[-1].items() if not name.startswith(".lock")
    }
    for victim, data in zip(victims, good):
        victim.write_bytes(data)
    mvf.train(config, tmp_path / "run")
    assert_same(tmp_path / "reference", tmp_path / "run")


def test_a_gradient_that_is_not_finite_changes_no_weight(tiny, tmp_path, monkeypatch):
    mvf.train(tiny(epochs=2), tmp_path / "reference")
    real, norms = Accelerator.clip_grad_norm_, []

    def overflow(self, parameters, limit):
        norms.append(real(self, parameters, limit))
        return norms[-1] * (float("inf") if len(norms) == 4 else 1)  # the last step of the last epoch

    monkeypatch.setattr(Accelerator, "clip_grad_norm_", overflow)
    with pytest.raises(FloatingPointError, match=r"the gradient norm is inf at step 4 \(epoch 2\), videos"):
        mvf.train(tiny(epochs=2), tmp_path / "run")
    monkeypatch.undo()
    assert len(mvf.train(tiny(epochs=2), tmp_path / "run").history) == 2
    assert_same(tmp_path / "reference", tmp_path / "run")
