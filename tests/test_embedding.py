import os

import numpy as np
import pytest
import torch

import mvf
from mvf import files
from mvf.bank import FeatureBank
from mvf.chunks import chunk_bounds
from mvf.data.augment import evaluation_view
from mvf.data.records import VideoRecord
from mvf.data.video import VideoFile
from mvf.embedding import embed_features, stored_bank, video_features
from tests.conftest import TINY
from tests.data.footage import write_video


@pytest.fixture
def session(tiny):
    config = tiny()
    torch.manual_seed(0)
    return mvf.build_model(config), mvf.data.find_config_videos(config, "val")[:3]


def test_embeddings_are_the_models_on_the_whole_video(session):
    model, records = session
    embedded = mvf.embed(model, records, precision="fp32", bank=False)
    for video, record in zip(embedded, records):
        frames = torch.from_numpy(record.load()).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = model.eval()(evaluation_view(frames, 32)[None]).embeddings[0]
        np.testing.assert_allclose(video.embeddings, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(video.embeddings, axis=1), 1, atol=1e-5)
        assert len(video.phases) == len(video.embeddings) == record.num_frames


def test_features_then_fusion_is_the_same(session):
    model, records = session
    patches, cls = video_features(model, records[0], precision="fp32")
    direct = mvf.embed(model, records[:1], precision="fp32", bank=False)[0].embeddings
    np.testing.assert_allclose(embed_features(model, patches, cls), direct, atol=1e-5)


def test_the_bank_gives_nearly_the_same_and_the_mode_is_kept(session, tmp_path):
    model, records = session
    model.train()
    direct = mvf.embed(model, records, precision="fp32", bank=False)
    cached = mvf.embed(model, records, cache=FeatureBank(model.backbone, None, "fp32", tmp_path))
    assert model.training
    for a, b in zip(direct, cached):
        assert (a.embeddings * b.embeddings).sum(1).min() > 0.999


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_what_a_bank_holds_is_read_and_the_rest_is_computed_and_not_stored(session, own_cache, monkeypatch):
    model, records = session
    bank = FeatureBank(model.backbone, None, "fp32")
    bank.ensure(records[:2])
    before = sorted(own_cache.rglob("*"))
    direct = mvf.embed(model, records, precision="fp32", bank=False)
    wanted = mvf.embed(model, records[:2], cache=bank) + direct[2:]
    found = mvf.embed(model, records, precision="fp32")
    for video, other, computed in zip(found, wanted, direct):
        np.testing.assert_array_equal(video.embeddings, other.embeddings)
        assert (video.embeddings * computed.embeddings).sum(1).min() > 0.9999
    assert not np.array_equal(found[0].embeddings, direct[0].embeddings), "they give the same, so nothing is compared"
    assert sorted(own_cache.rglob("*")) == before
    monkeypatch.setattr(model.backbone, "intermediates", lambda *_: pytest.fail("the backbone runs"))
    mvf.embed(model, records[:2], precision="fp32")


def test_a_kept_file_of_computed_features_is_made_again_from_the_bank(session, own_cache, tmp_path):
    model, records = session
    computed = mvf.embed(model, records[:1], out=tmp_path / "out", precision="fp32")[0].embeddings.copy()
    bank = FeatureBank(model.backbone, None, "fp32")
    bank.ensure(records[:1])
    (again,) = mvf.embed(model, records[:1], out=tmp_path / "out", precision="fp32")
    np.testing.assert_array_equal(again.embeddings, mvf.embed(model, records[:1], cache=bank)[0].embeddings)
    assert not np.array_equal(again.embeddings, computed)


def test_trained_blocks_and_other_weights_or_sizes_read_no_bank_of_the_frozen_network(tiny, session, own_cache):
    model, records = session
    FeatureBank(model.backbone, None, "fp32").ensure(records[:1])
    assert stored_bank(model, records[0], "fp32") and not stored_bank(model, records[1], "fp32")
    for changed in ({"trainable_blocks": 1, "features": "online"}, {"image_size": 48}, {"layers": "2,5"}):
        assert stored_bank(mvf.build_model(tiny(**changed)), records[0], "fp32") is None
    assert stored_bank(model, records[0], "bf16") is None


