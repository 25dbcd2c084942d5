"""Temporal cycle-consistency loss: docs/objectives.md, section 3."""

import math
import re
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from mvf.clip import Clip, example_clip
from mvf.losses.tcc import (
    FORMS,
    SIMILARITIES,
    TemporalCycleConsistencyLoss,
    cycle_back,
    released_classification,
    similarities,
    smoothed_cross_entropy,
    smoothed_labels,
)
from tests.golden import LOSSES, each_file

VARIANTS = ("reference", "corrected")
ALL = list(product(FORMS, SIMILARITIES, VARIANTS))


def random_batch(videos=3, views=1, frames=6, width=5, padded=True, seed=0):
    """Float64 embeddings, and a clip of one action with padding of different lengths, not only at the end."""
    generator = torch.Generator().manual_seed(seed)
    shape = (videos, views, frames)
    z = torch.randn(*shape, width, generator=generator, dtype=torch.float64)
    index = torch.rand(*shape[:2], 20, generator=generator).argsort(-1)[..., :frames].sort(-1).values
    missing = torch.rand(shape, generator=generator).argsort(-1) < torch.arange(videos)[:, None, None] % (frames - 1)
    clip = Clip(
        frame_index=index,
        num_frames=20 + torch.arange(videos),
        valid=~missing if padded else torch.ones_like(missing),
        action=torch.full((videos,), 4),
    )
    return z, clip


def one_action(clip):
    return replace(clip, action=torch.zeros(len(clip.valid), dtype=torch.long))


def frame_value(a, logits, time, form, variance_weight, smoothing, variant):
    """The value of one frame from its logits of return, by the formula; None where it is left out."""
    n, others = len(time), [b for b in range(len(time)) if b != a]
    share = [torch.exp(r) / sum(torch.exp(s) for s in logits) for r in logits]
    if form == "classification" and variant == "corrected":
        return -sum(((1 - smoothing) * (a == b) + smoothing / n) * torch.log(share[b]) for b in range(n))
    smoothing = smoothing if others else 0.0
    label = {a: 1 - smoothing} | dict.fromkeys(others, smoothing / max(n - 1, 1))
    if form == "classification":
        return sum((y * math.log(y) if y else 0) - y * logits[b] for b, y in label.items()) / n
    target = sum(y * time[b] for b, y in label.items()) if variant == "reference" else time[a]
    mean = sum(p * t for p, t in zip(share, time))
    spread = sum(p * (t - mean) ** 2 for p, t in zip(share, time))
    error = abs(target - mean)
    if form == "regression_mse_var":
        return None if n == 1 else error**2 / spread + variance_weight * torch.log(spread)
    if form == "regression_mse":
        return error**2
    delta = 1.0 if variant == "reference" else 0.1
    return error**2 / 2 if error <= delta else delta * (error - delta / 2)


def naive(z, clip, form, similarity, temperature, variance_weight, label_smoothing, normalize_indices, variant):
    """The formula of docs/objectives.md, one frame at a time."""

    def logit(x, y):
        raw = -((x - y) ** 2).sum() if similarity == "l2" else x @ y
        return raw / (len(x) * temperature)

    videos = [(b, v) for b in range(z.shape[0]) for v in range(z.shape[1])]
    frames = {key: [t for t in range(z.shape[2]) if clip.valid[key][t]] for key in videos}
    values = []
    for i, k in product(videos, videos):
        if i[0] == k[0] or clip.action[i[0]] != clip.action[k[0]]:
            continue
        x, y = [z[i][t] for t in frames[i]], [z[k][t] for t in frames[k]]
        length = int(clip.num_frames[i[0]]) if normalize_indices else 1
        time = [int(clip.frame_index[i][t]) / length for t in frames[i]]
        for a, frame in enumerate(x):
            weights = [torch.exp(logit(frame, other)) for other in y]
            neighbour = sum(w * other for w, other in zip(weights, y)) / sum(weights)
            logits = [logit(neighbour, other) for other in x]
            values.append(frame_value(a, logits, time, form, variance_weight, label_smoothing, variant))
    values = [value for value in values if value is not None]
    return sum(values) / len(values)


@pytest.mark.parametrize("form,similarity,variant", ALL)
def test_equals_naive_loop(form, similarity, variant):
    z, clip = random_batch(videos=4, views=2, frames=4, width=3)
    clip = replace(clip, action=torch.tensor([1, 0, 1, 0]))
    clip.valid[0, 1] = torch.tensor([False, True, False, False])  # a single frame
    z.requires_grad_()
    options = {"temperature": 0.4, "variance_weight": 0.3, "label_smoothing": 0.2}
    options |= {"form": form, "similarity": similarity, "variant": variant, "normalize_indices": similarity == "l2"}
    value, wanted = TemporalCycleConsistencyLoss(**options)(z, clip), naive(z, clip, **options)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-8, atol=1e-12)


