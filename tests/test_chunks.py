"""Long videos in chunks: bounded memory, boundaries, resuming to the bit, and files that are never another model's."""

import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

import mvf
from bench.warped import warped
from mvf import chunks, embedding
from mvf.chunks import (
    Chunking,
    EmbeddingFile,
    EmbeddingFolder,
    FusedChunk,
    boundary_changes,
    chunk_bounds,
    chunks_from,
    fuse_chunks,
)
from mvf.embedding import embed_chunks, embed_to_file, fingerprint
from mvf.files import clear_leftovers
from mvf.models.backbone import Backbone
from mvf.models.mvformer import ModelPerAction, MVFormer
from mvf.workbench.notebook.session import Session, stored_or_new_report
from tests.conftest import TINY

ROOT = Path(__file__).resolve().parents[1]
FADE = {"chunk": 40, "overlap": 20, "fade": True}


@pytest.fixture
def session(tiny):
    """A model and a video of 150 frames that runs back and forth."""
    torch.manual_seed(0)
    record = mvf.data.find_config_videos(tiny(), "val")[0]
    frames = np.abs((np.arange(150) + 20) % 60 - 30)
    return mvf.build_model(tiny()).eval(), warped(record, frames)


class Clock(torch.nn.Module):
    """Embeds a frame as its number in the chunk on a circle: what the fusion's positions do, without anything else."""

    def fuse_tokens(self, tokens, project=False, place=None):
        first, total = place or (0, tokens.shape[1])
        angle = torch.linspace(0, 1.0, total)[first : first + tokens.shape[1]]
        return type("Output", (), {"embeddings": torch.stack([angle.cos(), angle.sin()], -1)[None]})


def joined(pieces):
    return np.concatenate([piece.embeddings for piece in pieces])


