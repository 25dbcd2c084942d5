"""Workers that die and numbers that are not finite: the last complete epoch stays, and the run goes on from it."""

import numpy as np
import pytest
from accelerate import Accelerator

import mvf
from mvf.data.dataset import VideoDataset
from mvf.run_folder import read_history
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

    monkeypatch.setattr("mvf.loading.DataLoader", loader)
    with pytest.raises(ChildProcessError, match="a worker that reads data died .*pid unknown.*use fewer workers"):
        mvf.train(tiny(features="online", workers=1), tmp_path / "run")


@pytest.mark.parametrize("error", [RuntimeError, ConnectionError, EOFError])
def test_an_error_in_a_worker_that_lives_keeps_its_own_text(tiny, tmp_path, monkeypatch, error):
    def fail(self, item):
        raise error("the decoder has no buffer left")

    monkeypatch.setattr(VideoDataset, "__getitem__", fail)
    with pytest.raises(error, match="the decoder has no buffer left"):
        mvf.train(tiny(features="online", workers=1), tmp_path / "run")


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
    assert len(seen) in (2, 3) and left == {name: data for name, data in seen[-1].items() if name != ".lock"}
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
