import csv
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

import mvf
from mvf import embedding
from mvf.__main__ import main
from mvf.bank import FeatureBank
from mvf.data.records import VideoRecord
from mvf.data.video import VideoFile
from mvf.evaluation import read_report
from tests.conftest import TINY
from tests.data.footage import write_video


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    config = mvf.load_config("synthetic", **TINY)
    return mvf.train(config, tmp_path_factory.mktemp("run") / "run")


def test_evaluate_a_run_writes_its_report(run, capsys):
    assert main(["evaluate", str(run.folder)]) == 0
    report = json.loads((run.folder / "metrics.json").read_text())
    assert report["dataset"] == "synthetic" and "cropped" in report
    assert read_report(run.folder / "metrics.json")["cost"]["seconds_per_epoch"] > 0
    out = capsys.readouterr().out
    assert "cropped.classification" in out and f"report {run.folder / 'metrics.json'}" in out
    assert main(["report", str(run.folder)]) == 0
    assert "cropped.classification" in capsys.readouterr().out


@pytest.fixture
def clips(tmp_path):
    """A folder of three numbered-image videos."""
    import cv2

    for name in ("a", "b", "c"):
        (tmp_path / "clips" / name).mkdir(parents=True)
        for t in range(5):
            picture = np.full((40, 48, 3), 40 * t, np.uint8)
            cv2.imwrite(str(tmp_path / "clips" / name / f"{t:04d}.png"), picture)
    return tmp_path / "clips"


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_embed_writes_every_frame_of_every_video(run, clips, tmp_path, suffix):
    out = tmp_path / f"embeddings{suffix}"
    assert main(["embed", str(run.folder), str(clips), "--out", str(out)]) == 0
    if suffix == ".npz":
        stored = np.load(out)
        assert {name: stored[name].shape for name in stored} == dict.fromkeys("abc", (5, 8))
    else:
        with open(out) as file:
            rows = list(csv.reader(file))
        assert len(rows) == 1 + 15 and rows[1][:2] == ["a", "0"]


@pytest.mark.parametrize("suffix", [".npz", ".csv"])
def test_embed_in_chunks_writes_what_the_package_gives(run, clips, tmp_path, suffix):
    out = tmp_path / f"embeddings{suffix}"
    chunks = ["--chunk", "3", "--overlap", "2", "--fade", "--one-clock"]
    assert main(["embed", str(run.folder), str(clips), "--out", str(out), *chunks]) == 0
    records = [r for split in ("train", "val") for r in mvf.data.find_videos("folder", split, clips)]
    wanted = mvf.embed(run.model, records, chunk=3, overlap=2, fade=True, one_clock=True, precision="fp32")
    if suffix == ".npz":
        found = np.load(out)
        for video in wanted:
            np.testing.assert_array_equal(found[video.name], video.embeddings)
    else:
        with open(out) as file:
            rows = list(csv.reader(file))[1:]
        np.testing.assert_array_equal(
            np.array([row[2:] for row in rows], np.float32), np.concatenate([video.embeddings for video in wanted])
        )
        assert [row[1] for row in rows] == [*"01234"] * 3
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith("emb")} == {
        out.name,
        f"{out.name}.seams.csv",
    }
    with open(f"{out}.seams.csv") as file:
        seams = list(csv.reader(file))
    assert [row[0] for row in seams] == ["name", *"aabbcc"], "the seams of every video are kept beside"


def test_embed_goes_on_where_it_was_stopped(run, clips, tmp_path, monkeypatch, capsys):
    command = ["embed", str(run.folder), str(clips), "--out", str(tmp_path / "e.npz")]

    def full(*args):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(embedding, "write_embeddings", full)
        assert main(command) == 1
    assert len(list((tmp_path / "e.npz.parts").glob("*.npy"))) == 3
    assert main([*command, "--chunk", "2"]) == 1 and "another model or chunking" in capsys.readouterr().err
    monkeypatch.setattr(embedding, "embed_chunks", full)  # nothing is embedded again
    assert main(command) == 0
    assert set(np.load(tmp_path / "e.npz")) == set("abc") and not (tmp_path / "e.npz.parts").exists()


