"""Embeddings on disk are never another model's or another video's, whatever was killed, copied or deleted between."""

import copy
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

import mvf
from bench.warped import warped
from mvf import chunks, embedding
from mvf.chunks import Chunking, EmbeddingFile, EmbeddingFolder
from mvf.embedding import embed_to_file, fingerprint
from mvf.files import clear_leftovers
from mvf.models.backbone import Backbone
from mvf.models.mvformer import ModelPerAction, MVFormer
from mvf.workbench.notebook.session import Session, stored_or_new_report
from tests.conftest import TINY

CHUNKING = Chunking(16)
OTHERS = [
    {"positions": "none"},
    {"num_frames": 64},
    {"readout": "mean"},
    {"entity_competition": True},
    {"token_merge": 0.5},
    {"image_size": 64},
    {"layers": "4,2"},
]


@pytest.fixture(scope="module")
def records():
    """Two videos of 20 frames, two chunks."""
    found = mvf.data.find_videos("synthetic", split="val", **TINY["data_options"])[:2]
    return [replace(warped(record, np.arange(20)), name=record.name) for record in found]


@cache
def build(seed=0, **changes):
    torch.manual_seed(seed)
    return mvf.build_model(mvf.load_config("synthetic", **{**TINY, **changes})).eval()


def embed(model, records, out=None):
    return [v.embeddings for v in mvf.embed(model, records, out=out, chunk=CHUNKING.chunk, precision="fp32")]


def assert_equal(found, wanted):
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("changes", OTHERS, ids=lambda changes: "-".join(changes))
def test_two_models_of_the_same_weights_are_told_apart(changes, records, tmp_path):
    model, other = build(), build(**changes)
    other.load_trained_state(model.trained_state())
    (wanted,), (found,) = embed(model, records[:1], tmp_path), embed(other, records[:1])
    assert not np.array_equal(wanted, found), "the change changes nothing, so nothing is tested"
    assert fingerprint(model) != fingerprint(other)
    with pytest.raises(ValueError, match="another model"):
        embed(other, records[:1], tmp_path)


def test_a_model_for_each_action_is_told_apart_by_every_part_of_it():
    first, other = build(), build(readout="mean")
    other.load_trained_state(first.trained_state())
    models = [first, *(ModelPerAction({"squat": first, "jump": second}) for second in (copy.deepcopy(first), other))]
    assert len({fingerprint(model) for model in models}) == 3


def test_a_model_is_the_same_after_saving_loading_and_moving_its_backbone(tmp_path):
    torch.save(Backbone(TINY["backbone"], "random", 32, (2, 4)).model.state_dict(), tmp_path / "w.pth")
    model = build(backbone_weights=str(tmp_path / "w.pth"))
    model.save_pretrained(tmp_path / "saved")
    assert fingerprint(MVFormer.from_pretrained(tmp_path / "saved")) == fingerprint(model)
    moved = shutil.move(tmp_path / "w.pth", tmp_path / "moved.pth")
    assert fingerprint(MVFormer.from_pretrained(tmp_path / "saved", backbone_weights=moved)) == fingerprint(model)


def test_the_report_of_another_model_with_the_same_weights_is_not_shown(tmp_path, monkeypatch):
    monkeypatch.setattr(
        "mvf.workbench.notebook.session.evaluate", lambda *args, **kwargs: {"scores": {}, "of": "nobody"}
    )
    monkeypatch.setattr("mvf.workbench.notebook.session._cost", lambda *args: {})
    splits = mvf.workbench.notebook.session.Splits([], [], [], [], None)
    config = mvf.load_config("synthetic", **TINY)
    session, other = (Session(tmp_path / "w.pth", build(**k), config, tmp_path) for k in ({}, {"positions": "none"}))
    assert stored_or_new_report(session, splits)["of"] == "nobody"
    monkeypatch.setattr(
        "mvf.workbench.notebook.session.evaluate", lambda *args, **kwargs: {"scores": {}, "of": "the other"}
    )
    assert stored_or_new_report(session, splits)["of"] == "nobody", "it is stored"
    assert stored_or_new_report(other, splits)["of"] == "the other"


