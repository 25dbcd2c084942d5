import numpy as np
import pytest
import torch

import mvf
from mvf.bank import FeatureBank
from mvf.data.augment import evaluation_view
from mvf.embedding import embed_features, video_features
from mvf.streaming import chunk_bounds


@pytest.fixture
def subject(tiny):
    config = tiny()
    torch.manual_seed(0)
    return mvf.build_model(config), mvf.data.find_config_videos(config, "val")[:3]


def test_embeddings_are_the_models_on_the_whole_video(subject):
    model, records = subject
    embedded = mvf.embed(model, records, precision="fp32")
    for video, record in zip(embedded, records):
        frames = torch.from_numpy(record.load()).permute(0, 3, 1, 2)
        with torch.no_grad():
            expected = model.eval()(evaluation_view(frames, 32)[None]).embeddings[0]
        np.testing.assert_allclose(video.embeddings, expected.numpy(), atol=1e-5)
        np.testing.assert_allclose(np.linalg.norm(video.embeddings, axis=1), 1, atol=1e-5)
        assert len(video.phases) == len(video.embeddings) == record.num_frames


def test_features_then_fusion_is_the_same(subject):
    model, records = subject
    patches, cls = video_features(model, records[0], precision="fp32")
    direct = mvf.embed(model, records[:1], precision="fp32")[0].embeddings
    np.testing.assert_allclose(embed_features(model, patches, cls), direct, atol=1e-5)


def test_the_bank_gives_nearly_the_same_and_the_mode_is_kept(subject, tmp_path):
    model, records = subject
    model.train()
    direct = mvf.embed(model, records, precision="fp32")
    cached = mvf.embed(model, records, cache=FeatureBank(model.backbone, None, "fp32", tmp_path))
    assert model.training
    for a, b in zip(direct, cached):
        assert (a.embeddings * b.embeddings).sum(1).min() > 0.999


def test_out_streams_to_disk_and_a_second_call_goes_on(subject, tmp_path):
    model, records = subject
    direct = mvf.embed(model, records, precision="fp32")
    first = mvf.embed(model, records[:2], out=tmp_path / "shards", precision="fp32")
    stamps = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "shards").glob("*.npy")}
    again = mvf.embed(model, records, out=tmp_path / "shards", precision="fp32")
    assert len(stamps) == 2 and len(again) == 3
    assert all((tmp_path / "shards" / name).stat().st_mtime_ns == stamp for name, stamp in stamps.items())
    for a, b in zip(direct, again):
        np.testing.assert_array_equal(a.embeddings, b.embeddings)
    assert isinstance(first[0].embeddings, np.memmap)


def test_out_of_another_model_is_refused(subject, tiny, tmp_path):
    model, records = subject
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


def test_a_bad_overlap_is_refused(subject):
    with pytest.raises(ValueError, match="overlap=4"):
        mvf.embed(*subject, chunk=4, overlap=4)
