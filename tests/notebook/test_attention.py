"""What figures and browsers show: frames and maps of one pass, and the head that was chosen."""

from dataclasses import replace

import numpy as np
import pytest

import mvf
from mvf.data.records import VideoList, VideoRecord
from mvf.evaluation.localization import choose_head
from mvf.metrics import attention_auroc
from mvf.workbench.notebook import attention, attention_browser
from mvf.workbench.notebook import session as session_module
from mvf.workbench.notebook.session import Session

SETTINGS = {"videos": 1, "layer": -1, "image_size": None, "stored_frames": 4}


class Numbered:
    """Frames of one brightness, their own number times `levels`; counts how often they are read."""

    identity = "numbered"

    def __init__(self, length, size=(20, 30), levels=2):
        self.length, self.size, self.levels, self.passes = length, size, levels, 0

    def count(self):
        return self.length

    def frames(self, start=0, stop=None, step=1):
        self.passes += 1
        for number in range(*slice(start, stop, step).indices(self.length)):
            yield np.full((*self.size, 3), number * self.levels % 256, np.uint8)


def corner_mask(length, size=(20, 30)):
    mask = np.zeros((length, *size), bool)
    mask[:, : size[0] // 2, : size[1] // 2] = True
    return mask


@pytest.fixture(scope="module")
def config():
    from tests.conftest import TINY

    return mvf.load_config("synthetic", **TINY)


@pytest.fixture(scope="module")
def model(config):
    return mvf.build_model(config).eval()


@pytest.fixture
def attention_videos(config, model, monkeypatch, tmp_path):
    """`attention_videos(val, train, report, model=, **settings)` on records given directly."""

    def run(val, train=(), report=None, network=model, **settings):
        splits = {"val": VideoList(val), "train": VideoList(train)}
        monkeypatch.setattr(session_module, "find_config_videos", lambda config, split, *_: splits[split])
        session = Session(tmp_path, network, config, tmp_path)
        return attention.attention_videos(session, report or {}, SETTINGS | settings)

    return run


def record_of(length, name="v", masked=False, **options):
    annotations = {"actor_mask": lambda: corner_mask(length)} if masked else {}
    return VideoRecord(name, "squat", Numbered(length, **options), annotations)


@pytest.mark.parametrize("length, stored, step", [(250, 40, 7), (3, 40, 1), (1, 40, 1), (41, 40, 2), (70, 70, 1)])
def test_frames_and_maps_stay_in_step_however_long_the_video(attention_videos, model, length, stored, step):
    record = record_of(length, levels=1)
    (video,) = attention_videos([record], stored_frames=stored)
    assert record.source.passes == 1  # nothing to fall out of step
    np.testing.assert_array_equal(video.numbers, np.arange(0, length, step))
    np.testing.assert_array_equal(video.frames[:, 0, 0, 0], video.numbers)
    assert len(video.frames) <= stored and video.num_frames == length
    alone = mvf.attention_maps(model, record, (-1,))
    np.testing.assert_allclose(video.entities, alone.entities[::step], atol=1e-5)
    np.testing.assert_allclose(video.heads[video.layers.index(4)], mvf.attention_maps(
        model, record, (4,)).heads[0, ::step], atol=1e-5)  # fmt: skip


def test_several_layers_are_held_and_one_head_is_shown(attention_videos):
    (video,) = attention_videos([record_of(5)], layer=3, head="2")
    assert video.layers == (2, 3, 4) and video.layer == 3  # the model reads 2 and 4
    assert video.heads.shape == (3, 3, 3, 2, 2) and video.entities.shape == (3, 3, 2, 2)
    np.testing.assert_array_equal(video.head_maps, video.heads[1, :, 1])
    assert video.layer_names == ["layer 2", "layer 3", "layer 4"] and len(video.head_names) == 3
    for words in ("layers 2, 4", "CLS head 2 of layer 3 (asked for)", "32 px", "3 of 5 frames"):
        assert words in video.caption
    (few,) = attention_videos([record_of(5)], layer=3, layers=(1,), head="2")
    assert few.layers == (1, 3)


def test_the_browser_opens_on_the_layer_and_head_of_the_figures(attention_videos, tmp_path):
    (video,) = attention_videos([record_of(5)], layer=3, head="2")
    browser = attention_browser([video], tmp_path)
    shown = browser.layer_names[browser.layer], browser.head_names[browser.head]
    assert shown == ("layer 3", "CLS head 2") and browser.view == "side by side"
    assert "CLS head 2 of layer 3" in video.head_name and (tmp_path / "attention_browser.html").exists()


def test_every_video_opens_on_its_own_head_in_the_middle_of_its_phases(attention_videos):
    record = replace(record_of(9), annotations={"phases": lambda: np.array([-1] * 5 + [0] * 4)}, phase_names=("up",))
    videos = attention_videos([record, record_of(9, "w")], videos=2, head="1", stored_frames=9)
    browser = attention_browser([replace(videos[0], head=2), videos[1]])
    assert [(strip["head"], strip["start"]) for strip in browser.strips] == [(2, 7), (0, 4)]
    assert (browser.head, browser.frame, browser.strips[0]["names"]) == (2, 7, ("up",))


def test_finer_maps_and_frames_that_are_not_square(attention_videos):
    (video,) = attention_videos([record_of(2, size=(1300, 650))], image_size=64)
    assert video.frames.shape == (2, 640, 320, 3)  # kept small, aspect kept
    assert video.entities.shape[2:] == video.heads.shape[3:] == (4, 4) and video.image_size == 64


def test_the_head_is_chosen_on_training_videos_of_the_asked_layer(attention_videos, model):
    train = [record_of(10, f"t{i}", masked=True) for i in range(2)]
    (video,) = attention_videos([record_of(5)], train, layer=2)
    assert video.head == choose_head(model, train, 2) - 1
    assert video.head_rule == "chosen by AUROC on training videos"
    maps = mvf.attention_maps(model, train[0], (2,)).heads[0]
    region = np.repeat([[[1.0, 0.0], [0.0, 0.0]]], 10, axis=0)
    assert video.head == np.argmax([attention_auroc(maps[:, k], region) for k in range(3)])


def test_the_reports_choice_is_taken_only_where_it_fits(attention_videos, model):
    train, report = [record_of(10, "t", masked=True)], {"localization": {"head_best": {"index": 3}}}
    (last,) = attention_videos([record_of(5)], train, report, layer=-1)
    (other,) = attention_videos([record_of(5)], train, report, layer=2)
    assert last.head == 2 and other.head == choose_head(model, train, 2) - 1


def test_the_oracle_is_best_on_the_very_video_and_named_so(attention_videos, model):
    record = record_of(6, masked=True)
    (video,) = attention_videos([record], head="oracle", stored_frames=6)
    region = np.repeat([[[1.0, 0.0], [0.0, 0.0]]], 6, axis=0)
    scores = [attention_auroc(map_, region) for map_ in video.heads[-1].swapaxes(0, 1)]
    assert video.head == np.argmax(scores) and video.head_rule == "oracle: best on this very video"
    with pytest.raises(ValueError, match='v has neither a mask nor boxes: head="oracle"'):
        attention_videos([record_of(6)], head="oracle")


def test_without_masks_the_head_closest_to_entity_1_is_shown(attention_videos):
    (video,) = attention_videos([record_of(6)], stored_frames=6)
    shares = video.heads[-1] / video.heads[-1].sum((-1, -2), keepdims=True)
    overlap = np.minimum(shares, video.entities[:, :1]).sum((-1, -2)).mean(0)
    assert video.head == overlap.argmax() and video.head_rule == "closest to entity 1: no masks"
    (asked,) = attention_videos([record_of(6)], [record_of(6, masked=True)], head="entity", stored_frames=6)
    assert asked.head == video.head and asked.head_rule == "closest to entity 1"


def test_a_backbone_without_class_token_says_so(attention_videos, config):
    resnet = replace(config, backbone="resnet50", layers=(4,), image_size=64)
    (video,) = attention_videos([record_of(3)], network=mvf.build_model(resnet).eval())
    assert video.heads is None and video.head_maps is None and video.layers == () and video.head_names == []
    assert "resnet50 has no class token" in video.head_name and "no class token" in video.caption


@pytest.mark.parametrize("settings, message", [
    ({"head": "best"}, 'unknown head "best"; choose training, oracle, entity'),
    ({"head": "4"}, "heads 1 to 3, got head 4"),
    ({"head": "0"}, "heads 1 to 3, got head 0"),
    ({"head": "training"}, "no training video has an actor mask"),
    ({"layer": 13}, "layers 1 to 12, got layer 13"),
    ({"image_size": 40}, "use 32 or 48"),
    ({"stored_frames": 0}, "stored_frames must be at least 1, got 0"),
    ({"videos": 0}, "videos must be at least 1, got 0"),
    ({"videos": -2, "layer": 13}, "videos must be at least 1, got -2"),
])  # fmt: skip
def test_what_cannot_be_shown_is_refused(attention_videos, settings, message):
    with pytest.raises(ValueError, match=message):
        attention_videos([record_of(3)], [record_of(3)], **settings)


def speck(length, size=(20, 30)):
    """A record whose actor covers half of no patch."""
    mask = np.zeros((length, *size), bool)
    mask[:, 0, 0] = True
    return VideoRecord("speck", "squat", Numbered(length, size), {"actor_mask": lambda: mask})


def test_training_videos_that_do_not_tell_are_no_choice(attention_videos):
    (video,) = attention_videos([record_of(6)], [speck(6)])
    assert video.head_rule == "closest to entity 1: training videos do not define AUROC"
    with pytest.raises(ValueError, match="no training video defines AUROC"):
        attention_videos([record_of(6)], [speck(6)], head="training")
    with pytest.raises(ValueError, match='speck: in no frame does its actor cover at least half .*head="entity"'):
        attention_videos([speck(6)], head="oracle")


def test_training_videos_are_called_so(attention_videos):
    (video,) = attention_videos([], [record_of(5, masked=True)])
    assert video.training and video.caption.endswith("a training video")


def test_where_validation_has_one_video_training_videos_are_shown_too(attention_videos):
    val, train = replace(record_of(5), name="a"), [replace(record_of(5), name=name) for name in "abc"]
    found = attention_videos([val], train, videos=3)
    assert [(video.name, video.training) for video in found] == [("a", False), ("b", True), ("c", True)]
    assert "a training video" in found[1].caption and "training" not in found[0].caption
    grid = attention.attention_grid(found, {"rows": 2, "normalise": "frame"}, {})
    said = " ".join(" ".join(text.get_text() for text in grid.texts).split())
    assert "training videos among them, because validation has fewer than two" in said
    two = [val, replace(record_of(5), name="z")]
    assert not any(video.training for video in attention_videos(two, train, videos=3))
