"""Dynamic time warping, hard, soft and by probabilities, batched over pairs and swept by anti-diagonals.

A monotone path through an (N, M) grid goes from (0, 0) to (N-1, M-1) by steps (1, 0), (0, 1), (1, 1). The table of
accumulated costs is R = C + combine(R left, R diagonal, R up); `combine` determines the kind of warping.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Combine = Callable[[Tensor], Tensor]  # (..., 3) accumulated costs of left, diagonal and upper neighbours -> (...)
OUTSIDE = 1e30  # accumulated cost outside the grid: its exponential is exactly 0, its products stay finite


def squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """(P, N, E), (P, M, E) -> (P, N, M) squared Euclidean distances, never below 0."""
    product = x @ y.transpose(-1, -2)
    norms = x.square().sum(-1)[..., :, None] + y.square().sum(-1)[..., None, :]
    return (norms - 2 * product).clamp(min=0)


def softest(gamma: float) -> Combine:
    """Soft minimum -gamma log sum exp(-r / gamma): soft-DTW (Cuturi and Blondel, ICML 2017)."""

    def combine(r: Tensor) -> Tensor:
        least = r.detach().amin(dim=-1, keepdim=True)  # else float32 loses the shares of long paths
        return least[..., 0] - gamma * torch.logsumexp((least - r) / gamma, dim=-1)

    return combine


def weighted(gamma: float) -> Combine:
    """Mean of the neighbours weighted by softmax(-r / gamma)."""
    return lambda r: (torch.softmax(-r / gamma, dim=-1) * r).sum(-1)


def hardest(r: Tensor) -> Tensor:
    """The minimum."""
    return r.amin(dim=-1)


def accumulate(cost: Tensor, combine: Combine) -> Tensor:
    """Table of accumulated costs (P, N, M) of costs (P, N, M).

    Every anti-diagonal is one step for all pairs, so N + M - 1 steps make the table, and autograd its gradient.
    """
    pairs, rows, columns = cost.shape
    row = torch.arange(rows, device=cost.device)
    column = torch.arange(rows + columns - 1, device=cost.device)[:, None] - row  # column of diagonal k at row i
    inside = (column >= 0) & (column < columns)
    skewed = cost[:, row, column.clamp(0, columns - 1)]  # (P, K, N): one diagonal per row
    on_diagonal = torch.where(inside, skewed, 0).unbind(1)
    border = cost.new_full((pairs, 1), OUTSIDE)
    far = cost.new_full((pairs, rows), OUTSIDE)
    before, latest = far, far
    diagonals = []
    for k in range(rows + columns - 1):
        start = border if k else torch.zeros_like(border)  # the path starts before (0, 0)
        diagonal = torch.cat([start, before[:, :-1]], dim=1)
        up = torch.cat([border, latest[:, :-1]], dim=1)
        now = on_diagonal[k] + combine(torch.stack([latest, diagonal, up], dim=-1))
        now = torch.where(inside[k], now, OUTSIDE)
        diagonals.append(now)
        before, latest = latest, now
    grid = row[:, None] + torch.arange(columns, device=cost.device)  # diagonal of every cell
    return torch.stack(diagonals, dim=1)[:, grid, row[:, None]]


def read_corner(table: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """(P,) values at the last cell of each pair, which has `rows` x `columns` real cells; by default all."""
    pairs = torch.arange(len(table), device=table.device)
    last = [n - 1 if n is not None else size - 1 for n, size in zip((rows, columns), table.shape[1:])]
    return table[pairs, last[0], last[1]]


def soft_dtw(cost: Tensor, gamma: float, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Soft-DTW (P,) of costs (P, N, M): -gamma log of the sum over all paths of exp(-cost / gamma).

    Args:
        cost: Cost of matching every frame of one video with every frame of the other.
        gamma: Smoothing, above 0; towards 0 the value rises to hard DTW.
        rows: (P,) real rows of each pair; cells beyond change nothing.
        columns: (P,) real columns.

    Example:
        >>> round(soft_dtw(torch.zeros(1, 3, 3), 0.1).item(), 4)  # 13 paths
        -0.2565
    """
    return read_corner(accumulate(cost, softest(gamma)), rows, columns)


def soft_dtw_alignment(cost: Tensor, gamma: float, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Gradient of `soft_dtw` (P, N, M): the expected share of paths through every cell.

    Example:
        >>> soft_dtw_alignment(torch.zeros(1, 2, 2), 1.0)
        tensor([[[1.0000, 0.3333],
                 [0.3333, 1.0000]]])
    """
    with torch.enable_grad():
        leaf = cost.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(soft_dtw(leaf, gamma, rows, columns).sum(), leaf)
    return gradient


@torch.no_grad()
def dtw_path(cost: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> Tensor:
    """Cells (P, N, M), bool, of the cheapest path of each pair; ties prefer the diagonal, then the row above.

    Example:
        >>> dtw_path(torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]))
        tensor([[[ True, False],
                 [False,  True]]])
    """
    table = torch.nn.functional.pad(accumulate(cost, hardest), (1, 0, 1, 0), value=OUTSIDE)
    pairs, n, m = cost.shape
    each = torch.arange(pairs, device=cost.device)
    i = torch.full_like(each, n) if rows is None else rows.clone()
    j = torch.full_like(each, m) if columns is None else columns.clone()
    path, passed = torch.zeros_like(table, dtype=torch.bool), torch.ones_like(each, dtype=torch.bool)
    for _ in range(n + m - 1):
        path[each, i, j] = passed
        left = (i > 1) | (j > 1)
        # the first of equals: diagonal, up, left
        came = torch.stack([table[each, i - 1, j - 1], table[each, i - 1, j], table[each, i, j - 1]]).argmin(dim=0)
        i = i - ((came != 2) & left).long()
        j = j - ((came != 1) & left).long()
    return path[:, 1:, 1:]


def sinkhorn(log_kernel: Tensor, real: Tensor, rounds: int = 21) -> Tensor:
    """Plans (P, N, M) diag(u) K diag(v) whose n rows sum to 1 / n, and whose m columns nearly to 1 / m.

    Every round scales the columns, then the rows, so the marginals of rows are exact. All rounds carry gradient. Cells
    that are not real get nothing and change nothing.

    Reference: Cuturi, NIPS 2013, https://arxiv.org/abs/1306.0895.

    Args:
        log_kernel: (P, N, M) log K, finite in real cells.
        real: (P, N, M) True in n whole rows by m whole columns of each pair.
        rounds: Scalings of columns and rows, in log space.

    Example:
        >>> sinkhorn(torch.tensor([[[2.0, 0.0], [0.0, 2.0]]]), torch.ones(1, 2, 2, dtype=torch.bool))
        tensor([[[0.4404, 0.0596],
                 [0.0596, 0.4404]]])
    """
    log_kernel = torch.where(real, log_kernel, -OUTSIDE)
    real_row, real_column = real.any(dim=2), real.any(dim=1)
    share_row, share_column = (-side.sum(1, keepdim=True).to(log_kernel).log() for side in (real_row, real_column))
    log_u = share_row.expand(real_row.shape)
    for _ in range(rounds):
        # padding gets the factor 1, as one that gave it mass would be infinite
        log_v = torch.where(real_column, share_column - (log_kernel + log_u[:, :, None]).logsumexp(dim=1), 0)
        log_u = torch.where(real_row, share_row - (log_kernel + log_v[:, None]).logsumexp(dim=2), 0)
    return (log_u[:, :, None] + log_kernel + log_v[:, None]).exp()
