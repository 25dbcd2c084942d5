"""Entropic optimal transport between uniform marginals, in log space and batched over pairs."""

from __future__ import annotations

import torch
from torch import Tensor

from mvf.losses.dtw import OUTSIDE


def sinkhorn(log_kernel: Tensor, real: Tensor, rounds: int = 21) -> Tensor:
    """Plans (P, N, M) diag(u) K diag(v) whose n rows sum to 1 / n, and whose m columns nearly to 1 / m.

    Every round scales the columns, then the rows, so the marginals of rows are exact. All rounds carry gradient. Cells
    that are not real get nothing and change nothing.

    Reference: Cuturi, NIPS 2013, https://arxiv.org/abs/1306.0895.

    Args:
        log_kernel: (P, N, M) log K, finite in real cells.
        real: (P, N, M) True in n whole rows by m whole columns of each pair.
        rounds: Scalings of columns and rows.

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
        # padding gets the factor 1: the one that gave it mass would be infinite
        log_v = torch.where(real_column, share_column - (log_kernel + log_u[:, :, None]).logsumexp(dim=1), 0)
        log_u = torch.where(real_row, share_row - (log_kernel + log_v[:, None]).logsumexp(dim=2), 0)
    return (log_u[:, :, None] + log_kernel + log_v[:, None]).exp()
