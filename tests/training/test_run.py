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
from mvf.data import find_config_videos
from mvf.files import HOLDER, LOCK, held
from mvf.training.run import CLIPS, kept_sides, load_run, read_state
from tests.conftest import TINY
from tests.data.footage import write_video
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


# clips that change after training ------------------------------------------------------------------------------------


@pytest.fixture
def clips(tmp_path):
    for i in range(6):
        write_video(tmp_path / "clips" / f"c{i}.mp4", 10 + i)
    return tmp_path / "clips"


@pytest.fixture
def own(clips, tmp_path):
    """Trains a run on the clips; settings replace those of the run."""
    settings = {name: value for name, value in TINY.items() if name != "data_options"} | {"features": "online"}

    def train(**more):
        config = mvf.load_config("folder", **{**settings, "epochs": 1, "data_root": str(clips), **more})
        return mvf.train(config, tmp_path / "run")

    return train


def weights(run):
    return (run.folder / "model.safetensors").read_bytes()


def test_a_run_whose_clips_changed_is_refused_by_name_or_goes_on_or_starts_anew(own, clips, caplog):
    first = weights(own())
    assert weights(own()) == first and not caplog.records
    write_video(clips / "b.mp4", 12)
    (clips / "c0.mp4").unlink()
    with pytest.raises(ValueError, match=r"1 clip added \(b\); 1 clip removed \(c0\).*on_change=continue"):
        own()
    run = own(on_change="continue")
    assert weights(run) == first and "1 clip added (b)" in caplog.text
    assert own().history == run.history, "it is not said twice"
    write_video(clips / "d.mp4", 14)
    assert weights(own(on_change="restart")) != first
    assert own().config.on_change == "refuse"


def test_labels_and_validation_clips_do_not_matter_to_training_but_are_said(own, clips, caplog):
    first = weights(own())
    rows = "".join(f"c{i}.mp4,{'val' if i == 4 else 'train'},video,0;4\n" for i in range(6))
    (clips / "videos.csv").write_text("path,split,action,phases\n" + rows)
    assert weights(own()) == first and "labels of 6 clips changed" in caplog.text
    caplog.clear()
    write_video(clips / "e.mp4", 12)
    (clips / "videos.csv").write_text("path,split,action,phases\n" + rows + "e.mp4,val,video,0;3\n")
    assert weights(own()) == first and "1 clip added (e)" in caplog.text


def test_labels_that_the_objective_reads_do_matter(own, clips):
    def label(start):
        rows = "".join(f"c{i}.mp4,{'val' if i == 4 else 'train'},video,0;{start}\n" for i in range(6))
        (clips / "videos.csv").write_text("path,split,action,phases\n" + rows)

    label(4)
    own(objective="vsp_p")
    label(5)
    with pytest.raises(ValueError, match="labels of 6 clips changed"):
        own(objective="vsp_p")


def test_clips_stay_on_their_side_when_others_come(own, clips):
    run = own()
    assert [r.name for r in find_config_videos(run.config, "val")] == ["c4"]
    for name in "ab":
        write_video(clips / f"{name}.mp4", 9)
    assert [r.name for r in find_config_videos(run.config, "val")] == ["c2"]
    kept = kept_sides(run.folder, run.config)
    assert [r.name for r in find_config_videos(run.config, "val", sides=kept)] == ["c4"]
    assert kept_sides(run.folder, replace(run.config, data_root=str(clips.parent))) == {}


def test_a_run_from_before_clips_were_listed_opens_and_returns(own, clips):
    run = own()
    (run.folder / CLIPS).unlink()
    write_video(clips / "z.mp4", 9)
    assert weights(own()) == weights(run) and not (run.folder / CLIPS).exists()


def test_a_damaged_list_of_clips_is_named(own):
    (own().folder / CLIPS).write_text("[1")
    with pytest.raises(ValueError, match="clips.json is damaged"):
        own()


def test_no_training_video_is_said(own, clips):
    (clips / "videos.csv").write_text("path,split\nc0.mp4,val\n")
    with pytest.raises(ValueError, match="folder has no training videos"):
        own()