def test_out_streams_to_disk_and_a_second_call_goes_on(session, tmp_path):
    model, records = session
    direct = mvf.embed(model, records, precision="fp32")
    first = mvf.embed(model, records[:2], out=tmp_path / "shards", precision="fp32")
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "shards").glob("*.npy")}
    again = mvf.embed(model, records, out=tmp_path / "shards", precision="fp32")
    assert len(stamps) == 2 and len(again) == 3
    assert all((tmp_path / "shards" / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    for a, b in zip(direct, again):
        np.testing.assert_array_equal(a.embeddings, b.embeddings)
    assert isinstance(first[0].embeddings, np.memmap)


def test_more_videos_than_files_may_be_open_are_allowed_or_refused_before_the_first(session, tmp_path, monkeypatch):
    model, records = session
    limits = {"now": (600, 4096)}
    monkeypatch.setattr(files.resource, "getrlimit", lambda _: limits["now"])
    monkeypatch.setattr(files.resource, "setrlimit", lambda _, wanted: limits.update(now=wanted))
    mvf.embed(model, records[:1], out=tmp_path / "one", precision="fp32")
    assert limits["now"] == (600, 4096), "nothing to raise"
    files.allow_open_files(2000)
    assert limits["now"][0] > 2000
    with pytest.raises(OSError, match="5000 videos need .* allows 4096"):
        mvf.embed(model, records[:1] * 5000, out=tmp_path / "many")
    assert not (tmp_path / "many").exists()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return mvf.build_model(mvf.load_config("synthetic", **TINY))


@pytest.fixture
def kept(model, tmp_path):
    """A model, what it left of the video file a.mp4 in three chunks, and how to embed that file again."""
    folder = tmp_path / "shards"

    def embed(out=folder, precision="fp32", cache=None):
        record = VideoRecord("a", "", VideoFile(tmp_path / "a.mp4"))
        return mvf.embed(model, [record], out=out, chunk=5, precision=precision, cache=cache)[0].embeddings

    write_video(tmp_path / "a.mp4", 12)
    embed()
    assert len(list(folder.glob("*.seams.csv"))) == 1
    return model, embed, folder


def test_a_video_that_was_replaced_since_is_embedded_anew_beside_the_one_before(kept, tmp_path, caplog):
    _, embed, folder = kept
    for count, frames in ((2, 13), (3, 4)):
        write_video(tmp_path / "a.mp4", frames)
        np.testing.assert_array_equal(embed(), embed(None))
        assert len(embed()) == frames and len(list(folder.glob("*.npy"))) == count
    assert len(list(folder.glob("*.seams.csv"))) == 2, "the last has a single chunk, so it has no seams"
    assert not caplog.text


def test_a_finished_file_of_another_precision_or_bank_is_made_again(kept, tmp_path):
    model, embed, _ = kept
    banks = [FeatureBank(model.backbone, None, "fp32", tmp_path, dtype=dtype) for dtype in ("bf16", "int8")]
    given = [{"precision": "bf16"}, *({"cache": bank} for bank in banks)]
    direct = [embed(None, **options) for options in given]
    for one, other in zip([embed(), *direct], direct):
        assert not np.array_equal(one, other), "they give the same, so nothing is compared"
    for options, wanted in zip(given, direct):
        np.testing.assert_array_equal(embed(**options), wanted)


def test_a_finished_file_without_a_note_is_made_again(kept, caplog):
    _, embed, folder = kept
    (path,), (note,) = folder.glob("*.npy"), folder.glob(".*.made_from")
    note.unlink()
    np.save(path, np.zeros((12, 8), np.float32))
    np.testing.assert_array_equal(embed(), embed(None))
    assert "does not name them" in caplog.text and note.exists()


def test_a_kill_before_the_finished_part_has_its_name_costs_nothing(kept, monkeypatch, caplog):
    _, embed, folder = kept
    for path in [*folder.glob("*.npy"), *folder.glob(".*.made_from")]:
        path.unlink()

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("mvf.chunks.os.replace", _but_last(os.replace, killed))
        with pytest.raises(KeyboardInterrupt):
            embed()
    assert not list(folder.glob("*.npy"))
    direct = embed(None)
    monkeypatch.setattr("mvf.chunks.EmbeddingFile.append", killed)
    np.testing.assert_array_equal(embed(), direct)
    assert not caplog.text


def _but_last(replace_file, last):
    """Renames all but the finished file itself."""
    return lambda source, target: (last if str(source).endswith(".part") else replace_file)(source, target)


def test_out_of_another_model_is_refused(session, tiny, tmp_path):
    model, records = session
    mvf.embed(model, records[:1], out=tmp_path / "shards")
    torch.manual_seed(1)
    with pytest.raises(ValueError, match="another model"):
        mvf.embed(mvf.build_model(tiny()), records[:1], out=tmp_path / "shards")


@pytest.mark.parametrize(
    ("length", "chunk", "overlap"), [(10, 4, 0), (10, 4, 2), (10, 4, 3), (3, 4, 2), (4, 4, 0), (1, 1, 0)]
)
def test_chunks_keep_every_frame_once_in_order(length, chunk, overlap):
    kept = []
    for start, stop, first, last in chunk_bounds(length, chunk, overlap):
        assert 0 < stop - start <= chunk and 0 <= first < last <= stop - start
        kept += range(start + first, start + last)
    assert kept == list(range(length))


def test_a_bad_overlap_is_refused(session):
    with pytest.raises(ValueError, match="overlap=4"):
        mvf.embed(*session, chunk=4, overlap=4)