def golden_batch(golden):
    index = torch.from_numpy(golden["steps"])[:, None]
    clip = Clip(
        frame_index=index,
        num_frames=torch.from_numpy(golden["seq_lens"]),
        valid=torch.ones_like(index, dtype=torch.bool),
        action=torch.zeros(len(index), dtype=torch.long),
    )
    options = {
        "temperature": float(golden["temperature"]),
        "variance_weight": float(golden["variance_lambda"]),
        "label_smoothing": float(golden["label_smoothing"]),
        "normalize_indices": bool(golden["normalize_indices"]),
    }
    return torch.from_numpy(golden["embs"])[:, None].requires_grad_(), clip, options


@pytest.mark.parametrize("file", **each_file("tcc_*.npz"))
def test_equals_the_published_code(file):
    golden = np.load(file)
    form, similarity = re.fullmatch(r"tcc_(.*)_(l2|cosine)_ls.*", file.stem).groups()
    z, clip, options = golden_batch(golden)
    loss = TemporalCycleConsistencyLoss(form=form, similarity=similarity, variant="reference", **options)
    value = loss(z, clip)
    value.backward()
    assert value.item() == pytest.approx(float(golden["loss"]), rel=1e-6)
    error = (z.grad[:, 0] - torch.from_numpy(golden["grad"])).abs().max()
    assert error <= 1e-6 * np.abs(golden["grad"]).max()
    if form == "regression_mse_var":
        assert loss.parts["squared_error"].item() == pytest.approx(float(golden["squared_error"]), rel=1e-6)
        assert loss.parts["log_variance"].item() == pytest.approx(float(golden["pred_time_log_var"]), rel=1e-6)


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_corrected_regression_equals_the_published_code_without_smoothing(smoothing):
    file = LOSSES / "tcc_regression_mse_var_l2_ls0.0.npz"
    z, clip, options = golden_batch(golden := np.load(file))
    value = TemporalCycleConsistencyLoss(**options | {"label_smoothing": smoothing})(z, clip)
    assert value.item() == pytest.approx(float(golden["loss"]), rel=1e-6)


def test_classification_equals_the_library_of_the_original():
    file = LOSSES / "keras_smoothed_ce.npz"
    golden = np.load(file)
    logits = torch.from_numpy(golden["logits"])[None].double()
    value = smoothed_cross_entropy(logits, torch.ones(1, 6, dtype=torch.bool), float(golden["label_smoothing"]))
    assert value.mean().item() == pytest.approx(float(golden["loss"]), rel=1e-6)  # computed in float32


def test_equal_embeddings_give_the_closed_form():  # T1
    z, clip = torch.ones(2, 1, 5, 4, dtype=torch.float64), one_action(example_clip(2, 1, 5))
    for variant, smoothing, wanted in (
        ("corrected", 0.1, 0.99747427),
        ("reference", 0.0, 0.99747427),
        ("reference", 0.1, 0.76309927),
    ):
        value = TemporalCycleConsistencyLoss(label_smoothing=smoothing, variant=variant)(z, clip)
        assert value.item() == pytest.approx(wanted, abs=1e-8)
    for form, variant, wanted in (
        ("regression_mse", "corrected", 0.08),
        ("regression_huber", "corrected", 0.02),  # 0.1 (0.4 - 0.05), 0.1 (0.2 - 0.05), 0, ...
        ("regression_huber", "reference", 0.08 * 0.875**2 / 2),
        ("classification", "corrected", math.log(5)),
    ):
        assert TemporalCycleConsistencyLoss(form=form, variant=variant)(z, clip).item() == pytest.approx(wanted)


def test_one_hot_frames_give_the_closed_form():  # T2
    frames = torch.eye(4, dtype=torch.float64)
    z, clip = frames.expand(2, 1, 4, 4), one_action(example_clip(2, 1, 4))
    there = similarities(frames[None], frames[None], "l2", 0.1).softmax(-1)
    torch.testing.assert_close(there.diagonal(0, 1, 2), torch.full_like(z[:1, 0, 0], 0.98018666))
    there_and_back = cycle_back(frames[None], frames[None], torch.ones(1, 4, dtype=torch.bool)).softmax(-1)
    torch.testing.assert_close(there_and_back.diagonal(0, 1, 2), torch.full_like(z[:1, 0, 0], 0.97745191))
    assert TemporalCycleConsistencyLoss()(z, clip).item() == pytest.approx(6.911705e-3, abs=1e-9)
    assert TemporalCycleConsistencyLoss("regression_mse")(z, clip).item() == pytest.approx(7.06134e-5, abs=1e-10)
    hard = TemporalCycleConsistencyLoss("classification", label_smoothing=0.0)
    assert hard(z, clip).item() == pytest.approx(-math.log(0.97745191), abs=1e-8)


@pytest.mark.parametrize("form,variant", list(product(FORMS, VARIANTS)))
def test_moving_turning_and_slowing_all_videos_changes_nothing(form, variant):  # T3
    z, clip = random_batch()
    loss = TemporalCycleConsistencyLoss(form=form, variant=variant)
    value = loss(z, clip)
    rotation = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    slower = replace(clip, frame_index=clip.frame_index * 3, num_frames=clip.num_frames * 3)
    for other, its_clip in ((z + torch.randn(5, dtype=torch.float64), clip), (z @ rotation, clip), (z, slower)):
        torch.testing.assert_close(loss(other, its_clip), value, rtol=1e-9, atol=0)