def test_the_referee_scores_anyones_embeddings_like_our_own(run, tmp_path, capsys):
    splits = {split: mvf.data.find_config_videos(run.config, split) for split in ("train", "val")}
    embedded = {split: mvf.embed(run.model, records) for split, records in splits.items()}
    arrays = {f"{split}/{v.name}": v.embeddings for split, videos in embedded.items() for v in videos}
    np.savez(tmp_path / "embeddings.npz", **arrays)
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["name", "split", "action", "frame", "phase"])
        for split, videos in embedded.items():
            for v in videos:
                writer.writerows([f"{split}/{v.name}", split, v.action, t, p] for t, p in enumerate(v.phases))
    command = ["evaluate", str(tmp_path / "embeddings.npz"), str(tmp_path / "labels.csv"), "-p", "num_frames", "8"]
    assert main(command) == 0
    theirs = json.loads((tmp_path / "embeddings.metrics.json").read_text())
    ours = mvf.evaluate(embedded["train"], embedded["val"], run.config)
    assert theirs["scores"] == pytest.approx(ours["scores"])
    assert "cropped" in theirs["skipped"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "syntetic"], 'did you mean "synthetic"'),
        (["evaluate", "nowhere"], "is not a run folder"),
        (["train", "synthetic", "-p", "entitys", "3"], 'did you mean "entities"'),
        (["train", "synthetic", "-p", "objective", "sclx", "-p", "backbone_weights", "random"], 'did you mean "scl"'),
        (["check", "folder", "--data-root", "/nowhere/at/all"], "videos.csv"),
    ],
)
def test_mistakes_are_one_clear_line_and_exit_status_1(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if arguments[0] == "train":
        arguments = [*arguments, "--run-dir", str(tmp_path / "run")]
    assert main(arguments) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(("arguments", "status", "message"), [
    (["trian"], 2, 'unknown command "trian"; did you mean "train"?'),
    (["--version"], 0, f"mvf {mvf.__version__}"),
    (["train", "--help"], 0, "usage: mvf train"),
    ([], 2, "usage: mvf"),
])  # fmt: skip
def test_help_and_misspelt_commands_end_at_once(arguments, status, message, capsys):
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == status and message in "".join(capsys.readouterr())


def test_check_says_what_was_found(clips, capsys):
    assert main(["check", "folder", "--data-root", str(clips)]) == 0
    assert "train: 2 of 2 videos, 0 with phases" in capsys.readouterr().out


def test_a_folder_whose_only_val_video_is_damaged_still_gets_a_report(clips, run, tmp_path):
    (clips / "d.mp4").write_bytes(b"")
    rows = [f"{path.name},{'val' if path.stem == 'd' else 'train'}\n" for path in sorted(clips.iterdir())]
    (clips / "videos.csv").write_text("path,split\n" + "".join(rows))
    words = [w for k, v in TINY.items() if k != "data_options" for w in ("-p", k, str(v))]
    command = ["train", "folder", "--run-dir", str(tmp_path / "r"), "-p", "data_root", str(clips), *words]
    assert main([*command, "-p", "epochs", "1", "-p", "batch_size", "3"]) == 0
    report = json.loads((tmp_path / "r" / "metrics.json").read_text())
    assert report["scores"] == {} and "0 for validation" in report["skipped"]["classification"]
    assert "d" in str(report["coverage"]["val"]["unreadable"])


def test_a_report_of_other_data_is_not_taken_for_the_runs_own(run, capsys):
    assert main(["evaluate", str(run.folder)]) == 0
    own = (run.folder / "metrics.json").read_bytes()
    assert main(["evaluate", str(run.folder), "-p", "data_seed", "3"]) == 0
    assert (run.folder / "metrics.json").read_bytes() == own


def test_settings_of_a_trained_model_and_of_named_videos_are_refused(run, clips, tmp_path, capsys):
    out = ["--out", str(tmp_path / "e.npz")]
    for words, message in (
        (
            ["embed", str(run.folder), str(clips), *out, "-p", "motion_skip", "0"],
            "motion_skip belongs to a trained model",
        ),
        (["embed", str(run.folder), str(clips), *out, "-p", "data_root", "x"], "the videos are those that the command"),
        (["evaluate", str(run.folder), "-p", "source", "x"], 'unknown setting "source"'),
        (["train", "demo", "-p", "preset", "penn"], 'name "penn" in place of "demo"'),
        (["train", str(clips)], 'for its clips: the preset "folder" with data_root'),
        (["repetitions", str(run.folder), str(clips.parent)], "is a folder of 3 videos: name one of them"),
    ):
        assert main(words) == 1
        assert message in capsys.readouterr().err
    assert not (tmp_path / "e.npz").exists()
    assert main(["check", "folder", "-p", "data_root", str(clips)]) == 0
    assert "train: 2 of 2 videos" in capsys.readouterr().out


def test_a_setting_given_as_an_option_is_recognised(capsys):
    with pytest.raises(SystemExit):
        main(["train", "demo", "--epochs", "3"])
    assert "epochs is a setting: -p epochs VALUE" in capsys.readouterr().err


def test_interrupted_commands_say_what_is_kept(capsys, monkeypatch):
    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("mvf.training.train", interrupt)
    assert main(["train", "demo"]) == 130
    assert "the same command goes on" in capsys.readouterr().err
    monkeypatch.setattr("mvf.__main__.stored_presets", interrupt)
    assert main(["presets"]) == 130
    assert "nothing is kept" in capsys.readouterr().err


def test_a_reader_that_closes_the_pipe_is_no_error():
    child = subprocess.Popen(
        [sys.executable, "-m", "mvf", "fields"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    child.stdout.close()
    assert child.stderr.read() == "" and child.wait() == 0


def test_env_says_what_computes_and_what_was_measured(capsys, monkeypatch):
    from mvf.models import engine

    monkeypatch.delenv("MVF_ENGINE", raising=False)
    monkeypatch.delenv("MVF_PRECISION", raising=False)
    monkeypatch.setattr("mvf.device.resolve_device", lambda: torch.device("cpu"))
    rates = {engine.Compute("torch", "fp32"): 0.05, engine.Compute("openvino", "fp32"): 0.02}
    monkeypatch.setattr(engine, "measured_rates", lambda: rates)
    assert main(["env"]) == 0
    said = capsys.readouterr().out
    assert "device cpu: engine openvino, precision fp32" in said and "torch fp32: 50.0 ms" in said
    assert str(mvf.__version__) in said and "rates-" in said


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_names_are_printed_on_terminals_that_lack_their_letters(tmp_path, encoding):
    write_video(tmp_path / "\U0001f600 squat.mp4", 8)
    (tmp_path / "ключ.mp4").write_bytes(b"damaged")
    command = [sys.executable, "-m", "mvf", "check", "folder", "--data-root", str(tmp_path)]
    environment = {**os.environ, "PYTHONIOENCODING": encoding, "PYTHONUTF8": "0"}
    done = subprocess.run(command, capture_output=True, env=environment)
    shown = "ключ" if encoding == "utf-8" else r"\u043a\u043b\u044e\u0447"
    assert done.returncode == 0 and f"left out {shown}: cannot read" in done.stdout.decode(encoding)


def test_embed_takes_one_file(run, tmp_path, capsys):
    write_video(tmp_path / "one.mp4", 9)
    (tmp_path / "other.mp4").write_bytes(b"damaged")
    assert main(["embed", str(run.folder), str(tmp_path / "one.mp4"), "--out", str(tmp_path / "e.npz")]) == 0
    assert "1 video -> " in capsys.readouterr().out
    (name, array), *others = np.load(tmp_path / "e.npz").items()
    assert (name, len(array), others) == ("one", 9, [])


def test_without_a_bank_nothing_is_read_from_one_and_none_is_made(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    report = ["evaluate", str(run.folder), "--out", str(tmp_path / "report.json"), "-p", "localization", "false"]
    assert main([*report, "--no-bank"]) == 0
    assert (tmp_path / "report.json").exists() and not (tmp_path / "cache" / "banks").exists()
    write_video(tmp_path / "one.mp4", 9)
    record = VideoRecord("one", "", VideoFile(tmp_path / "one.mp4"))
    FeatureBank(run.model.backbone, None, run.config.precision).ensure([record])
    for options in ([], ["--no-bank"]):
        out = tmp_path / f"e{len(options)}.npz"
        assert main(["embed", str(run.folder), str(tmp_path / "one.mp4"), "--out", str(out), *options]) == 0
        (wanted,) = mvf.embed(run.model, [record], precision=run.config.precision, bank=not options)
        np.testing.assert_array_equal(np.load(out)["one"], wanted.embeddings)
    assert not np.array_equal(*(np.load(tmp_path / f"e{i}.npz")["one"] for i in (0, 1)))


@pytest.mark.parametrize(
    ("out", "message"),
    [
        ("e.txt", "must end in .npz or .csv"),
        ("file/e.npz", "is a file, not a folder"),
        ("folder.npz", "it is a folder; name a file in it"),
    ],
)
def test_embed_looks_at_its_output_first(run, tmp_path, out, message, capsys, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "folder.npz").mkdir()
    write_video(tmp_path / "one.mp4", 9)
    monkeypatch.setattr(embedding, "embed", lambda *_, **__: pytest.fail("embedded first"))
    assert main(["embed", str(run.folder), str(tmp_path / "one.mp4"), "--out", str(tmp_path / out)]) == 1
    assert message in capsys.readouterr().err


def test_runs_are_listed_with_data_and_scores(run, tmp_path, capsys):
    shutil.copytree(run.folder, tmp_path / "a" / "good")
    scores = {"cropped": {"model": {"classification": 0.5, "retrieval@5": 0.25}}}
    (tmp_path / "a" / "good" / "metrics.json").write_text(json.dumps(scores))
    shutil.copytree(run.folder, tmp_path / "bare", ignore=shutil.ignore_patterns("metrics*"))
    shutil.copytree(run.folder, tmp_path / "bad")
    (tmp_path / "bad" / "config.json").write_text("{")
    assert main(["runs", str(tmp_path)]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert "synthetic 0, synthetic, scl, seed 1  cropped classification 0.500, retrieval@5 0.250" in lines["a/good"]
    assert "no report yet" in lines["bare"] and "damaged (" in lines["bad"]
    assert main(["runs", str(tmp_path / "gone")]) == 1 and "is not a folder" in capsys.readouterr().err


def test_presets_and_settings_are_listed(capsys):
    assert main(["presets"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(mvf.config.presets()) and any(
        line.startswith("demo (extends synthetic): ") for line in lines
    )
    assert main(["fields", "folder"]) == 0
    shown = capsys.readouterr().out
    assert "* motion_skip = 1.0  # its weight" in shown and "  clip_norm = 10.0\n" in shown


def test_objects_are_shown_in_one_short_line_and_settings_as_what_differs(run, tiny):
    record = mvf.data.find_config_videos(run.config, "val")[0]
    (video,) = mvf.embed(run.model, [record])
    bank = FeatureBank(run.model.backbone, None, "fp32")
    shown = {type(one).__name__: repr(one) for one in (run, run.model, run.model.backbone, record, video, bank)}
    assert all("\n" not in text and " object at 0x" not in text and len(text) < 250 for text in shown.values())
    assert f"{record.num_frames} frames" in shown["VideoRecord"] and f"{record.num_frames} frames" in repr([video])
    assert "3 entities; 1 block of 16 channels; 8 numbers a frame" in shown["MVFormer"]
    assert "layers 2, 4 of 12, frozen" in shown["Backbone"] and "2 of 2 epochs, loss " in shown["Run"]
    assert repr(mvf.load_config("demo", epochs=2, layers="4,8")) == "load_config('demo', layers=(4, 8), epochs=2)"
    for config in (tiny(), run.config, mvf.load_config("penn_tcc", "demo")):
        assert eval(repr(config), {"load_config": mvf.load_config}) == config
    page = run._repr_html_() + run.model._repr_html_() + mvf.load_config("demo", epochs=2)._repr_html_()
    assert "preset demo, with" in page and "Run(" not in page and "&#x27;" in page and "tensor(" not in page
