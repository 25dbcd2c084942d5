"""VSP-P: the process contrast with bridges over phases."""

from __future__ import annotations

import torch

from mvf.clip import Clip
from mvf.losses.bridges import Bridges, join_bridges, phase_bridges, valid_phases
from mvf.losses.vsp import ProcessContrastiveLoss


class PhaseProcessContrastiveLoss(ProcessContrastiveLoss):
    """Puts a frame on the way from the beginning to the end of its phase (VSP-P).

    The contrast is that of `ProcessContrastiveLoss`; here a bridge spans a run of at least 3 valid frames of one
    phase, and the point lies anywhere inside it. With one segment clips show one phase each; with more they show
    whole videos, and `segments` consecutive runs are drawn, or all where a video has fewer. Videos without such a run
    have no bridge and do not count. What is known of the phases is where they end, not which they are.

    Reference: Zhang et al., Modeling Video as Stochastic Processes, CVPR 2023.

    Args:
        variance_power: As of `ProcessContrastiveLoss`.
        segments: Phases of every video that get a bridge; 1 chooses the sampler `phase`, more choose `frames`.
        overlap: Not used: phases do not overlap.
        temperature: Not used here, see `vsp_f`.
        variant: `reference` or `corrected`, as of `ProcessContrastiveLoss`.

    Shape:
        embeddings (B, 1, T, E) of unit norm, clip.phase (B, 1, T) -> scalar

    Raises:
        ValueError: without phase labels, and where no video of the batch has a run of 3 frames of one phase.

    Example:
        >>> from dataclasses import replace
        >>> from mvf.clip import example_clip
        >>> clip = replace(example_clip(2, 1, 6), phase=torch.tensor([[[0, 0, 0, 1, 1, 1]], [[0, 0, 1, 1, 1, 1]]]))
        >>> round(PhaseProcessContrastiveLoss(segments=2)(torch.ones(2, 1, 6, 4), clip).item(), 4)  # ln(3 * 3 - 2)
        1.9459
    """

    sampler, labels = "phase", "phase"

    def __init__(
        self,
        variance_power: float | None = None,
        segments: int = 1,
        overlap: float = 0.2,
        temperature: float = 0.1,
        variant: str = "corrected",
    ) -> None:
        super().__init__(variance_power, segments, overlap, temperature, variant)
        self.sampler = "phase" if segments == 1 else "frames"

    def draw(self, clip: Clip, generator: torch.Generator | None) -> Bridges:
        """Bridges over phases."""
        drawn = [phase_bridges(phases, self.segments, generator) for phases in valid_phases(clip)]
        if not any(drawn):
            raise ValueError(
                f"none of the {len(drawn)} videos has 3 valid frames of one phase in a row: use more num_frames, "
                'segments=1 with the sampler "phase", or the objective "vsp", which needs no phases'
            )
        return join_bridges(drawn, clip.valid.device)
