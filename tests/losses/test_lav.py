"""Learning by aligning videos: docs/objectives.md, section 6."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.clip import Clip, example_clip
from mvf.losses.lav import IDM_WEIGHTS, LearningByAligningVideosLoss, alignment_cost, inverse_difference
from mvf.losses.objective import Side
from tests.golden import each_file
from tests.losses.test_dtw import enumerated_soft_dtw


def pair_batch(actions=(0, 1, 0, 0), views=1, frames=5, width=4, seed=6):
    """Unit-norm float64 embeddings and a clip with gaps, of videos of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(actions), views, frames)
    z = F.normalize(torch.randn(*shape, width, generator=generator, dtype=torch.float64), dim=-1)
    index = torch.rand(*shape[:2], 25, generator=generator).argsort(-1)[..., :frames].sort(-1).values
    valid = torch.rand(shape, generator=generator) > 0.25
    valid[..., 1:3] = True
    lengths = torch.arange(25, 25 + 10 * len(actions), 10)
    return z, Clip(frame_index=index, num_frames=lengths, valid=valid, action=torch.tensor(actions))


def clip_pairs(clip):
    """Positions (video, view) of every pair of clips of one action, each once."""
    clips = np.ndindex(*clip.valid.shape[:2])
    return [(a, b) for a, b in combinations(clips, 2) if a[0] != b[0] and clip.action[a[0]] == clip.action[b[0]]]


def one_action(frames, videos=2, views=1):
    return replace(example_clip(videos, views, frames), action=torch.zeros(videos, dtype=torch.long))


def still_side(z, length=20):
    """All frames of one video."""
    frames = torch.arange(len(z))[None]
    return Side(z[None], frames >= 0, frames, torch.tensor([length]))


def naive(z, clip, gamma=0.1, alpha=0.5, window=10.0, margin=2.0, debiased=False, idm_weights="released"):
    """The formula of docs/objectives.md, one pair of frames at a time."""

    def soft(a, b):
        x, y = z[a][clip.valid[a]], z[b][clip.valid[b]]
        return enumerated_soft_dtw((x[:, None] - y).square().sum(-1), gamma)

    def contrast(a):
        total, frames = 0.0, clip.valid[a].nonzero()[:, 0]
        for i in frames:
            for j in frames:
                far = abs(int(clip.frame_index[a][i]) - int(clip.frame_index[a][j]))
                distance = (z[a][i] - z[a][j]).square().sum()
                released = idm_weights == "released"
                weight = 1 + (far / int(clip.num_frames[a[0]]) if released else far) ** 2
                if far > window:
                    total = total + weight * torch.relu(margin - distance)
                else:
                    total = total + (distance if released else distance / weight)
        return total

    values = []
    for a, b in clip_pairs(clip):
        value = soft(a, b) - (soft(a, a) + soft(b, b)) / 2 if debiased else soft(a, b)
        frames = (int(clip.valid[a].sum()) + int(clip.valid[b].sum())) / 2
        values.append((value + alpha * (contrast(a) + contrast(b))) / frames)
    return sum(values) / len(values)


