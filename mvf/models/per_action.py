"""One model an action: the starred rows of the paper's Table 4, behind the surface of one model."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mvf.models.backbone import Backbone
from mvf.models.mvformer import Architecture, MVFormer


class ModelPerAction(nn.Module):
    """Models that were each trained on the videos of one action; `of` gives the one for a video.

    Frozen backbones with the same weights are kept once.

    Args:
        models: By action; all of one architecture.
    """

    def __init__(self, models: Mapping[str, MVFormer]) -> None:
        super().__init__()
        if not models:
            raise ValueError("one model an action needs at least one action, got none")
        self.actions = tuple(models)
        self.models = nn.ModuleList(models.values())
        first = self.models[0]
        for model in self.models:
            if _same_frozen(model.backbone, first.backbone):
                model.backbone = first.backbone

    def of(self, action: str) -> MVFormer:
        """The model of an action.

        Raises:
            ValueError: for an action without a model.
        """
        if action not in self.actions:
            raise ValueError(f'there is no model for action "{action}"; there are models for {", ".join(self.actions)}')
        return self.models[self.actions.index(action)]

    @property
    def backbone(self) -> Backbone | None:
        return self.models[0].backbone

    @property
    def architecture(self) -> Architecture:
        return self.models[0].architecture

    def position_table(self, length: int) -> Tensor:
        """(length, width) position table, the same in all models."""
        return self.models[0].position_table(length)

    def trained_state(self) -> dict[str, Tensor]:
        """The states of all models without their frozen backbones."""
        parts = zip(self.actions, self.models)
        return {f"{action}.{name}": t for action, model in parts for name, t in model.trained_state().items()}

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> None:
        """Refuses: frames alone do not say which action they show."""
        raise TypeError("a model per action needs to know the action: model.of(action)(frames, valid)")


def model_of(model: MVFormer | ModelPerAction, action: str) -> MVFormer:
    """The model that reads a video of `action`."""
    return model.of(action) if isinstance(model, ModelPerAction) else model


def _same_frozen(one: Backbone | None, other: Backbone | None) -> bool:
    if one is None or other is None or any(p.requires_grad for p in one.parameters()):
        return False
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))
