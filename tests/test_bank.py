"""Stored features: what a bank holds, its options, and how it is made and read at scale."""

import copy
import json
import multiprocessing
import os
import threading
import tracemalloc
import weakref
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import cache
from itertools import islice, product
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from tqdm import tqdm

import mvf
from mvf import bank as bank_module
from mvf import bank_files
from mvf.bank import BankStore, FeatureBank, FeatureMaker, build_bank
from mvf.bank_files import decode, encode, is_whole, write_checked
from mvf.chunks import Chunking
from mvf.data import find_config_videos
from mvf.data import records as records_module
from mvf.data.augment import build_augmentation
from mvf.data.records import VideoRecord, frame_batches
from mvf.embedding import embed_chunks
from mvf.files import hidden_beside
from mvf.models.backbone import Backbone
from mvf.models.mvformer import pool_reduced
from mvf.workbench import notebook


@pytest.fixture
def records(tiny):
    return find_config_videos(tiny(), "val")[:2]


@cache
def backbone(layers=(2, 4)):
    return Backbone("vit_tiny_patch16_224", "random", image_size=32, layers=layers)


def make(root, layers=(2, 4), augmentation=None):
    return FeatureBank(backbone(layers), augmentation, "fp32", root)


def test_clean_features_are_the_backbones_in_bfloat16(records, tmp_path):
    bank = make(tmp_path)
    patches, cls = bank.read(records[0], 0, torch.tensor([3, 1]))
    pixels = whole_view(bank, records[0], 0)
    expected, expected_cls = bank.backbone(pixels)
    torch.testing.assert_close(patches, expected[[3, 1]].bfloat16())
    torch.testing.assert_close(cls, expected_cls[[3, 1]].bfloat16())


def test_the_key_ignores_layers_and_a_second_bank_computes_only_what_is_new(records, tmp_path):
    make(tmp_path, (2,)).ensure(records)
    other = make(tmp_path, (2, 3))
    frames = sum(record.num_frames for record in records)
    # layer 3 and its class token; layer 2 is there
    assert other.predicted_bytes(records, 1) == 2 * frames * 192 * (4 + 1)
    assert make(tmp_path, (2,)).predicted_bytes(records, 1) == 0


def whole_view(bank, record, view):
    frames = torch.from_numpy(record.load()).permute(0, 3, 1, 2)
    return bank.maker.pixels(record, view, frames)


def test_views_differ_and_one_draw_serves_all_chunks_of_a_video(records, tiny, tmp_path):
    bank = make(tmp_path, augmentation=build_augmentation(tiny()))
    whole = whole_view(bank, records[0], 0)
    chunks = [bank.maker.pixels(records[0], 0, frames) for frames in frame_batches(records[0].frames(), 3)]
    torch.testing.assert_close(torch.cat(chunks), whole)
    assert not torch.equal(whole_view(bank, records[0], 1), whole)


def test_predicted_size_is_the_size_written(records, tmp_path):
    bank = make(tmp_path)
    predicted = bank.predicted_bytes(records, 2)
    BankStore(bank, records, 2)
    written = sum(p.stat().st_size for p in tmp_path.rglob("view*") if p.suffix != ".sha256")
    assert predicted == written


def test_no_room_is_refused_before_anything_is_made(records, tmp_path, monkeypatch):
    monkeypatch.setattr("mvf.bank_files.shutil.disk_usage", lambda _: type("usage", (), {"free": 10})())
    wanted = r'needs 0\.00 GB in .*, where 0\.00 GB are free, of which 1\.07 GB are reserved .* features="online"'
    with pytest.raises(OSError, match=wanted):
        make(tmp_path).ensure(records)
    assert not list(tmp_path.rglob("view*"))