@pytest.mark.parametrize("chunking", [Chunking(40), Chunking(40, 10), Chunking(**FADE), Chunking(40, 30, True, True)])
def test_a_stream_goes_on_from_any_piece_to_the_same_bits(session, chunking):
    pieces = list(embed_chunks(*session, chunking, precision="fp32"))
    assert [p.start for p in pieces] == [0, *(p.stop for p in pieces[:-1])] and pieces[-1].stop == 150
    for index in {1, len(pieces) // 2, len(pieces) - 1}:
        piece = pieces[index]
        rest = list(embed_chunks(*session, chunking, precision="fp32", start=piece.start))
        np.testing.assert_array_equal(joined(rest), joined(pieces[index:]))
        np.testing.assert_array_equal([p.disagreement for p in rest], [p.disagreement for p in pieces[index:]])


def test_a_fade_is_the_linear_cross_fade_of_the_two_chunks(session):
    model, record = session
    tokens = torch.randn(60, 3, 16)
    with torch.no_grad():
        first, last = (model.fuse_tokens(t[None]).embeddings[0].numpy() for t in (tokens[:40], tokens[20:]))
    found = joined(fuse_chunks(model, iter([tokens]), 60, Chunking(**FADE)))
    share = np.arange(1, 21)[:, None] / 21
    mixed = (1 - share) * first[20:] + share * last[:20]
    wanted = np.concatenate([first[:20], mixed / np.linalg.norm(mixed, axis=1, keepdims=True), last[20:]])
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_with_overlap_all_chunks_have_one_length_and_without_it_the_last_is_what_remains():
    for length in range(41, 200):
        assert {stop - start for start, stop, *_ in chunk_bounds(length, 40, 15)} == {40}
        starts = [start for start, *_ in chunk_bounds(length, 40, 15)]
        assert all(0 < b - a <= 25 for a, b in zip(starts, starts[1:]))
    assert [b[:2] for b in chunk_bounds(90, 40, 0)] == [(0, 40), (40, 80), (80, 90)]


def test_the_chunks_from_a_frame_on_are_all_that_show_it():
    bounds = chunk_bounds(200, 40, 30)
    for frame in range(200):
        assert [b for b in bounds if b[1] > frame] == bounds[chunks_from(bounds, frame) :]


def test_seams_of_a_clock_are_found_and_faded_away():
    length, tokens = 400, torch.zeros(400, 1, 1)
    seams = {}
    for chunking in (Chunking(100), Chunking(100, 50), Chunking(100, 50, True)):
        pieces = list(fuse_chunks(Clock(), iter(tokens.split(7)), length, chunking))
        seams[chunking] = boundary_changes(joined(pieces), chunking, [p.disagreement for p in pieces[1:]])
    cut, halves, faded = seams.values()
    step = 2 * np.sin(0.5 / 99)  # chord of one frame
    assert cut[0].jump == pytest.approx(2 * np.sin(0.5), rel=1e-4) and cut[0].ordinary == pytest.approx(step, rel=1e-3)
    assert np.isnan(cut[0].disagreement) and cut[0].frame == 100 and cut[0].shared == 0
    assert halves[0].disagreement == pytest.approx(2 * np.sin(0.25 * 100 / 99), rel=1e-3)
    assert halves[0].jump == pytest.approx(2 * np.sin(0.25 * 98 / 99), rel=2e-2)
    assert len(faded) == 6 and max(s.peak for s in faded) < 2.5 * step < 0.06 * halves[0].jump


def test_one_clock_leaves_nothing_of_the_seams_of_a_clock():
    for chunking in (Chunking(100, 0, False, True), Chunking(100, 50, True, True)):
        pieces = list(fuse_chunks(Clock(), iter(torch.zeros(400, 1, 1).split(7)), 400, chunking))
        for seam in boundary_changes(joined(pieces), chunking, [p.disagreement for p in pieces[1:]]):
            assert seam.peak == pytest.approx(2 * np.sin(0.5 / 399), rel=1e-2)
            assert seam.disagreement == (0 if chunking.overlap else pytest.approx(np.nan, nan_ok=True))


def test_with_one_clock_a_frame_has_the_time_of_the_whole_video(session):
    model, record = session
    with torch.no_grad():
        for weight in model.fusion.blocks.parameters():
            weight.zero_()  # then a frame is its token and its time alone
        whole = mvf.embed(model, [record], precision="fp32")[0].embeddings
        chunks = [mvf.embed(model, [record], precision="fp32", chunk=40, one_clock=o)[0].embeddings for o in (1, 0)]
    same = mvf.embed(model, [record], precision="fp32", one_clock=True)[0].embeddings  # in one chunk it is the clock
    np.testing.assert_array_equal(same, whole)
    np.testing.assert_allclose(chunks[0], whole, atol=1e-6)
    assert np.abs(chunks[1] - whole).max() > 0.1


def test_seams_that_are_no_seams_look_ordinary():
    track = np.cumsum(np.random.default_rng(0).normal(size=(1000, 4)), axis=0)
    for chunking in (Chunking(100), Chunking(100, 60, True)):
        found = boundary_changes(track, chunking)
        assert np.mean([s.jump / s.ordinary for s in found]) == pytest.approx(1, abs=0.2)
    assert boundary_changes(track, Chunking(1000)) == []


def test_memory_does_not_grow_with_the_video():
    """Python's and numpy's memory is traced; torch's lies outside, so the storage of its tokens is looked at."""
    held = []

    class Watched(Clock):
        def fuse_tokens(self, tokens, project=False, place=None):
            held.append(tokens.untyped_storage().nbytes())
            return type("Output", (), {"embeddings": torch.ones(1, tokens.shape[1], 128)})

    def peak(length):
        tracemalloc.start()
        for piece in fuse_chunks(Watched(), (torch.zeros(32, 3, 8) for _ in range(length // 32)), length, chunking):
            assert isinstance(piece, FusedChunk)
        return tracemalloc.get_traced_memory()[1], tracemalloc.stop()

    chunking = Chunking(256, 64, True)
    short, long = peak(1024)[0], peak(32768)[0]
    assert long < short + 1e6 and 32768 * 128 * 4 > 10 * 1e6
    assert max(held) <= (2 * 256 + 32) * 3 * 8 * 4


def test_a_call_that_fails_leaves_gradients_on_and_the_model_in_its_mode(session, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise MemoryError("no room for attention")

    model, record = session
    monkeypatch.setattr(model, "fuse_tokens", fail)
    with pytest.raises(MemoryError, match="room") as caught:  # which holds every frame, as a notebook's last error does
        mvf.embed(model.train(), [record], out=tmp_path / "out", **FADE)
    assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and model.training and caught.tb


def test_a_video_that_ends_early_is_named(session):
    model, _ = session
    with pytest.raises(ValueError, match="ended after 64 frames, 100 were counted"):
        list(fuse_chunks(model, iter([torch.zeros(64, 3, 16)]), 100, Chunking(80)))


@pytest.mark.parametrize(
    ("settings", "message"), [({"overlap": 40}, "overlap=40"), ({"chunk": 0}, "chunk=0"), ({"fade": True}, "fade")]
)
def test_a_chunking_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Chunking(**{"chunk": 40, **settings})


@pytest.mark.parametrize("settings", [{"chunk": 40}, FADE])
def test_what_is_written_chunk_by_chunk_is_what_is_given_at_once(session, tmp_path, settings):
    model, record = session
    direct = mvf.embed(model, [record], precision="fp32", **settings)[0].embeddings
    (video,) = mvf.embed(model, [record], out=tmp_path, precision="fp32", **settings)
    assert isinstance(video.embeddings, np.memmap) and video.embeddings.dtype == np.float32
    np.testing.assert_array_equal(video.embeddings, direct)
    (seams,) = tmp_path.glob("*.seams.csv")
    assert len(seams.read_text().splitlines()) == len(chunk_bounds(150, 40, settings.get("overlap", 0)))
    assert not [p for p in tmp_path.iterdir() if p.suffix == ".part" or "progress" in p.name]


class StoppedError(Exception):
    pass


def interrupt(monkeypatch, pieces):
    """Lets `pieces` pieces be noted, then writes half of one more and stops."""
    append = EmbeddingFile.append

    def once(part, piece):
        if part.frames and pieces == len(part.disagreement):
            with open(part.data, "ab") as file:
                file.write(b"half of a piece")
            raise StoppedError
        append(part, piece)

    monkeypatch.setattr(EmbeddingFile, "append", once)


def test_what_follows_the_noted_frames_is_written_over(session, tmp_path, monkeypatch):
    model, record = session
    direct = mvf.embed(model, [record], precision="fp32", **FADE)[0].embeddings
    with monkeypatch.context() as patch:
        interrupt(patch, 3)
        with pytest.raises(StoppedError):
            mvf.embed(model, [record], out=tmp_path, precision="fp32", **FADE)
    assert not list(tmp_path.glob("*.npy"))
    np.testing.assert_array_equal(
        mvf.embed(model, [record], out=tmp_path, precision="fp32", **FADE)[0].embeddings, direct
    )


def test_a_part_of_another_video_of_this_name_is_started_over(session, tmp_path, monkeypatch):
    model, record = session
    other = replace(warped(record, np.arange(150)[::-1]), name=record.name)
    with monkeypatch.context() as patch:
        interrupt(patch, 2)
        with pytest.raises(StoppedError):
            mvf.embed(model, [other], out=tmp_path, precision="fp32", **FADE)
    direct = mvf.embed(model, [record], precision="fp32", **FADE)[0].embeddings
    np.testing.assert_array_equal(
        mvf.embed(model, [record], out=tmp_path, precision="fp32", **FADE)[0].embeddings, direct
    )


KILLED = """
import json, os, signal, sys
import numpy as np, torch
import mvf
from bench.warped import warped
from mvf.chunks import EmbeddingFile
out, pieces, config = sys.argv[1], int(sys.argv[2]), mvf.load_config("synthetic", **json.loads(sys.argv[3]))
torch.manual_seed(0)
model = mvf.build_model(config).eval()
record = warped(mvf.data.find_config_videos(config, "val")[0], np.abs((np.arange(150) + 20) % 60 - 30))
append = EmbeddingFile.append
def dying(part, piece):
    append(part, piece)
    if len(part.disagreement) == pieces:
        os.kill(os.getpid(), signal.SIGKILL)
EmbeddingFile.append = dying
mvf.embed(model, [record], out=out, precision="fp32", chunk=40, overlap=20, fade=True)
"""


def test_a_killed_process_is_gone_on_with_to_the_same_bits(session, tmp_path):
    arguments = [sys.executable, "-c", KILLED, str(tmp_path), "4", json.dumps(TINY)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    died = subprocess.run(arguments, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert died.returncode == -signal.SIGKILL, died.stderr
    (note,) = tmp_path.glob(".*.progress.json")
    assert 0 < json.loads(note.read_text())["frames"] < 150
    model, record = session
    read = []
    source = type(record.source).frames
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(record.source), "frames", lambda s, start=0, *r: read.append(start) or source(s, start, *r))
        resumed = mvf.embed(model, [record], out=tmp_path, precision="fp32", **FADE)[0].embeddings
    assert read == [32]  # frame 60 and on was left, which two earlier chunks reach: from 40 on, in whole batches
    direct = mvf.embed(model, [record], precision="fp32", **FADE)[0].embeddings
    np.testing.assert_array_equal(resumed, direct)


def test_the_default_chunking_writes_what_it_always_wrote(session, tmp_path):
    model, record = session
    mvf.embed(model, [record], out=tmp_path, chunk=40)
    assert set(json.loads((tmp_path / "made_by.json").read_text())) == {"model", "chunk", "overlap"}
    (path,) = tmp_path.glob("*.npy")
    np.save(tmp_path / "again.npy", np.load(path))
    assert (tmp_path / "again.npy").read_bytes() == path.read_bytes()


# embedding files ----------------------------------------------------------------------------------------------------

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
