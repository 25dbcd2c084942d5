"""Run folders: one process each, folders of newer versions, folders that cannot be written."""

import json
import os
import signal
import time
from dataclasses import replace

import pytest
import torch

import mvf
from mvf.config import FORMAT
from mvf.files import HOLDER, LOCK, held
from mvf.training.run import load_run, read_state
from tests.faults.processes import CONTEXT


def hold(folder, ready):
    with held(folder):
        ready.set()
        time.sleep(60)


@pytest.fixture
def holder(tmp_path):
    """Another process that holds `tmp_path / "run"`."""
    ready = CONTEXT.Event()
    child = CONTEXT.Process(target=hold, args=(tmp_path / "run", ready))
    child.start()
    assert ready.wait(60)
    yield child
    child.kill()
    child.join()


def test_a_second_training_in_a_folder_is_refused_and_names_the_first(tiny, tmp_path, holder):
    with pytest.raises(OSError, match=rf"run is being trained by process {holder.pid} on .*: wait until it ends"):
        mvf.train(tiny(), tmp_path / "run")
    assert {path.name for path in (tmp_path / "run").iterdir()} == {LOCK, HOLDER}


def test_a_folder_held_by_another_is_read_freely(tiny, tmp_path):
    config = tiny(epochs=1)
    mvf.train(config, tmp_path / "run")
    with held(tmp_path / "run"):
        assert len(load_run(tmp_path / "run").history) == 1


def test_the_lock_of_a_killed_process_holds_nothing(tiny, tmp_path, holder):
    os.kill(holder.pid, signal.SIGKILL)
    holder.join()
    assert (tmp_path / "run" / LOCK).exists()
    mvf.train(tiny(epochs=1), tmp_path / "run")
    assert not (tmp_path / "run" / LOCK).exists()


def test_a_folder_is_free_again_after_a_training_that_failed(tiny, tmp_path):
    with pytest.raises(ZeroDivisionError):
        mvf.train(tiny(), tmp_path / "run", on_epoch=lambda row: 1 / 0)
    assert not (tmp_path / "run" / LOCK).exists()
    assert len(mvf.train(tiny(), tmp_path / "run").history) == 2


# versions -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def finished(tiny, tmp_path):
    mvf.train(tiny(epochs=1), tmp_path / "run")
    return tmp_path / "run"


def rewrite(folder, **changes):
    stored = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in stored.items() if v is not None}))


def test_a_folder_from_before_formats_were_numbered_opens_and_goes_on(tiny, finished):
    assert json.loads((finished / "config.json").read_text())["format"] == FORMAT
    rewrite(finished, format=None)
    state = read_state(finished / "state.pt")
    assert state.pop("format") == FORMAT
    torch.save(state, finished / "state.pt")
    assert load_run(finished).config == replace(tiny(epochs=1), engine="torch")  # as it was resolved
    assert len(mvf.train(tiny(epochs=1), finished).history) == 1


@pytest.mark.parametrize("version", [FORMAT + 1, "2027"])
def test_a_folder_of_a_newer_version_is_refused_with_both_versions(tiny, finished, version):
    rewrite(finished, format=version)
    before = {path.name: path.read_bytes() for path in finished.iterdir()}
    wanted = rf"run/config.json was written by a newer mvf: its format is '?{version}'?, .* up to {FORMAT}. Update mvf"
    for use in (lambda: load_run(finished), lambda: mvf.train(tiny(epochs=1), finished)):
        with pytest.raises(ValueError, match=wanted):
            use()
    assert before == {path.name: path.read_bytes() for path in finished.iterdir()}


def test_a_state_of_a_newer_version_is_refused(tiny, finished):
    torch.save(read_state(finished / "state.pt") | {"format": FORMAT + 1}, finished / "state.pt")
    with pytest.raises(ValueError, match=r"state.pt was written by a newer mvf"):
        mvf.train(tiny(epochs=1), finished)


def test_a_setting_that_this_version_lacks_is_refused_by_name(finished):
    rewrite(finished, quantum_pooling=True)
    with pytest.raises(ValueError, match=r"run/config.json \(format 1, this mvf writes 1\).*unknown.*quantum_pooling"):
        load_run(finished)


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"epochs": ', "\x00"])
def test_a_config_that_is_no_json_object_is_named(finished, text):
    (finished / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"run/config.json is not a JSON file of settings"):
        load_run(finished)


# folders that cannot be written -------------------------------------------------------------------------------------


def train_as_nobody(config, folder, said):
    if os.getuid() == 0:  # whom no permission stops
        os.setuid(65534)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mvf.training.Trainer", None)  # nothing may be computed before the refusal
        try:
            mvf.train(config, folder)
        except OSError as error:
            said.put(f"{type(error).__name__}: {error}")


def test_a_read_only_folder_is_refused_before_anything_is_computed(tiny, tmp_path):
    (tmp_path / "run").mkdir(mode=0o555)
    if os.getuid() == 0:
        for folder in (tmp_path, *tmp_path.parents[:3]):
            folder.chmod(folder.stat().st_mode | 0o011)
    said = CONTEXT.Queue()
    child = CONTEXT.Process(target=train_as_nobody, args=(tiny(), tmp_path / "run", said))
    child.start()
    message = said.get(timeout=120)
    child.join()
    assert message.startswith("PermissionError: cannot write") and "run: " not in message
    assert "give write permission to" in message and str(tmp_path / "run") in message


def test_a_file_where_the_folder_is_wanted_is_refused(tiny, tmp_path):
    (tmp_path / "run").write_text("thesis")
    with pytest.raises(NotADirectoryError, match=r"run is a file, not a folder"):
        mvf.train(tiny(), tmp_path / "run")
    assert (tmp_path / "run").read_text() == "thesis"