@pytest.mark.parametrize("form,similarity,variant", ALL)
def test_value_is_the_mean_over_ordered_pairs(form, similarity, variant):  # T4
    z, clip = random_batch(padded=False)
    loss = TemporalCycleConsistencyLoss(form=form, similarity=similarity, variant=variant)
    twos = [torch.tensor(two) for two in ([0, 1], [0, 2], [1, 2])]  # each with both its orders
    values = [loss(z[two], clip.map(lambda tensor: tensor[two])) for two in twos]  # noqa: B023
    torch.testing.assert_close(loss(z, clip), sum(values) / 3, rtol=1e-10, atol=0)
    order = torch.tensor([2, 0, 1])
    torch.testing.assert_close(loss(z[order], clip.map(lambda t: t[order])), loss(z, clip), rtol=1e-10, atol=0)


@pytest.mark.parametrize("form", ["regression_mse_var", "regression_mse"])
def test_variants_agree_without_smoothing(form):
    z, clip = random_batch()
    values = [TemporalCycleConsistencyLoss(form, label_smoothing=0.0, variant=name)(z, clip) for name in VARIANTS]
    assert torch.equal(*values)


def test_released_classification_may_be_negative():
    logits = torch.full((1, 3, 3), 2.0)
    assert (released_classification(logits, torch.ones(1, 3, dtype=torch.bool), 0.0) < 0).all()
    labels = smoothed_labels(torch.tensor([[True, True, False, True]]), 0.2)[0]
    torch.testing.assert_close(labels[0], torch.tensor([0.8, 0.1, 0.0, 0.1], dtype=torch.float64))


@pytest.mark.parametrize("form,similarity,variant", ALL)
def test_padding_changes_nothing(form, similarity, variant):
    z, clip = random_batch()
    loss = TemporalCycleConsistencyLoss(form=form, similarity=similarity, variant=variant)
    value = loss(z.requires_grad_(), clip)
    (gradient,) = torch.autograd.grad(value, z)
    junk = torch.cat([z.detach(), torch.full((3, 1, 2, 5), torch.inf, dtype=z.dtype)], dim=2)
    longer = replace(
        clip,
        frame_index=torch.cat([clip.frame_index, torch.full((3, 1, 2), 999)], dim=2),
        valid=torch.cat([clip.valid, torch.zeros(3, 1, 2, dtype=torch.bool)], dim=2),
    )
    junk[~longer.valid] = torch.inf
    padded = loss(junk.requires_grad_(), longer)
    (padded_gradient,) = torch.autograd.grad(padded, junk)
    torch.testing.assert_close(padded, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(padded_gradient[:, :, :-2], gradient, rtol=1e-10, atol=1e-15)
    assert (padded_gradient[~longer.valid] == 0).all()


@pytest.mark.parametrize("form,similarity,variant", ALL)
def test_certain_matches_and_short_videos_stay_finite(form, similarity, variant):
    loss = TemporalCycleConsistencyLoss(form=form, similarity=similarity, variant=variant)
    for frames in (1, 2, 4):
        if frames == 1 and form == "regression_mse_var":
            continue  # refused: test_bad_input_is_refused_by_name
        z = (10 * torch.eye(frames, 4)).expand(2, 1, -1, -1).clone().requires_grad_()
        value = loss(z, one_action(example_clip(2, 1, frames)))
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


@pytest.mark.parametrize("form,similarity,variant", ALL)
def test_gradient_equals_finite_differences(form, similarity, variant):
    z, clip = random_batch(videos=2, frames=4, width=2)
    loss = TemporalCycleConsistencyLoss(form=form, similarity=similarity, temperature=0.5, variant=variant)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = random_batch()
    classes, port = {"form": "classification"}, {"variant": "reference"}
    changes = [({}, {"form": form}) for form in FORMS[1:]]
    changes += [({}, {"similarity": "cosine"}), ({}, {"temperature": 0.2}), ({}, {"variance_weight": 0.1})]
    changes += [({}, {"normalize_indices": False}), ({}, port), (classes, port), ({"form": "regression_huber"}, port)]
    changes += [(classes, {"label_smoothing": 0.2}), (port, {"label_smoothing": 0.2})]
    for start, change in changes:
        value = TemporalCycleConsistencyLoss(**start)(z, clip)
        assert not torch.isclose(TemporalCycleConsistencyLoss(**start | change)(z, clip), value, rtol=1e-6), change
    assert torch.equal(
        TemporalCycleConsistencyLoss(label_smoothing=0.5)(z, clip), TemporalCycleConsistencyLoss()(z, clip)
    )


def test_declares_its_contract():
    loss = TemporalCycleConsistencyLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("raw", 1, "action_frames", "video")
    assert loss.pairs == "all" and not list(loss.parameters())


def test_a_variance_needs_two_frames():
    with pytest.raises(ValueError, match="2 valid frames.*has 1.*regression_mse"):
        TemporalCycleConsistencyLoss()(torch.randn(2, 2, 1, 4), one_action(example_clip(2, 2, 1)))
