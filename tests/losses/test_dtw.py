"""Dynamic time warping: docs/objectives.md, sections 0 and 6, tests A1 to A5."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from mvf.losses.dtw import (
    accumulate,
    dtw_path,
    hardest,
    read_corner,
    sinkhorn,
    soft_dtw,
    soft_dtw_alignment,
    softest,
    squared_distances,
    weighted,
)
from tests.golden import each_file

SIZES = ((3, 3), (4, 5))
GAMMAS = (0.1, 1.0)


def all_paths(rows, columns):
    """Every monotone path of a grid, as lists of cells."""
    if (rows, columns) == (1, 1):
        return [[(0, 0)]]
    before = [(rows - a, columns - b) for a, b in ((1, 1), (1, 0), (0, 1)) if rows > a and columns > b]
    return [path + [(rows - 1, columns - 1)] for size in before for path in all_paths(*size)]


def path_costs(cost):
    """Summed cost of every path of one grid."""
    return torch.stack([sum(cost[cell] for cell in path) for path in all_paths(*cost.shape)])


def enumerated_soft_dtw(cost, gamma):
    return -gamma * torch.logsumexp(-path_costs(cost) / gamma, dim=0)


def random_costs(rows=4, columns=5, pairs=2, seed=0):
    return torch.rand(pairs, rows, columns, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("gamma", GAMMAS)
@pytest.mark.parametrize("size", SIZES)
def test_soft_dtw_equals_the_enumeration_of_all_paths(size, gamma):  # A1
    cost = random_costs(*size).requires_grad_()
    wanted = torch.stack([enumerated_soft_dtw(c, gamma) for c in cost])
    torch.testing.assert_close(soft_dtw(cost, gamma), wanted, rtol=1e-12, atol=0)
    (occupancy,) = torch.autograd.grad(wanted.sum(), cost)
    torch.testing.assert_close(soft_dtw_alignment(cost, gamma), occupancy, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("file", **each_file("softdtw_*_gamma*.npz"))
def test_equals_the_published_values(file):  # A1
    golden = {name: torch.from_numpy(value)[None] for name, value in np.load(file).items()}
    gamma, cost = golden["gamma"].item(), golden["cost"]
    torch.testing.assert_close(squared_distances(golden["x"], golden["y"]), cost)
    value, alignment = soft_dtw(cost, gamma), soft_dtw_alignment(cost, gamma)
    for name, tolerance in (("_bruteforce", 1e-9), ("", 1e-5)):  # the published code ran in float32
        torch.testing.assert_close(value, golden[f"value{name}"], rtol=tolerance, atol=0)
        torch.testing.assert_close(alignment, golden[f"alignment{name}"], rtol=0, atol=tolerance)
    torch.testing.assert_close(read_corner(accumulate(cost, hardest)), golden["hard_dtw"], rtol=1e-12, atol=0)
    assert len(all_paths(*cost.shape[1:])) == golden["num_paths"]


def test_zero_cost_counts_paths():  # A2
    for size, paths in enumerate((1, 3, 13, 63, 321), start=1):
        value = soft_dtw(torch.zeros(1, size, size, dtype=torch.float64), 0.1)
        assert value.item() == pytest.approx(-0.1 * math.log(paths), abs=1e-12)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_two_orthonormal_frames_give_the_closed_form(gamma):  # A3
    frames = torch.eye(2, dtype=torch.float64)[None]
    wanted = -gamma * math.log(1 + 2 * math.exp(-2 / gamma))
    assert soft_dtw(squared_distances(frames, frames), gamma).item() == pytest.approx(wanted, rel=1e-9)


def test_transpose_and_joint_reversal_change_nothing():  # A4
    cost = random_costs()
    value = soft_dtw(cost, 0.1)
    torch.testing.assert_close(soft_dtw(cost.transpose(1, 2), 0.1), value, rtol=1e-12, atol=0)
    torch.testing.assert_close(soft_dtw(cost.flip(1, 2), 0.1), value, rtol=1e-12, atol=0)


def test_approaches_hard_dtw_from_below():  # A4
    cost = random_costs()
    hard = torch.stack([path_costs(c).min() for c in cost])
    torch.testing.assert_close(read_corner(accumulate(cost, hardest)), hard, rtol=1e-12, atol=0)
    values = [soft_dtw(cost, gamma) for gamma in (1.0, 0.1, 0.01, 1e-4, 1e-6)]
    assert all((low <= high).all() for low, high in zip(values, [*values[1:], hard + 1e-12]))
    torch.testing.assert_close(values[-1], hard, rtol=1e-5, atol=0)


@pytest.mark.parametrize("gamma", GAMMAS)
def test_alignment_is_the_share_of_paths(gamma):  # A5
    occupancy = soft_dtw_alignment(random_costs(5, 7), gamma)
    ends = torch.stack([occupancy[:, 0, 0], occupancy[:, -1, -1]])
    torch.testing.assert_close(ends, torch.ones_like(ends), rtol=1e-12, atol=0)
    assert (occupancy >= 0).all() and (occupancy <= 1 + 1e-12).all()
    assert (occupancy.sum(1) >= 1 - 1e-12).all() and (occupancy.sum(2) >= 1 - 1e-12).all()


@pytest.mark.parametrize("frames", [80, 200])
def test_long_paths_keep_their_alignment_in_float32(frames):
    generator = torch.Generator().manual_seed(0)
    x, y = F.normalize(torch.randn(2, 1, frames, 32, generator=generator, dtype=torch.float64), dim=-1)
    cost = squared_distances(x, y)
    torch.testing.assert_close(soft_dtw(cost.float(), 0.1).double(), soft_dtw(cost, 0.1), rtol=1e-5, atol=0)
    occupancy = soft_dtw_alignment(cost.float(), 0.1)
    for corner in (occupancy[0, 0, 0], occupancy[0, -1, -1]):  # every path passes both
        assert corner.item() == pytest.approx(1, abs=2e-5)
    assert (occupancy.double() - soft_dtw_alignment(cost, 0.1)).abs().max() <= 1e-3


@pytest.mark.parametrize("name", ["soft", "probable", "hard"])
def test_table_equals_naive_loop(name):
    combine = {"soft": softest(0.3), "probable": weighted(0.3), "hard": hardest}[name]

    def naive_combine(neighbours):
        r = torch.stack(neighbours)
        share = torch.softmax(-r / 0.3, dim=0)
        return {"soft": -0.3 * (-r / 0.3).logsumexp(0), "probable": (share * r).sum(), "hard": r.min()}[name]

    cost = random_costs(pairs=1)
    table = {}
    for i, j in np.ndindex(4, 5):
        near = [table[cell] for cell in ((i, j - 1), (i - 1, j - 1), (i - 1, j)) if cell in table]
        table[i, j] = cost[0, i, j] + (naive_combine(near) if near else 0)
    wanted = torch.stack(list(table.values())).view(1, 4, 5)
    torch.testing.assert_close(accumulate(cost, combine), wanted, rtol=1e-12, atol=0)


@pytest.mark.parametrize("combine", [softest(0.5), weighted(0.5), hardest])
def test_gradient_equals_finite_differences(combine):
    cost = random_costs(3, 4).requires_grad_()
    assert torch.autograd.gradcheck(lambda c: read_corner(accumulate(c, combine)), cost)


def test_gradient_of_distances_equals_finite_differences():
    x, y = torch.randn(2, 2, 3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    wanted = (x[:, :, None] - y[:, None]).square().sum(-1)
    torch.testing.assert_close(squared_distances(x, y), wanted)
    assert (squared_distances(x, x) >= 0).all()
    assert torch.autograd.gradcheck(squared_distances, (x.requires_grad_(), y.requires_grad_()))


@pytest.mark.parametrize("junk", [0.0, 1e6])
def test_rows_and_columns_beyond_change_nothing(junk):
    cost, rows, columns = random_costs(pairs=3), torch.tensor([4, 2, 1]), torch.tensor([3, 5, 1])
    real = (torch.arange(4)[:, None] < rows[:, None, None]) & (torch.arange(5) < columns[:, None, None])
    padded = cost.where(real, junk)
    values, occupancy = soft_dtw(padded, 0.1, rows, columns), soft_dtw_alignment(padded, 0.1, rows, columns)
    path = dtw_path(padded, rows, columns)
    assert (occupancy[~real] == 0).all() and not path[~real].any()
    for p, (n, m) in enumerate(zip(rows, columns)):
        alone = cost[p : p + 1, :n, :m]
        torch.testing.assert_close(values[p], soft_dtw(alone, 0.1)[0], rtol=1e-12, atol=0)
        torch.testing.assert_close(occupancy[p, :n, :m], soft_dtw_alignment(alone, 0.1)[0])
        assert torch.equal(path[p, :n, :m], dtw_path(alone)[0])


@pytest.mark.parametrize("shape", [(1, 1), (1, 4), (4, 1)])
def test_one_frame_meets_every_other(shape):
    cost = random_costs(*shape)
    for combine in (softest(0.1), weighted(0.1), hardest):
        torch.testing.assert_close(read_corner(accumulate(cost, combine)), cost.sum((1, 2)))
    assert dtw_path(cost).all() and (soft_dtw_alignment(cost, 0.1) == 1).all()


@pytest.mark.parametrize("seed", range(3))
def test_path_is_the_cheapest(seed):
    cost = random_costs(seed=seed)
    for one, path in zip(cost, dtw_path(cost)):
        cheapest = all_paths(4, 5)[path_costs(one).argmin()]
        assert [tuple(cell) for cell in path.nonzero().tolist()] == cheapest


def test_ties_prefer_the_diagonal_then_the_row_above():
    assert torch.equal(dtw_path(torch.zeros(1, 3, 3))[0], torch.eye(3, dtype=torch.bool))
    cost = torch.zeros(1, 3, 3)
    cost[0, 1, 1] = 5  # now (1, 2) and (2, 1) tie for the last step
    assert dtw_path(cost)[0].nonzero().tolist() == [[0, 0], [0, 1], [1, 2], [2, 2]]


def test_alignment_is_there_without_gradients():
    cost = random_costs()
    with torch.no_grad():
        assert torch.equal(soft_dtw_alignment(cost, 0.1), soft_dtw_alignment(cost.requires_grad_(), 0.1))
    assert cost.grad is None


def test_far_apart_and_repeated_frames_stay_finite():
    for frames in (10 * torch.eye(6)[None], torch.ones(1, 6, 4)):
        for combine in (softest(0.1), weighted(0.1), softest(1e-6)):
            z = frames.clone().requires_grad_()
            value = read_corner(accumulate(squared_distances(z, frames), combine))
            assert value.isfinite().all() and torch.autograd.grad(value.sum(), z)[0].isfinite().all()


# Sinkhorn in log space


def log_kernels(rows=(3, 5), columns=(4, 2), size=(5, 4)):
    """Log kernels of two pairs, and their real cells."""
    log_kernel = 3 * torch.randn(2, *size, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.zeros(2, *size, dtype=torch.bool)
    for pair, (n, m) in enumerate(zip(rows, columns)):
        real[pair, :n, :m] = True
    return log_kernel, real


def naive_sinkhorn(kernel, rounds=21):
    """The scalings of one pair, outside log space."""
    n, m = kernel.shape
    u = torch.full((n,), 1 / n, dtype=kernel.dtype)
    for _ in range(rounds):
        v = (1 / m) / (kernel.T @ u)
        u = (1 / n) / (kernel @ v)
    return torch.diag(u) @ kernel @ torch.diag(v)


def test_sinkhorn_equals_naive_scalings_of_each_pair():
    log_kernel, real = log_kernels()
    for rounds in (1, 21):
        plan = sinkhorn(log_kernel, real, rounds)
        for pair, (n, m) in enumerate(((3, 4), (5, 2))):
            wanted = naive_sinkhorn(log_kernel[pair, :n, :m].exp(), rounds)
            torch.testing.assert_close(plan[pair, :n, :m], wanted, rtol=1e-10, atol=0)


def test_rows_of_a_plan_sum_exactly_and_columns_nearly():
    log_kernel, real = log_kernels()
    plan = sinkhorn(log_kernel, real)
    rows, columns = real.any(2), real.any(1)
    torch.testing.assert_close(plan.sum(2), rows / rows.sum(1, keepdim=True).double(), rtol=0, atol=1e-12)
    torch.testing.assert_close(plan.sum(1), columns / columns.sum(1, keepdim=True).double(), rtol=0, atol=1e-2)


def test_padding_of_a_kernel_gets_nothing_and_changes_nothing():
    log_kernel, real = log_kernels()
    junk = torch.where(real, log_kernel, torch.inf).requires_grad_()
    plan = sinkhorn(junk, real)
    assert torch.equal(plan, sinkhorn(log_kernel, real)) and (plan[~real] == 0).all()
    (gradient,) = torch.autograd.grad(plan.square().sum(), junk)
    assert (gradient[~real] == 0).all() and gradient.isfinite().all()


def test_scaling_rows_of_the_kernel_changes_nothing_in_the_end():
    log_kernel, real = log_kernels((5, 5), (4, 4))
    shift = torch.randn(2, 5, 1, dtype=torch.float64)
    torch.testing.assert_close(sinkhorn(log_kernel + shift, real, 500), sinkhorn(log_kernel, real, 500))


def test_sinkhorn_survives_kernels_that_overflow():
    log_kernel, real = log_kernels()
    assert sinkhorn(200 * log_kernel.float(), real).isfinite().all()


def test_gradient_of_sinkhorn_equals_finite_differences():
    log_kernel, real = log_kernels()
    assert torch.autograd.gradcheck(lambda k: sinkhorn(k, real, 3), log_kernel.requires_grad_())