@pytest.mark.parametrize("views", [1, 2])
@pytest.mark.parametrize("idm_weights", IDM_WEIGHTS)
@pytest.mark.parametrize("debiased", [False, True])
def test_equals_naive_loop(views, idm_weights, debiased):
    z, clip = pair_batch((0, 1, 0), views, frames=4)
    options = {"gamma": 0.3, "alpha": 0.7, "window": 4.0, "margin": 1.5}
    options |= {"debiased": debiased, "idm_weights": idm_weights}
    z.requires_grad_()
    value, wanted = LearningByAligningVideosLoss(**options)(z, clip), naive(z, clip, **options)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)
    (gradient,), (wanted_gradient,) = torch.autograd.grad(value, z), torch.autograd.grad(wanted, z)
    torch.testing.assert_close(gradient, wanted_gradient, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("file", **each_file("lav_alpha*.npz"))
def test_equals_the_published_code(file):
    golden = {name: torch.from_numpy(value) for name, value in np.load(file).items()}
    length = torch.stack([golden["len_x"], golden["len_y"]])
    time = torch.stack([golden["time_x"], golden["time_y"]])
    index = (time * length[:, None]).round().long()[:, None]
    clip = Clip(index, length.long(), torch.ones_like(index, dtype=torch.bool), action=torch.tensor([0, 0]))
    z = torch.stack([golden["x"], golden["y"]])[:, None].requires_grad_()
    loss = LearningByAligningVideosLoss(alpha=float(file.stem.removeprefix("lav_alpha")))
    value = loss(z, clip)
    value.backward()
    frames, close = 8, {"rtol": 1e-5, "atol": 0}  # the published soft-DTW ran in float32
    torch.testing.assert_close(value, golden["loss"], **close)
    torch.testing.assert_close(loss.parts["alignment"] * frames, golden["soft_dtw"], **close)
    contrast = loss.parts["regulariser"] * frames / loss.alpha
    torch.testing.assert_close(contrast, golden["idm_x"] + golden["idm_y"], rtol=1e-12, atol=0)
    for gradient, wanted in zip(z.grad[:, 0], (golden["grad_x"], golden["grad_y"])):
        assert (gradient - wanted).abs().max() <= 1e-5 * wanted.abs().max()


def test_identical_frames_give_the_closed_form():  # A6
    same = torch.full((20, 4), 0.5, dtype=torch.float64)
    assert inverse_difference(still_side(same)).item() == pytest.approx(266.25, rel=1e-12)
    wanted = 2 * sum(2 * (20 - d) * (1 + d**2) for d in range(11, 20))  # margin x pairs x weight
    assert inverse_difference(still_side(same), weights="paper").item() == pytest.approx(wanted, rel=1e-12)


def test_orthonormal_frames_cost_nothing_when_far():  # A7
    frames = torch.eye(20, dtype=torch.float64)
    near = 20 * 19 - 90  # ordered pairs of two frames, less those that are far
    assert inverse_difference(still_side(frames)).item() == pytest.approx(2 * near, rel=1e-12)
    nearest_only = inverse_difference(still_side(frames), window=0.5)  # all pairs are far
    assert nearest_only.item() == pytest.approx(0, abs=1e-12)


def test_the_edge_of_the_window_is_close_whatever_the_length():
    frames = torch.eye(11, dtype=torch.float64)  # frames 0 and 10 are exactly a window apart
    for length in range(11, 90):
        side = replace(still_side(frames, length), frame_index=torch.arange(11)[None] + length - 11)
        assert inverse_difference(side, window=10.0).item() == pytest.approx(2 * 110, rel=1e-12)


def test_collapse_pleases_the_alignment_only():  # section 11, 3
    angle = torch.linspace(0, 2, 20, dtype=torch.float64)
    arc = torch.stack([angle.cos(), angle.sin()], dim=-1).expand(2, 1, -1, -1)
    collapsed = torch.ones_like(arc) / 2**0.5
    clip = one_action(20)
    alone, whole = LearningByAligningVideosLoss(alpha=0), LearningByAligningVideosLoss()
    assert alone(collapsed, clip) < alone(arc, clip)
    assert whole(collapsed, clip) > whole(arc, clip)


def test_divergence_of_equal_videos_is_zero_and_of_others_positive():
    z, _ = pair_batch((0, 0))
    x, y = still_side(z[0, 0]), still_side(z[1, 0])
    assert alignment_cost(x, x, 0.1, debiased=True).item() == pytest.approx(0, abs=1e-12)
    assert alignment_cost(x, y, 0.1, debiased=True) > 0
    assert alignment_cost(x, x, 0.1) < 0


def test_symmetries_change_nothing():
    z, clip = pair_batch()
    loss = LearningByAligningVideosLoss(window=4)
    rotation = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    order = torch.tensor([3, 0, 2, 1])
    for other, its_clip in (
        (z @ rotation, clip),
        (z[order], clip.map(lambda tensor: tensor[order])),
        (z, replace(clip, frame_index=clip.frame_index + 7)),
    ):
        torch.testing.assert_close(loss(other, its_clip), loss(z, clip), rtol=1e-10, atol=0)


@pytest.mark.parametrize("debiased", [False, True])
def test_padding_changes_nothing(debiased):
    z, clip = pair_batch()
    loss = LearningByAligningVideosLoss(window=4, debiased=debiased)
    value = loss(z.requires_grad_(), clip)
    (wanted,) = torch.autograd.grad(value, z)
    padded, its_clip = append_junk(z, clip)
    padded.requires_grad_()
    same = loss(padded, its_clip)
    (gradient,) = torch.autograd.grad(same, padded)
    torch.testing.assert_close(same, value, rtol=1e-12, atol=0)
    torch.testing.assert_close(gradient[:, :, :-2], wanted, rtol=1e-12, atol=1e-15)
    assert (gradient[~its_clip.valid] == 0).all()


def append_junk(z, clip):
    """The batch with infinity in its padding, and two more padded frames."""
    z = F.pad(z.detach().where(clip.valid[..., None], torch.inf), (0, 0, 0, 2), value=torch.inf)
    index, valid = F.pad(clip.frame_index, (0, 2), value=99), F.pad(clip.valid, (0, 2))
    return z, replace(clip, frame_index=index, valid=valid)


def test_gradient_equals_finite_differences():
    z, clip = pair_batch((0, 0), frames=4)
    for options in ({"window": 4}, {"debiased": True, "idm_weights": "paper", "window": 3}):
        loss = LearningByAligningVideosLoss(**options)
        assert torch.autograd.gradcheck(lambda x, loss=loss: loss(x, clip), z.requires_grad_())


def test_every_argument_changes_the_value():
    z, clip = pair_batch()
    value = LearningByAligningVideosLoss(window=3.0)(z, clip)
    changes = [{"gamma": 0.3}, {"alpha": 0.0}, {"window": 9.0}, {"margin": 1.0}]
    for change in [*changes, {"debiased": True}, {"idm_weights": "paper"}]:
        loss = LearningByAligningVideosLoss(**{"window": 3.0} | change)
        assert not torch.isclose(loss(z, clip), value, rtol=1e-7), change


def test_parts_add_up_without_gradient():
    z, clip = pair_batch()
    loss = LearningByAligningVideosLoss()
    value = loss(z.requires_grad_(), clip)
    torch.testing.assert_close(sum(loss.parts.values()), value.detach())
    assert set(loss.parts) == {"alignment", "regulariser"} and not any(p.requires_grad for p in loss.parts.values())


@pytest.mark.parametrize("frames", [1, 2, 6])
@pytest.mark.parametrize("debiased", [False, True])
def test_stays_finite(frames, debiased):
    for z in (10 * torch.eye(frames, 6), torch.ones(frames, 6)):
        z = z.expand(3, 1, -1, -1).clone().requires_grad_()
        value = LearningByAligningVideosLoss(debiased=debiased)(z, one_action(frames, videos=3))
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = LearningByAligningVideosLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels) == ("unit", 1, "action_segments", "video")
    assert loss.pairs == "once" and not list(loss.parameters())
