"""Video alignment by optimal transport: the objective of VAVA."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypedDict, Unpack

import torch
from torch import Tensor
from torch.nn.functional import pad, softplus

from mvf.losses.dtw import sinkhorn, squared_distances
from mvf.losses.objective import VARIANTS, PairObjective, Side, masked_mean, require_choice, require_positive

FLOOR, CEILING = math.log(1e-15), math.log(1e20)  # bounds of the logarithm of the kernel
WINDOW, MARGIN = 15, 2.0  # positions within which frames of a video are drawn together; distance sought beyond
PARTNERS_WEIGHT, PARTNERS_TEMPERATURE = 1e-4, 0.5


@dataclass(frozen=True)
class TemporalTransport:
    """Transport between two videos, of P pairs; row and column 0 are virtual, padding is 0.

    Attributes:
        plan: (P, N, M) mass moved between frames.
        kernel: (P, N, M) what Sinkhorn scales to the plan.
        prior: (P, N, M) how likely frames match by their times, without gradient.
        smoothness: (P, N, M) bonus of cells near the diagonal and the matches, without gradient.
        cost: (P, N, M) squared distances of frames.
        total: (P,) cost of the plan.
        vava: (P,) `total` over the number of real cells: the value of the published code.
    """

    plan: Tensor
    kernel: Tensor
    prior: Tensor
    smoothness: Tensor
    cost: Tensor
    total: Tensor
    vava: Tensor


class PriorOptions(TypedDict, total=False):
    """Arguments of `temporal_priors` that are not tensors."""

    step: int
    lambda1: float
    neighbourhood: float
    variance: float
    variant: str


def mixing(step: int) -> float:
    """Share of the diagonal in the priors: falls from 0.999 at step 0 to 0.001.

    Example:
        >>> round(mixing(10000), 6)
        0.904792
    """
    return min(max(0.999 ** math.isqrt(step + 1), 0.001), 0.999)


@torch.no_grad()
def temporal_priors(
    nearest: Tensor,
    real: Tensor,
    step: int = 0,
    lambda1: float = 1.0,
    neighbourhood: float = 5.0,
    variance: float = 2.0,
    variant: str = "corrected",
) -> tuple[Tensor, Tensor]:
    """Logarithm of the prior, and smoothness, (P, N, M) each: of cells by their offsets from diagonal and match.

    Args:
        nearest: (P, N - 1) position of the frame of y that is nearest to each frame of x.
        real: (P, N, M) True in the n rows and m columns of each pair that are not padding.
        step: Training step; it sets the balance between diagonal and match.
        lambda1: As in the class, like the arguments after it.
    """
    n, m = (real.any(dim).sum(1).double()[:, None, None] for dim in (2, 1))
    i, j = (torch.arange(1, size + 1, device=real.device) for size in real.shape[1:])
    column = pad(nearest + (2 if variant == "corrected" else 1), (1, 0), value=1)[..., None]
    virtual = (i[:, None] == 1) ^ (j == 1)  # except the corner
    beyond = 1.5 * 2 * neighbourhood / (n + m)
    diagonal = torch.where(virtual, beyond, (i[:, None] / n - j / m).abs())
    match = torch.where(virtual, beyond, (j / m - column / m).abs())

    width, phi = variance * (1 / n**2 + 1 / m**2).sqrt(), mixing(step)
    near_diagonal, near_match = (-((offset / width) ** 2) / 2 for offset in (diagonal, match))
    log_prior = torch.logaddexp(math.log(phi) + near_diagonal, math.log1p(-phi) + near_match)
    smoothness = lambda1 * (n + m - 2) * (phi / (diagonal**2 + 1) + (1 - phi) / (match**2 + 1))
    return log_prior - math.log(variance * math.sqrt(2 * math.pi)), smoothness


def temporal_transport(
    x: Tensor,
    y: Tensor,
    valid_x: Tensor,
    valid_y: Tensor,
    lambda2: float = 0.1,
    virtual_cost: float = 0.5,
    **priors: Unpack[PriorOptions],
) -> TemporalTransport:
    """Optimal transport between the frames of two videos, under the priors.

    Args:
        x: (P, N - 1, E) embeddings, valid ones first, zeros after them.
        y: (P, M - 1, E) embeddings, the same.
        valid_x: (P, N - 1) False in padding.
        valid_y: (P, M - 1) False in padding.
        lambda2: As in the class.
        virtual_cost: As in the class.
        **priors: Further arguments of `temporal_priors`.

    Example:
        >>> frames, valid = torch.eye(2)[None], torch.ones(1, 2, dtype=torch.bool)
        >>> temporal_transport(frames, frames, valid, valid).total
        tensor([0.1667])
    """
    cost = pad(squared_distances(x, y), (1, 0, 1, 0), value=virtual_cost)
    rows, columns = (pad(valid, (1, 0), value=True) for valid in (valid_x, valid_y))
    real = rows[:, :, None] & columns[:, None]
    nearest = cost.detach().masked_fill(~real, math.inf)[:, 1:, 1:].argmin(dim=2)
    log_prior, smoothness = (table.to(cost) for table in temporal_priors(nearest, real, **priors))
    scale = lambda2 / 4 * (valid_x.sum(1) * valid_y.sum(1)).to(cost)[:, None, None]
    log_kernel = (log_prior + (smoothness - cost) / scale).clamp(FLOOR, CEILING)
    plan = sinkhorn(log_kernel, real)
    kernel, prior, smoothness, cost = (
        torch.where(real, table, 0) for table in (log_kernel.exp(), log_prior.exp(), smoothness, cost)
    )
    total = (plan * cost).sum((1, 2))
    return TemporalTransport(plan, kernel, prior, smoothness, cost, total, total / real.sum((1, 2)))


def position_contrast(z: Tensor, valid: Tensor) -> Tensor:
    """(P,) mean over pairs of frames of a video: near ones cost their distance, far ones what they lack of the margin.

    Distances are means over channels, so between unit vectors of E channels at most 4 / E: the term then hardly keeps
    frames from collapsing. Nearness is measured in positions of the sample.
    """
    position = torch.arange(z.shape[1], device=z.device)
    apart = (position[:, None] - position).abs()
    distance = squared_distances(z, z) / z.shape[-1]
    each = torch.where(apart > WINDOW, (MARGIN - distance).clamp(min=0), distance / (apart**2 + 1))
    pair = valid[:, :, None] & valid[:, None]
    return masked_mean(each.flatten(1), pair.flatten(1))


def partner_contrast(score: Tensor, distance: Tensor, real: Tensor) -> Tensor:
    """(P,) cross-entropy of telling the frames' best partners from their worst by their distance.

    Args:
        score: (P, N, M) of partners; the highest is the best.
        distance: (P, N, M) of frames, mean over channels.
        real: (P, N, M) False in padding.
    """

    def nearness(choose: Callable[..., Tensor], shut: float) -> Tensor:
        scored = score.detach().masked_fill(~real, shut)
        chosen = ((dim, distance.gather(dim, choose(scored, dim, keepdim=True)).squeeze(dim)) for dim in (1, 2))
        rows, columns = (masked_mean(found, real.any(dim)) for dim, found in chosen)
        return rows + columns

    best, worst = nearness(torch.argmax, -math.inf), nearness(torch.argmin, math.inf)
    return softplus((best - worst) / PARTNERS_TEMPERATURE)


class VideoAlignmentByOptimalTransportLoss(PairObjective):
    """Moves the frames of a video onto those of another at the least cost, preferring their order in time.

    The transport is entropic and prefers cells near the diagonal, and with training more and more those near each
    frame's nearest neighbour; a virtual frame takes frames without a counterpart. Equal embeddings would solve this, so
    a contrast of positions in each video keeps them apart; a weak one of the best and worst partners is added. The
    published code was rewritten from memory by its authors, untested: its constants are hints.

    `variant="reference"` computes what that code computes (two statements of it moved, so that it runs): neighbours
    one column early, transport divided twice by its number of cells, partners chosen by kernel times cost, which
    prefers costly ones, and n = m only. `"corrected"` does none of this.

    Reference: Liu et al., CVPR 2022, https://arxiv.org/abs/2111.09301.

    Args:
        lambda1: Strength of the preference for smooth plans, per frame.
        lambda2: Entropy of the plan, per cell.
        virtual_cost: Cost of leaving a frame without a counterpart.
        neighbourhood: Distance from the diagonal at which virtual cells are taken to lie, in frames.
        variance: Spread of the prior, in cells.
        transport_weight: Weight of the transport, relative to the contrast of positions.
        variant: `reference` or `corrected`.

    Attributes:
        step: Steps of training done, kept in the state dict.

    Shape:
        embeddings (B, V, T, E), clip.action (B,) -> scalar

    Raises:
        ValueError: without pairs of one action; in `reference`, for pairs of different numbers of frames.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 8), action=torch.zeros(2))
        >>> VideoAlignmentByOptimalTransportLoss()(torch.randn(2, 1, 8, 16), clip).shape
        torch.Size([])
    """

    reads, sampler, pairs = "unit", "action_segments", "once"

    def __init__(
        self,
        lambda1: float = 1.0,
        lambda2: float = 0.1,
        virtual_cost: float = 0.5,
        neighbourhood: float = 5.0,
        variance: float = 2.0,
        transport_weight: float = 1.0,
        variant: str = "corrected",
    ) -> None:
        super().__init__()
        options = {"lambda1": lambda1, "lambda2": lambda2, "virtual_cost": virtual_cost}
        self.transport_options = options | {"neighbourhood": neighbourhood, "variance": variance}
        require_positive(or_zero=False, **self.transport_options)
        require_positive(or_zero=True, transport_weight=transport_weight)
        require_choice("variant", variant, VARIANTS)
        self.transport_weight, self.variant, self.step = transport_weight, variant, 0

    def advance(self) -> None:
        """Counts a step of training."""
        self.step += 1

    def get_extra_state(self) -> int:
        """The step, for the state dict."""
        return self.step

    def set_extra_state(self, state: int) -> None:
        """Restores the step."""
        self.step = int(state)

    def check_counts(self, first: Tensor, second: Tensor) -> None:
        """In the reference variant also refuses pairs of different numbers of frames."""
        if self.variant == "reference" and (first != second).any():
            counts = list(zip(first.tolist(), second.tolist()))
            raise ValueError(
                f'variant "reference" needs equally many valid frames in a pair, got {counts}: use "corrected"'
            )

    def compute_pairs(self, x: Side, y: Side) -> Tensor:
        """Transport, contrast of positions and contrast of partners, mean over pairs."""
        found = temporal_transport(
            x.z, y.z, x.valid, y.valid, step=self.step, variant=self.variant, **self.transport_options
        )
        transport, score = found.total, found.plan
        if self.variant == "reference":
            transport, score = found.vava / (x.counts * y.counts), found.kernel * found.cost
        real, distance = x.valid[:, :, None] & y.valid[:, None], found.cost[:, 1:, 1:] / x.z.shape[-1]
        positions = (position_contrast(x.z, x.valid) + position_contrast(y.z, y.valid)) / 2
        partners = partner_contrast(score[:, 1:, 1:], distance, real)
        terms = {"transport": transport.mean(), "positions": positions.mean(), "partners": partners.mean()}
        self.parts = {name: term.detach() for name, term in terms.items()}
        return terms["positions"] + self.transport_weight * terms["transport"] + PARTNERS_WEIGHT * terms["partners"]