def test_an_interrupted_build_goes_on_where_it_stopped(records, tmp_path, monkeypatch):
    bank = make(tmp_path)
    real = bank.backbone.intermediates
    calls = []

    def interrupted(*args):
        calls.append(1)
        if len(calls) == 1 + (records[0].num_frames - 1) // bank_module.FRAMES_AT_ONCE + 1:
            raise KeyboardInterrupt
        return real(*args)

    monkeypatch.setattr(bank.backbone, "intermediates", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bank.ensure(records)
    left = make(tmp_path).predicted_bytes(records, 1)
    assert 0 < left < 2 * sum(r.num_frames for r in records) * 192 * (2 * 4 + 1)
    whole = make(tmp_path)
    whole.ensure(records)
    assert whole.predicted_bytes(records, 1) == 0


# options ------------------------------------------------------------------------------------------------------------


def written(folder):
    """Bytes of all that a bank keeps but checksums and notes."""
    kept = [*folder.rglob("view*"), *folder.rglob("basis")]
    return sum(p.stat().st_size for p in kept if p.suffix != ".sha256")


class Noise:
    """A few frames without any order."""

    identity = "noise"

    def __init__(self, length):
        self.length = length

    def count(self):
        return self.length

    def frames(self, start=0, stop=None, step=1):
        for number in range(self.length)[start:stop:step]:
            yield np.random.default_rng([self.length, number]).integers(0, 256, (36, 40, 3), dtype=np.uint8)


@pytest.fixture
def clips():
    return [VideoRecord(f"noise{length}", "none", Noise(length)) for length in (9, 7)]


def whole_bank(root, clips, **options):
    if options.get("channels"):
        options["fitted_on"] = clips
    return FeatureBank(backbone(), None, "fp32", root, **options)


@pytest.mark.parametrize("options", [{"dtype": "int8"}, {"channels": 16}, {"channels": 16, "dtype": "int8"}])
def test_the_predicted_size_of_every_option_is_the_size_written(clips, tmp_path, options):
    bank = whole_bank(tmp_path, clips, **options)
    predicted = bank.predicted_bytes(clips, 2)
    assert written(tmp_path) == 0
    BankStore(bank, clips, 2)
    assert predicted == written(tmp_path) and bank.predicted_bytes(clips, 2) == 0
    bank.ensure(clips, 2, first=1)
    basis = 4 * bank.channels * bank.backbone.channels
    assert written(tmp_path) == predicted + (predicted - basis) // 2


def test_every_option_has_a_bank_of_its_own_and_the_plain_one_keeps_its_key(clips, tmp_path):
    options = [{}, {"dtype": "int8"}, {"channels": 16}, {"channels": 8}]
    folders = [whole_bank(tmp_path, clips, **option).folder for option in options]
    assert len(set(folders)) == len(options)
    assert whole_bank(tmp_path, clips[:1], channels=16).folder not in folders
    assert not list(tmp_path.iterdir())  # naming them makes none
    whole_bank(tmp_path, clips).ensure(clips[:1])
    made_from = json.loads((folders[0] / "made_from.json").read_text())
    assert list(made_from) == ["backbone", "weights", "image_size", "augmentation", "precision"]


def test_int8_is_within_half_a_step_of_each_channel(clips, tmp_path):
    plain, _ = whole_bank(tmp_path, clips).read(clips[0])
    small, _ = whole_bank(tmp_path, clips, dtype="int8").read(clips[0], 0)
    step = plain.float().abs().amax(1, keepdim=True) / 127
    assert ((plain.float() - small.float()).abs() <= 0.51 * step + 2**-7 * plain.float().abs()).all()
    assert not torch.equal(plain, small)


def test_a_channel_that_is_zero_stays_zero_in_int8():
    features = torch.zeros(2, 3, 4)
    features[..., 1] = 5.0
    out = np.empty((2, 3, 4), np.int16)
    decode("int8", encode("int8", features), [0, 1], out)
    torch.testing.assert_close(torch.from_numpy(out).view(torch.bfloat16).float(), features, rtol=2**-8, atol=0)


def test_reduced_features_are_the_best_of_their_rank_and_all_directions_lose_nothing(clips, tmp_path):
    plain = whole_bank(tmp_path, clips)
    exact = torch.cat([plain.read(record)[0].flatten(0, 1) for record in clips]).double()
    best = torch.linalg.svdvals(exact)[16:].square().sum().sqrt()
    reduced = whole_bank(tmp_path, clips, channels=16)
    rebuilt = torch.cat([reduced.read(record)[0].flatten(0, 1) for record in clips]).double()
    assert reduced.read_stored(clips[0])[0].shape[-1] == 16
    lost = (rebuilt - exact).norm()
    assert best * (1 - 1e-4) < lost < 1.05 * best + 0.01 * exact.norm()
    whole = whole_bank(tmp_path, clips, channels=384)
    torch.testing.assert_close(whole.read(clips[0])[0], plain.read(clips[0])[0], rtol=0.03, atol=0.03)


def test_a_damaged_basis_is_made_again_and_a_lost_one_makes_no_mixed_bank(clips, tmp_path, caplog):
    first = whole_bank(tmp_path, clips, channels=16)
    first.ensure(clips)
    basis, good = first.folder / "basis", first.read(clips[0])[0]
    data = np.fromfile(basis, np.uint8)
    data[7] ^= 1
    data.tofile(basis)
    assert torch.equal(whole_bank(tmp_path, clips, channels=16).read(clips[0])[0], good)
    assert "basis does not match its checksum: it is made again from training videos" in caplog.text
    basis.unlink()
    (first.folder / "basis.sha256").write_text("0" * 64)  # as of other directions
    assert (
        whole_bank(tmp_path, clips, channels=16).predicted_bytes(clips, 1) > 4 * 16 * 384
    )  # more than the directions alone


def test_more_directions_than_channels_are_refused(clips, tmp_path):
    with pytest.raises(ValueError, match="bank_channels must be at most the 384 channels of layers"):
        whole_bank(tmp_path, clips, channels=385)


@pytest.mark.parametrize("pooling, competition", [
    *((pooling, False) for pooling in ("lstp", "mean", "max", "cls", "fixed_width")),
    ("lstp", True),  # the only pooling whose entities compete
])  # fmt: skip
def test_pooling_reduced_patches_is_pooling_their_reconstruction(tiny, pooling, competition):
    torch.manual_seed(0)
    model = mvf.build_model(tiny(pooling=pooling, entity_competition=competition))
    basis = torch.linalg.qr(torch.randn(384, 16)).Q.T
    reduced, cls = torch.randn(2, 3, 4, 16), torch.randn(2, 3, 192)
    tokens, attention = pool_reduced(model, reduced, basis, cls)
    wanted, wanted_attention = model.pool(reduced @ basis, cls)
    torch.testing.assert_close(tokens, wanted)
    if pooling != "lstp":
        return
    torch.testing.assert_close(attention, wanted_attention)
    gradients = [torch.autograd.grad(t.square().sum(), model.pooling.key.weight)[0] for t in (tokens, wanted)]
    torch.testing.assert_close(*gradients)


def test_one_read_gives_the_rows_of_all_layers_in_the_order_asked_for(clips, tmp_path):
    bank = make(tmp_path, (4, 2))
    whole, cls = bank.read(clips[0])
    pick = torch.tensor([5, 1, 1, 7])
    some, some_cls = bank.read(clips[0], 0, pick)
    assert torch.equal(some, whole[pick]) and torch.equal(some_cls, cls[pick])
    assert torch.equal(whole[..., 192:], make(tmp_path, (2,)).read(clips[0])[0])


def test_the_notebook_shows_the_size_before_anything_is_made(tiny, clips):
    config = tiny(features="banked", bank_dtype="int8", bank_channels=16, seed=77)
    model = mvf.build_model(config, backbone())
    table = notebook.bank_table(config, model, clips)
    bank = build_bank(config, model.backbone, clips)
    whole = bank.predicted_bytes(clips, 2)
    size = f"{whole / 1e9:.3f}"
    assert table.rows[:2] == (("2 views, int8, 16 of 384 channels", size), ("not yet written", size))
    assert not list(bank.folder.rglob("view*"))
    bank.ensure(clips, 2)
    assert not bank.predicted_bytes(clips, 2) and bank.predicted_bytes(clips, 2, whole=True) == whole > 0
    assert notebook.bank_table(tiny(features="online"), model, clips).rows[0][0] == "online: nothing is stored"


# many videos --------------------------------------------------------------------------------------------------------


def noise(count, frames):
    return [VideoRecord(f"noise{number}", "none", Noise(frames)) for number in range(count)]


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


class OnGpu:
    """A backbone on a GPU: of tensors that know shapes and devices alone, and refuse those of two devices."""

    layers, compiled = (2, 4), False

    def parameters(self):
        yield torch.empty(1, device="cuda")

    def intermediates(self, pixels, layers):
        return [pixels.new_empty(len(pixels), 4, 192) for _ in layers], None


def test_directions_are_applied_on_the_device_of_the_backbone(monkeypatch):
    monkeypatch.setattr(bank_module, "encode", lambda _, features: features)  # there are no numbers to copy
    with FakeTensorMode():
        rows = FeatureMaker(OnGpu(), None, "fp32", "bf16").rows(
            torch.empty(3, 3, 32, 32), ["reduced-0"], torch.empty(16, 384)
        )
    assert rows["reduced-0"].device.type == "cuda" and rows["reduced-0"].shape == (3, 4, 16)


# reading ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_reading_many_videos_keeps_no_file_open(tmp_path):
    clips, bank = noise(6, 2), make(tmp_path)
    bank.ensure(clips)
    before = len(os.listdir("/proc/self/fd"))
    read = [bank.read(clip) for clip in clips]
    assert len(os.listdir("/proc/self/fd")) == before and len(read) == len(clips)


def test_a_view_that_is_gone_since_it_was_read_is_made_again(tmp_path):
    (clip,), bank = noise(1, 3), make(tmp_path)
    good, _ = bank.read(clip)
    for path in bank.folder.rglob("view*"):
        path.unlink()
    assert torch.equal(bank.read(clip)[0], good)


def delete_when_mapped(monkeypatch, times):
    """Has views deleted just before they are mapped, as by another run of the same settings; every file `times`."""
    real, deleted = np.memmap, Counter()

    def memmap(path, *args):
        if deleted[path] < times:
            deleted[path] += 1
            for file in path.parent.glob("view*"):
                file.unlink()
        return real(path, *args)

    monkeypatch.setattr(bank_module.np, "memmap", memmap)


@pytest.mark.parametrize("read_before", [False, True])
def test_a_view_that_another_run_deletes_while_it_is_opened_is_made_again(tmp_path, monkeypatch, read_before):
    (clip,), bank = noise(1, 3), make(tmp_path, (2,))
    good, _ = (bank if read_before else make(tmp_path / "other", (2,))).read(clip)
    delete_when_mapped(monkeypatch, 1)
    assert torch.equal(bank.read(clip)[0], good)


def test_a_view_that_is_deleted_again_and_again_is_refused_with_what_to_do(tmp_path, monkeypatch):
    (clip,), bank = noise(1, 3), make(tmp_path, (2,))
    delete_when_mapped(monkeypatch, 100)
    with pytest.raises(OSError, match=r"view0\.layer02 was damaged or gone again .* nothing deletes files there"):
        bank.read(clip)


def test_a_whole_bank_in_a_folder_that_cannot_be_written_is_read(tmp_path, monkeypatch):
    clips = noise(2, 3)

    def bank():
        return FeatureBank(backbone(), None, "fp32", tmp_path, channels=8, fitted_on=clips)

    good, _ = bank().read(clips[0])

    def refused(*_, **__):  # what root, who may write anywhere, does not meet
        raise PermissionError("read-only")

    for writes in ("locked", "atomic", "write_checked", "growing"):
        monkeypatch.setattr(bank_module, writes, refused)
    bank().ensure(clips[:1])
    assert torch.equal(bank().read(clips[0])[0], good)


def test_every_file_is_checked_once_a_run_however_often_workers_start_anew(tmp_path, monkeypatch):
    log, real = tmp_path / "checked", bank_files.is_whole

    def is_whole(path):
        with log.open("a") as file:
            file.write(f"{path}\n")
        return real(path)

    monkeypatch.setattr(bank_files, "is_whole", is_whole)
    clips, workers = noise(2, 3), multiprocessing.get_context("fork")
    store = BankStore(FeatureBank(backbone(), None, "fp32", tmp_path / "bank"), clips, 2)
    for _ in range(2):
        worker = workers.Process(target=read_all, args=(store,))
        worker.start()
        worker.join()
        assert worker.exitcode == 0
    checked = Counter(log.read_text().split())
    assert len(checked) == len(clips) * 2 * len(["layer02", "layer04", "cls04"])
    assert set(checked.values()) == {1}


def read_all(store):
    for index, view in product(range(len(store.records)), range(store.views)):
        store.read(index, view, torch.tensor([0]))


# large frames -------------------------------------------------------------------------------------------------------


class Large(Noise):
    """Frames of a grey each, of 1000 x 1000 pixels."""

    def frames(self, start=0, stop=None, step=1):
        for number in range(self.length)[start:stop:step]:
            yield np.full((1000, 1000, 3), number, np.uint8)


@pytest.mark.parametrize("use", ["embed", "bank"])
def test_pixels_in_memory_are_bounded_however_large_the_frames(tiny, tmp_path, monkeypatch, use):
    monkeypatch.setattr(records_module, "BATCH_BYTES", 13 * 10**6)  # 4 frames
    model, record = mvf.build_model(tiny(), backbone()), VideoRecord("large", "none", Large(70))
    tracemalloc.start()
    try:
        if use == "embed":
            mvf.embed(model, [record], precision="fp32")
        else:
            make(tmp_path).ensure([record], views=2)
        held = tracemalloc.get_traced_memory()[1] / 3e6
    finally:
        tracemalloc.stop()
    # one piece, with reading ahead two and for a moment the place of a third; and the frames at hand
    assert 4 < held < 4 * (1 if use == "embed" else 3) + 4


def test_pieces_have_32_frames_up_to_full_hd_and_fewer_beyond_that_meet_at_multiples_of_32(monkeypatch):
    monkeypatch.setattr(records_module, "BATCH_BYTES", records_module.BATCH_BYTES // 100)  # and sides a tenth as long

    def lengths(height, width, count, start=0):
        frames = (np.empty((height // 10, width // 10, 3), np.uint8) for _ in range(count))
        found = frame_batches(islice(frames, start, None), bank_module.FRAMES_AT_ONCE)
        return [len(piece) for piece in found]

    assert lengths(1080, 1920, 66, 32) == [32, 2]
    assert lengths(2160, 3840, 42, 32) == [8, 2]
    assert lengths(4320, 7680, 3) == [2, 1]
    assert lengths(9000, 8000, 2) == [1, 1]
    assert lengths(2, 2, 0) == []


def test_embeddings_of_large_frames_are_those_of_32_at_a_time_and_go_on_to_the_same_bits(tiny, monkeypatch):
    model, record = mvf.build_model(tiny(), backbone()), VideoRecord("noise", "none", Noise(70))
    chunking = Chunking(50, 0, False)
    whole = [piece.embeddings for piece in embed_chunks(model, record, chunking, precision="fp32")]
    monkeypatch.setattr(records_module, "BATCH_BYTES", 4 * 36 * 40 * 3)
    small = [piece.embeddings for piece in embed_chunks(model, record, chunking, precision="fp32")]
    rest = [piece.embeddings for piece in embed_chunks(model, record, chunking, precision="fp32", start=50)]
    assert all(np.array_equal(a, b) for a, b in zip(small, whole, strict=True))
    assert np.array_equal(np.concatenate(rest), whole[-1])


# making -------------------------------------------------------------------------------------------------------------


@pytest.fixture
def watch(monkeypatch):
    """`watch(look)`: `look(rows)` sees what is made of every piece of every view."""
    real = FeatureMaker.rows

    def watch(look):
        def rows(*args):
            made = real(*args)
            look(made)
            return made

        monkeypatch.setattr(FeatureMaker, "rows", rows)

    monkeypatch.setattr(bank_module, "FRAMES_AT_ONCE", 2)
    return watch


def test_making_a_video_holds_two_pieces_of_its_features_at_most(tmp_path, watch):
    made, alive = [], []

    def look(rows):
        made.extend(map(weakref.ref, rows.values()))
        alive.append(sum(ref() is not None for ref in made))

    watch(look)
    make(tmp_path).ensure(noise(1, 9), views=3)
    assert len(alive) == 3 * 5 and max(alive) <= 2 * len(["layer02", "layer04", "cls04"])


def test_a_video_in_the_making_is_out_of_sight_and_leaves_nothing_when_stopped(tmp_path, watch):
    grown = []

    def look(_):
        assert not list(tmp_path.rglob("view*"))
        grown.append(sum(path.stat().st_size for path in tmp_path.rglob(".view*")))
        if len(grown) == 8:
            raise KeyboardInterrupt

    watch(look)
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path).ensure(noise(1, 9), views=2)
    row = 2 * 192 * (2 * 4 + 1)
    assert grown == [2 * row * number for number in range(8)]
    left = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    assert left - {".lock"} == {"made_from.json"}  # filelock deletes its file or leaves it, by version


def test_what_a_killed_process_of_the_same_number_left_is_not_added_to(tmp_path):
    path = tmp_path / "view0.layer02"
    hidden_beside(path).write_bytes(b"half of something")
    write_checked(path, np.arange(3, dtype=np.uint8))
    assert path.read_bytes() == bytes(range(3)) and is_whole(path)


def test_runs_that_make_one_bank_at_once_share_the_work_and_each_bar_ends_full(tmp_path, monkeypatch):
    clips, both, made, bars, real = noise(4, 3), threading.Barrier(2), [], [], FeatureMaker.pixels

    class Bar(tqdm):
        def __init__(self, **settings):
            super().__init__(**settings)
            bars.append(self)

    def pixels(self, record, view, frames):
        runs = {run for run, *_ in made}
        made.append((threading.get_ident(), record.name, view))
        if threading.get_ident() not in runs:
            both.wait(60)  # until the other is at a video, too
        return real(self, record, view, frames)

    monkeypatch.setattr(bank_module, "tqdm", Bar)
    monkeypatch.setattr(FeatureMaker, "pixels", pixels)
    make(tmp_path)._begin()  # two threads, unlike two processes, would write its note under one hidden name
    with ThreadPoolExecutor(2) as runs:
        list(runs.map(lambda bank: bank.ensure(clips, views=2), [make(tmp_path), make(tmp_path)]))
    assert sorted(work for _, *work in made) == [[clip.name, view] for clip in clips for view in (0, 1)]
    assert [(bar.n, bar.total) for bar in bars] == [(4 * 2 * 3,) * 2] * 2
    assert make(tmp_path).predicted_bytes(clips, 2) == 0


# whose bank ---------------------------------------------------------------------------------------------------------


def test_runs_that_differ_in_what_is_trained_share_a_bank(tiny, own_cache):
    shared = [build_bank(tiny(features="banked", learning_rate=rate), backbone(), noise(1, 2)) for rate in (0.1, 0.2)]
    assert shared[0].folder == shared[1].folder


def test_the_notebook_names_the_bank_of_the_device_that_training_takes_and_makes_no_folder(
    tiny, own_cache, monkeypatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: False)  # then fp16, as no CPU has it
    config, clips = tiny(features="banked", precision="auto", compile=True), noise(2, 2)
    model = mvf.build_model(config, backbone())
    table = notebook.bank_table(config, model, clips)
    assert not own_cache.exists()
    trained = copy.copy(model.backbone)
    trained.compiled = True
    assert table.notes == (str(FeatureBank(trained, build_augmentation(config), "fp16").folder),)
    with pytest.raises(ValueError, match="compiled=True, this one has compiled=False: call compile_network"):
        build_bank(config, model.backbone, clips).ensure(clips)


def test_the_notebook_names_every_bank_of_a_training_with_one_model_an_action(tiny):
    config = tiny(features="banked", bank_channels=8, per_action=True)
    table = notebook.bank_table(config, mvf.build_model(config, backbone()), find_config_videos(config, "train"))
    runs = [replace(config, per_action=False, action=action) for action in ("jumping_jacks", "squat")]
    banks = [build_bank(run, backbone(), find_config_videos(run, "train")) for run in runs]
    assert table.notes == tuple(str(bank.folder) for bank in banks) and banks[0].folder != banks[1].folder
