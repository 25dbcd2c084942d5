"""Process contrast over phases: docs/objectives.md, section 10, VSP-P."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from mvf.clip import example_clip, phase_runs
from mvf.losses.vsp import PhaseProcessContrastiveLoss, ProcessContrastiveLoss, join_bridges, phase_bridges

PHASES = torch.tensor(
    [
        [0, 0, 0, 0, 1, 1, 1, 2, 2, 2, 2, 2],
        [1, 1, 1, 1, -1, -1, -1, -1, 0, 0, 0, 0],
        [3, 3, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4],
    ]
)  # the third has no run of 3


def random_batch(phases=PHASES, seed=0, width=4):
    z = torch.randn(*phases.shape, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    clip = replace(example_clip(len(phases), 1, phases.shape[1]), phase=phases[:, None])
    return F.normalize(z, dim=-1)[:, None], clip


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("variant", ["reference", "corrected"])
def test_bridges_given_cost_what_they_cost_in_vsp(variant):
    z, clip = random_batch()
    bridges = torch.tensor([[[0, 1, 3]], [[8, 9, 11]], [[0, 5, 6]]])
    value = PhaseProcessContrastiveLoss(variant=variant)(z, clip, bridges=bridges)
    assert value == ProcessContrastiveLoss(variant=variant)(z, clip, bridges=bridges)


def test_a_clip_of_one_phase_gives_the_released_bridge():
    drawn = {phase_bridges([4] * 12, 1, g)[0] for g in (seeded(),) for _ in range(300)}
    assert drawn == {(0, point, 11) for point in range(1, 11)}


def test_bridges_span_runs_of_one_phase():
    assert [phase_runs(phases) for phases in PHASES.tolist()] == [[(0, 4), (4, 7), (7, 12)], [(0, 4), (8, 12)], []]
    assert phase_runs([]) == phase_bridges([1, 1]) == []
    generator = seeded()
    ones = {phase_bridges(PHASES[0].tolist(), 1, generator)[0] for _ in range(300)}
    assert ones == {(h, t, e) for h, e in ((0, 3), (4, 6), (7, 11)) for t in range(h + 1, e)}
    pairs = {tuple(b[::2] for b in phase_bridges(PHASES[0].tolist(), 2, generator)) for _ in range(50)}
    assert pairs == {((0, 3), (4, 6)), ((4, 6), (7, 11))}  # consecutive
    assert len(phase_bridges(PHASES[1].tolist(), 5, generator)) == 2  # all, where there are fewer


@pytest.mark.parametrize("segments", [1, 2])
def test_videos_without_a_run_do_not_count(segments):
    z, clip = random_batch()
    loss = PhaseProcessContrastiveLoss(segments=segments)
    value = loss(z, clip, seeded(), bridges=None)
    torch.testing.assert_close(value, loss(z[:2], clip.map(lambda x: x[:2]), seeded()), rtol=1e-12, atol=0)
    generator = seeded()
    lists = [phase_bridges(phases, segments, generator) for phases in PHASES.tolist()]
    drawn = join_bridges(lists)
    assert drawn.video.tolist() == [0] * segments + [1] * segments
    given = torch.tensor(lists[:2])
    wanted = ProcessContrastiveLoss()(z[:2], clip.map(lambda x: x[:2]), bridges=given)
    torch.testing.assert_close(value, wanted, rtol=1e-12, atol=0)


def test_padding_changes_nothing():
    z, clip = random_batch()
    loss = PhaseProcessContrastiveLoss(segments=2)
    value = loss(z, clip, seeded())
    junk = F.pad(z, (0, 0, 0, 3), value=torch.inf).requires_grad_()
    phases = F.pad(PHASES, (0, 3), value=2)  # junk too: would make runs longer, and a new one
    padded = replace(example_clip(3, 1, 15), phase=phases[:, None], valid=torch.arange(15).expand(3, 1, 15) < 12)
    with_junk = loss(junk, padded, seeded())
    torch.testing.assert_close(with_junk, value, rtol=1e-12, atol=0)
    (gradient,) = torch.autograd.grad(with_junk, junk)
    (wanted,) = torch.autograd.grad(loss(z.requires_grad_(), clip, seeded()), z)
    torch.testing.assert_close(gradient[:, :, :12], wanted, rtol=1e-12, atol=1e-15)
    assert (gradient[:, :, 12:] == 0).all()


def test_gradient_equals_finite_differences():
    z, clip = random_batch(width=2)
    loss = PhaseProcessContrastiveLoss(segments=2)
    assert torch.autograd.gradcheck(lambda x: loss(x, clip, seeded()), z.requires_grad_())


def test_arguments_change_the_value():
    z, clip = random_batch()
    value = PhaseProcessContrastiveLoss()(z, clip, seeded())
    for change in ({"variance_power": 2}, {"segments": 2}, {"variant": "reference"}):
        other = PhaseProcessContrastiveLoss(**change)(z, clip, seeded())
        assert not torch.isclose(other, value, rtol=1e-7), change
    for change in ({"overlap": 0.5}, {"temperature": 1.0}):  # documented as not used
        assert PhaseProcessContrastiveLoss(**change)(z, clip, seeded()) == value


def test_extremes_stay_finite():
    for videos in (1, 3):
        z = (10 * torch.eye(3, 8)).expand(videos, 1, -1, -1).clone().requires_grad_()
        clip = replace(example_clip(videos, 1, 3), phase=torch.zeros(videos, 1, 3).long())
        value = PhaseProcessContrastiveLoss()(z, clip)
        assert value.isfinite() and torch.autograd.grad(value, z)[0].isfinite().all()


def test_declares_its_contract():
    loss = PhaseProcessContrastiveLoss()
    assert (loss.reads, loss.views, loss.sampler, loss.labels, loss.fewest) == ("unit", 1, "phase", "phase", 3)
    assert PhaseProcessContrastiveLoss(segments=2).sampler == "frames"


def test_a_batch_without_a_long_phase_is_refused():
    z, clip = random_batch()
    loss = PhaseProcessContrastiveLoss()
    with pytest.raises(ValueError, match="none of the 1 videos has 3 valid frames of one phase"):
        loss(z[2:], clip.map(lambda x: x[2:]))
    with pytest.raises(ValueError, match="none of the 3 videos"):
        loss(z, replace(clip, phase=torch.full_like(clip.phase, -1)))
