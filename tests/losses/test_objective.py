"""The contract that all objectives keep, and weighted sums of them."""

import json
import math
import re
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mvf.clip import Clip
from mvf.config import load_config
from mvf.data.sampling import SAMPLERS
from mvf.losses import OBJECTIVES, build_config_loss, build_loss
from mvf.losses.objective import SUPERVISION, PairObjective, parse_objective

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
def test_computes_in_float32_under_autocast(name):
    options = {"temperature": 1.0} if name == "tcc" else {}
    loss = build_loss(name, embedding_size=WIDTH, **options)
    z, clip = batch(loss.views)
    value, exact = (loss(part, clip, generator=generator()) for part in (z.float(), z))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        cast, half = (loss(part, clip, generator=generator()) for part in (z.float(), z.bfloat16()))
    assert cast.dtype == half.dtype == torch.float32 and torch.equal(cast, value)
    torch.testing.assert_close(value.double(), exact, rtol=1e-4 if name == "tcc" else 1e-5, atol=0)


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
    for label in {"video": ["action"], "phase": ["phase"], "frame": ["action", "phase"]}.get(loss.labels, []):
        with pytest.raises(ValueError, match=f"clip.{label} is None.*{label} labels"):
            loss(z, replace(clip, **{label: None}), generator=generator())


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_bad_shape_is_refused_with_the_shape(name):
    loss = build_loss(name, embedding_size=WIDTH).double()
    z, clip = batch(loss.views)
    with pytest.raises(ValueError, match=r"embeddings must be \(B, ., T, E\).*" + shape_of(z[:, 0])):
        loss(z[:, 0], clip)
    with pytest.raises(ValueError, match=shape_of(z[:, :, :-2, 0]) + ".*got " + shape_of(clip.valid)):
        loss(z[:, :, :-2], clip)
    with pytest.raises(ValueError, match=shape_of(z[:0]) + " are empty"):
        loss(z[:0], clip.map(lambda tensor: tensor[:0]))
    if not loss.any_views:
        z, clip = batch(3 - loss.views)
        wanted = "two views" if loss.views == 2 else "one view"
        with pytest.raises(ValueError, match=f"{wanted} of every video; got {shape_of(z)}"):
            loss(z, clip)


def shape_of(tensor):
    return re.escape(str(tuple(tensor.shape)))


@pytest.mark.parametrize("name", [name for name, kind in OBJECTIVES.items() if kind.fewest > 1])
def test_too_few_frames_are_refused_with_their_number(name):
    loss = build_loss(name, embedding_size=WIDTH).double()
    few = loss.fewest - 1
    z, clip = batch(loss.views, frames=few + 2)  # two of the first video are padding
    with pytest.raises(ValueError, match=f"video 0, view 0 has {few} valid frames, at least {loss.fewest}"):
        loss(z, clip)


@pytest.mark.parametrize("name", [name for name, kind in OBJECTIVES.items() if issubclass(kind, PairObjective)])
def test_a_batch_without_a_pair_is_refused_with_its_actions(name):
    loss = build_loss(name).double()
    with pytest.raises(ValueError, match=r"pairs of videos of one action.*actions \[0\] and no pair.*batch_size"):
        loss(*batch(views=2, videos=1))  # two views of one video are no pair
    z, clip = batch()
    with pytest.raises(ValueError, match=r"actions \[0, 1, 2, 3\] and no pair"):
        loss(z, replace(clip, action=torch.arange(4)))


BAD_OPTIONS = [
    *[("scl", "temperature", -1), ("scl", "negatives", "sngle")],
    *[("tcc", "form", "regresion"), ("tcc", "similarity", "l1"), ("tcc", "variant", "mine")],
    *[("tcc", "temperature", -0.1), ("tcc", "temperature", 0), ("tcc", "variance_weight", -1.0)],
    *[("tcc", "variance_weight", math.nan), ("tcc", "label_smoothing", -0.1), ("tcc", "label_smoothing", 1.0)],
    *[("tcn", "regularization", -0.1), ("tcn", "regularization", math.inf), ("tcn", "variant", "port")],
    *[("sal", "triplets", 0), ("sal", "triplets", 1.5), ("sal", "hidden", (8, -1))],
    *[("sal", "shuffled_share", 1.1), ("sal", "shuffled_share", -0.1)],
    *[("lav", name, -1) for name in ("gamma", "alpha", "window", "margin")],
    ("lav", "idm_weights", "released_"),
    *[("gta", name, -1) for name in ("gamma_table", "gamma_softmin", "label_smoothing", "consistency_weight")],
    *[("gta", name, "nothing") for name in ("contrast", "directions", "variant")],
    *[("vava", name, -1) for name in ("lambda1", "lambda2", "virtual_cost", "neighbourhood", "variance")],
    *[("vava", "transport_weight", -1), ("vava", "variant", "released")],
    *[("lrprop", name, -1) for name in ("variance", "temperature", "alignment_weight")],
    *[("lrprop", "regulariser", "idn"), ("lrprop", "mode", "median")],
    *[("vsp", "variance_power", -1), ("vsp", "segments", 0), ("vsp", "segments", 1.5), ("vsp", "overlap", 1)],
    *[("vsp", "overlap", -0.1), ("vsp", "temperature", -0.1), ("vsp", "variant", "mended")],
    *[("vsp_p", "segments", -1), ("vsp_f", "temperature", -1)],
]


@pytest.mark.parametrize("name,option,value", BAD_OPTIONS)
def test_a_bad_option_is_refused_by_name(name, option, value):
    shown = value[-1] if isinstance(value, tuple) else value
    wanted = f'unknown {option} "{shown}"; known: ' if isinstance(value, str) else f"{option}.* must be .*got {shown}$"
    with pytest.raises(ValueError, match=wanted):
        build_loss(name, embedding_size=WIDTH, **{option: value})


def test_unknown_names_get_the_nearest_one():
    with pytest.raises(ValueError, match='unknown objective "slc".*"scl"'):
        build_loss("slc")
    with pytest.raises(ValueError, match='unknown option "temprature".*"temperature"'):
        build_loss("scl", temprature=0.1)


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
    assert build_config_loss(load_config("synthetic_published")).max_distance is None


@pytest.mark.parametrize("attribute, value, near", [("reads", "uni", "unit"), ("labels", "phases", "phase")])
def test_an_objective_that_reads_or_uses_something_unknown_is_refused(monkeypatch, attribute, value, near):
    monkeypatch.setattr(OBJECTIVES["scl"], attribute, value)
    with pytest.raises(ValueError, match=f'{attribute} is unknown: "{value}"; did you mean "{near}"'):
        build_loss("scl")