def test_videos_of_one_name_are_both_kept_and_both_gone_on_with(records, tmp_path, monkeypatch, caplog):
    videos = [records[0], replace(records[1], name=records[0].name)]
    wanted = embed(build(), videos)
    assert not np.array_equal(*wanted)
    assert_equal(embed(build(), videos, tmp_path), wanted)
    assert len(list(tmp_path.glob("*.npy"))) == 2
    monkeypatch.setattr(EmbeddingFile, "append", None)  # nothing is embedded again
    assert_equal(embed(build(), videos, tmp_path), wanted)
    assert not caplog.text


@pytest.mark.parametrize("finished", [True, False])
def test_without_the_folders_note_embeddings_of_another_model_are_not_used(records, tmp_path, monkeypatch, finished):
    with monkeypatch.context() as patch:
        if not finished:
            stop_after_one_piece(patch)
        stopped(lambda: embed(build(), records[:1], tmp_path), not finished)
    assert len(list(tmp_path.glob("*.npy"))) == finished and len(list(tmp_path.glob(".*.part"))) == (not finished)
    (tmp_path / "made_by.json").unlink()
    other = build(seed=1)
    assert_equal(embed(other, records[:1], tmp_path), embed(other, records[:1]))


def test_pieces_of_another_model_under_the_note_of_the_first_are_not_used(records, tmp_path, monkeypatch):
    """A model is killed after its first piece, another between writing its first piece and noting it."""
    model, other = build(), build(seed=1)
    with monkeypatch.context() as patch:
        stop_after_one_piece(patch)
        stopped(lambda: embed(model, records[:1], tmp_path))
    (tmp_path / "made_by.json").unlink()
    with monkeypatch.context() as patch:
        patch.setattr("mvf.chunks.os.fsync", interrupted)
        stopped(lambda: embed(other, records[:1], tmp_path))
    (tmp_path / "made_by.json").unlink()
    assert_equal(embed(model, records[:1], tmp_path), embed(model, records[:1]))


def test_of_two_models_that_start_in_one_new_folder_the_second_is_refused(tmp_path, monkeypatch):
    """The second starts when the first has found no note of another and is about to write its own."""
    atomic, seconds = chunks.atomic, []

    @contextmanager
    def slow(path):
        monkeypatch.setattr(chunks, "atomic", atomic)
        seconds.append(pool.submit(EmbeddingFolder, tmp_path, "second", CHUNKING))
        wait(seconds, timeout=0.5)
        with atomic(path) as temporary:
            yield temporary

    monkeypatch.setattr(chunks, "atomic", slow)
    with ThreadPoolExecutor(1) as pool:
        EmbeddingFolder(tmp_path, "first", CHUNKING)
    with pytest.raises(ValueError, match="another model"):
        seconds[0].result()


def test_a_kill_while_parts_are_deleted_leaves_nothing_for_another_model(records, tmp_path, monkeypatch):
    out, parts = tmp_path / "e.npz", tmp_path / "e.npz.parts"
    with monkeypatch.context() as patch:
        patch.setattr(embedding.shutil, "rmtree", lambda path, **_: interrupted() if path.exists() else None)
        stopped(lambda: embed_to_file(build(), records, out, CHUNKING, "fp32"))
    assert out.exists() and not parts.exists()
    (left,) = tmp_path.glob(".*.parts")
    left.rename(left.with_name(left.name.replace(f"-{os.getpid()}.", f"-{ended_process()}.")))
    clear_leftovers.cache_clear()  # as a new process
    other = build(seed=1)
    embed_to_file(other, records, out, CHUNKING, "fp32")
    with np.load(out) as found:
        assert_equal([found[r.name] for r in records], embed(other, records))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.npz", "e.npz.seams.csv"]


def ended_process():
    child = subprocess.Popen(["true"])
    child.wait()
    return child.pid


def interrupted(*_):
    raise KeyboardInterrupt


def stopped(call, really=True):
    if not really:
        call()
        return
    with pytest.raises(KeyboardInterrupt):
        call()


def stop_after_one_piece(patch):
    append = EmbeddingFile.append
    patch.setattr(EmbeddingFile, "append", lambda part, piece: interrupted() if part.frames else append(part, piece))
