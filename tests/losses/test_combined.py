"""Weighted sums of objectives, and the contract that all objectives keep."""

import json
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mvf.clip import Clip
from mvf.config import load_config
from mvf.data.sampling import SAMPLERS
from mvf.losses import OBJECTIVES, build_config_loss, build_loss
from mvf.losses.objective import SUPERVISION, parse_objective

WIDTH = 6


def batch(views=1, videos=4, frames=12, seed=0):
    """Unit-norm float64 embeddings, and a clip with padding, actions and phases."""
    generator = torch.Generator().manual_seed(seed)
    z = F.normalize(torch.randn(videos, views, frames, WIDTH, generator=generator, dtype=torch.float64), dim=-1)
    index = torch.arange(frames).expand(videos, views, frames) * 3
    valid = torch.ones_like(index, dtype=torch.bool)
    valid[0, :, -2:] = False
    phase = (torch.arange(frames) // 4).expand_as(index)
    action = torch.tensor([0, 0, 1, 1])[:videos]
    return z, Clip(index, torch.full((videos,), 40), valid, phase, action)


def generator(seed=7):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_keeps_the_contract(name):
    loss = build_loss(name, embedding_size=WIDTH).double()
    assert loss.reads in ("raw", "unit", "projection") and loss.views in (1, 2)
    assert loss.sampler in SAMPLERS and loss.labels in SUPERVISION
    z, clip = batch(loss.views)
    value = loss(z.requires_grad_(), clip, generator=generator())
    assert value.shape == () and value.isfinite()
    assert torch.equal(value, loss(z, clip, generator=generator())), "the generator is the only source of randomness"
    (gradient,) = torch.autograd.grad(value, z)
    assert gradient.abs().sum() > 0 and gradient.isfinite().all()
    state = loss.state_dict()
    build_loss(name, embedding_size=WIDTH).double().load_state_dict(state)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_all_embeddings_equal_stays_finite(name):
    loss = build_loss(name, embedding_size=WIDTH).double()
    z, clip = batch(loss.views)
    same = torch.ones_like(z).div(WIDTH**0.5).requires_grad_()
    value = loss(same, clip, generator=generator())
    assert value.isfinite() and torch.autograd.grad(value, same)[0].isfinite().all()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_videos_without_any_frame_are_refused_or_left_out(name):
    loss = build_loss(name, embedding_size=WIDTH).double()
    z, clip = batch(loss.views)
    empty = replace(clip, valid=clip.valid.clone())
    empty.valid[1, 0] = False
    if name == "scl":  # the view's counterpart has no target, which the published code allows
        assert loss(z, empty).isfinite()
    else:
        with pytest.raises(ValueError, match="video 1, view 0 has 0 valid frames"):
            loss(z, empty, generator=generator())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_labels_that_are_needed_are_asked_for(name):
    loss = build_loss(name, embedding_size=WIDTH).double()
    z, clip = batch(loss.views)
    bare = replace(clip, action=None, phase=None)
    if loss.labels == "none":
        assert torch.equal(loss(z, bare, generator=generator()), loss(z, clip, generator=generator()))
    else:
        with pytest.raises(ValueError, match="clip.(action|phase) is None.*labels"):
            loss(z, bare, generator=generator())


def test_a_sum_is_the_weighted_sum_of_its_members():
    z, clip = batch(views=2)
    loss = build_loss("scl + 0.1*lav", scl={"temperature": 0.2}, lav={"gamma": 0.5})
    scl, lav = build_loss("scl", temperature=0.2), build_loss("lav", gamma=0.5)
    torch.testing.assert_close(loss(z, clip), scl(z, clip) + 0.1 * lav(z, clip))
    assert set(loss.parts) == {"scl", "lav"} and loss.parts["lav"] == lav(z, clip)
    other = F.normalize(z + 0.3, dim=-1)
    value = loss({"projection": z, "unit": other}, clip)
    torch.testing.assert_close(value, scl(z, clip) + 0.1 * lav(other, clip))


def test_objectives_of_one_view_take_the_mean_of_two():
    z, clip = batch(views=2)
    views = [
        build_loss("vsp")(z[:, v : v + 1], replace(clip, **{k: getattr(clip, k)[:, v : v + 1] for k in PER_VIEW}),
                          bridges=[[[0, 3, 7]]] * 4)
        for v in range(2)
    ]  # fmt: skip
    loss = build_loss("scl+vsp")
    loss.members["vsp"].forward = lambda z, clip, generator: build_loss("vsp")(z, clip, bridges=[[[0, 3, 7]]] * 4)
    torch.testing.assert_close(loss(z, clip) - build_loss("scl")(z, clip), sum(views) / 2)


PER_VIEW = ("frame_index", "valid", "phase")


def test_a_sum_declares_what_its_members_need():
    loss = build_loss("scl+0.1*lav")
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("projection+unit", 2, "action_views", "video")
    loss = build_loss("tcc+sal", embedding_size=8)
    assert (loss.reads, loss.views, loss.sampler, loss.labels, loss.fewest) == ("raw", 1, "action_frames", "video", 5)
    assert list(loss.parameters()), "the classifier of sal is trained"
    assert build_loss("vsp_p+vsp_f").labels == "frame" and build_loss("vsp_p+vsp_f").sampler == "phase"


def test_a_sum_moves_its_members_on():
    loss = build_loss("lav+2*vava")
    loss.advance()
    assert loss.members["vava"].step == 1
    again = build_loss("lav+2*vava")
    again.load_state_dict(loss.state_dict())
    assert again.members["vava"].step == 1


def test_what_cannot_be_summed_is_said():
    for objective in ("scl+tcn", "lav+vsp_p"):
        with pytest.raises(ValueError, match="cannot be combined"):
            build_loss(objective)
    with pytest.raises(ValueError, match='unknown objective "lva".*"lav"'):
        build_loss("scl+0.1*lva")
    with pytest.raises(ValueError, match='names "scl" twice'):
        build_loss("scl+scl")
    for bad in ("scl+", "x*scl", "-1*scl+lav", "scl+0*lav", "nan*scl"):
        with pytest.raises(ValueError, match="weight"):
            build_loss(bad)
    with pytest.raises(ValueError, match='unknown member "lva".*"lav"'):
        build_loss("scl+lav", lva={})
    with pytest.raises(ValueError, match="mappings by member"):
        build_loss("scl+lav", lav=0.1)
    with pytest.raises(ValueError, match='unknown option "gama" of objective "lav"'):
        build_loss("scl+lav", lav={"gama": 0.1})


def test_weights_are_read_with_or_without_spaces():
    assert parse_objective("scl+0.1*lav + 2e-1 * vsp") == {"scl": 1.0, "lav": 0.1, "vsp": 0.2}


def test_content_windows_leave_rows_without_counterpart_out_in_sums_too():
    options = json.dumps({"lav": {"gamma": 0.2}})
    config = load_config("synthetic", sampling="content", objective="scl+lav", objective_options=options)
    loss = build_config_loss(config)
    assert loss.members["scl"].max_distance == 5 and loss.members["lav"].gamma == 0.2
    assert build_config_loss(load_config("synthetic", sampling="content")).max_distance == 5
    assert build_config_loss(load_config("synthetic")).max_distance is None
