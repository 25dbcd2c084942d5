"""MV-Former (paper, Figure 2): image backbone, spatial pooling to entities, temporal fusion to frame embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import copy
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from mvf.config import html_table
from mvf.models.backbone import Backbone
from mvf.models.fusion import MultiEntityTemporalFusion, token_mlp
from mvf.models.lstp import LearnableSpatialTokenPooling
from mvf.models.motion import MotionMap
from mvf.models.pooling import make_pooling
from mvf.models.stored import (
    BACKBONE,
    check_shapes,
    check_state,
    is_trained,
    read_model,
    rebuild_backbone,
    save_model,
    stored_settings,
)

MOTION = "motion."  # prefix of the tensors of the motion skip


@dataclass(frozen=True)
class Architecture:
    """Hyperparameters of the trained parts; the defaults are the paper's for Penn Action (DINO ViT-B/8)."""

    channels: int = 2304  # C: channels of a patch, all layers together
    cls_channels: int | None = 768  # C0: channels of the class token; None without one
    pooling: str = "lstp"
    entities: int = 3
    entity_width: int = 384
    entity_id: bool = True  # one-hot appended to every entity
    entity_competition: bool = False  # entities compete for patches
    token_width: int = 512
    fusion_width: int = 256
    fusion_blocks: int = 3
    fusion_heads: int = 8
    fusion_feedforward: int = 1024
    dropout: float = 0.1
    positions: str = "sine"
    token_merge: float = 0.0  # share of the tokens merged along time in the fusion
    readout: str = "cls"  # the token of entity 1, or the mean over entities
    embedding_size: int = 128
    projection_width: int = 128  # hidden width of the training-only head; 0: no head
    num_frames: int = 80  # T0: frames of a training clip
    velocity_offsets: tuple[int, ...] = ()  # frames: velocity follows every token; empty: off

    def as_dict(self) -> dict[str, Any]:
        """Values by name; without `velocity_offsets` when they are off, so that such a model is named as it was."""
        return {name: value for name, value in asdict(self).items() if name != "velocity_offsets" or value}


@dataclass(frozen=True)
class MVFormerOutput:
    """The result of one forward pass.

    Attributes:
        raw_embeddings: (B, T, E) one embedding per frame.
        embeddings: (B, T, E) the same with unit norm.
        projections: (B, T, E) unit norm of the training-only head, which reads `raw_embeddings`; None when left out.
        entities: (B, T, N, D); None where the pooling has none.
        attention: (B, T, N, P) weights over patches that sum to 1; None where the pooling has none.
    """

    raw_embeddings: Tensor
    embeddings: Tensor
    projections: Tensor | None = None
    entities: Tensor | None = None
    attention: Tensor | None = None


class FrameEmbedder(Protocol):
    """A model that embeds the frames of a video: one `MVFormer` for all videos, or a `ModelPerAction`.

    Attributes:
        training: Whether it is in training mode.
        actions: The actions that have a model of their own; empty when one model reads all videos.
    """

    training: bool
    actions: tuple[str, ...]

    @property
    def architecture(self) -> Architecture:
        """Hyperparameters of the trained parts."""

    @property
    def backbone(self) -> Backbone | None:
        """The image backbone; None when only stored features can be read."""

    def of(self, action: str) -> MVFormer:
        """The model that reads videos of `action`."""

    def without_skip(self) -> FrameEmbedder:
        """The same without motion skips, parameters shared; itself if it has none."""

    def position_table(self, length: int) -> Tensor:
        """(length, width) position table as the model adds it to a clip of `length` frames."""

    def trained_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen part of the backbone."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """As of `torch.nn.Module`."""

    def to(self, device: torch.device) -> Self:
        """As of `torch.nn.Module`."""

    def train(self, mode: bool = True) -> Self:
        """As of `torch.nn.Module`."""

    def eval(self) -> Self:
        """As of `torch.nn.Module`."""


class MVFormer(nn.Module):
    """Multi-entity Video Transformer.

    Reference: Walmer et al., https://arxiv.org/abs/2311.10873, section 3 and Figure 2.

    Args:
        architecture: Hyperparameters of the trained parts.
        backbone: Network `(M, 3, S, S) -> (patches (M, P, C), cls (M, C0) or None)`, frozen except for its
            `trained_parts`, if it has any; without one only `fuse` works, which starts from its features.

    Attributes:
        motion: The motion skip, which is fitted after training (docs/design.md, section 6); None without one. It is
            added where whole clips are embedded (`mvf.embed`); `forward` and `fuse` do not use it.
        velocity_width: C·O numbers of velocity, over O offsets, follow every token; 0 without velocity.
        token_channels: D + C·O, the channels that `fuse_tokens` reads.
        velocity_center, velocity_scale: (C·O,) mean and standard deviation of the velocity in the training frames.

    Shape:
        frames (B, T, 3, S, S) in [0, 1], valid (B, T) True where a frame is real, velocity (B, T, C·O) the differences
        `mvf.models.motion.velocity_at` of the source videos -> `MVFormerOutput`

    Example:
        >>> model = MVFormer(Architecture(channels=48, cls_channels=16, num_frames=8)).eval()
        >>> out = model.fuse(torch.randn(2, 8, 49, 48))
        >>> out.embeddings.shape, out.attention.shape
        (torch.Size([2, 8, 128]), torch.Size([2, 8, 3, 49]))
    """

    actions: tuple[str, ...] = ()  # one model reads videos of every action
    velocity_center: Tensor
    velocity_scale: Tensor

    def __init__(self, architecture: Architecture | None = None, backbone: Backbone | None = None) -> None:
        super().__init__()
        a = self.architecture = architecture or Architecture()
        if a.readout not in ("cls", "mean"):
            raise ValueError(f'unknown readout "{a.readout}"; known: cls, mean')
        self.backbone = backbone
        self.pooling = make_pooling(
            a.pooling, a.channels, a.cls_channels, a.entity_width, a.entities, a.entity_competition
        )
        self.has_entity_id = a.entity_id and self.pooling.makes_entities
        self.velocity_width = a.channels * len(a.velocity_offsets)
        if self.velocity_width:
            self.register_buffer("velocity_center", torch.zeros(self.velocity_width))
            self.register_buffer("velocity_scale", torch.ones(self.velocity_width))
        self.token_channels = self.pooling.width + self.velocity_width
        inputs = self.token_channels + (self.pooling.entities if self.has_entity_id else 0)
        self.token_mlp = token_mlp(inputs, a.token_width, a.fusion_width, a.dropout)
        self.fusion = MultiEntityTemporalFusion(
            width=a.fusion_width,
            blocks=a.fusion_blocks,
            heads=a.fusion_heads,
            feedforward=a.fusion_feedforward,
            dropout=a.dropout,
            positions=a.positions,
            num_frames=a.num_frames,
            token_merge=a.token_merge,
        )
        self.embedding = nn.Linear(a.fusion_width, a.embedding_size)
        self.projection = _projection(a.embedding_size, a.projection_width) if a.projection_width else None
        self.motion: MotionMap | None = None

    def __repr__(self) -> str:
        """One line; `torch.nn.Module.__repr__(model)` lists all modules."""
        return f"MVFormer({'; '.join(self._about().values())})"

    def _repr_html_(self) -> str:
        return html_table("MVFormer", list(self._about().items()))

    def _about(self) -> dict[str, str]:
        a, trained = self.architecture, sum(p.numel() for p in self.parameters() if p.requires_grad)
        frozen = sum(p.numel() for p in self.parameters()) - trained
        entities = f", {a.entities} entit{'y' if a.entities == 1 else 'ies'}" if self.pooling.makes_entities else ""
        return {
            "backbone": "no backbone" if self.backbone is None else self.backbone.summary,
            "pooling": f"{a.pooling}{entities}",
            "fusion": f"{a.fusion_blocks} block{'s' * (a.fusion_blocks != 1)} of {a.fusion_width} channels",
            "embedding": f"{a.embedding_size} numbers a frame{', with a motion skip' if self.motion else ''}",
            "parameters": f"{trained / 1e6:.1f} M trained, {frozen / 1e6:.1f} M frozen",
        }

    # Figure 2, left to right --------------------------------------------------------------------------------------

    def forward(
        self, frames: Tensor, valid: Tensor | None = None, project: bool = True, velocity: Tensor | None = None
    ) -> MVFormerOutput:
        """frames (B, T, 3, H, W) in [0, 1] -> embeddings of all frames."""
        if self.backbone is None:
            raise ValueError("this model holds no backbone: give it one, or call fuse() with patch features")
        if frames.ndim != 5:
            raise ValueError(f"frames must be (B, T, 3, H, W), got {tuple(frames.shape)}")
        patches, cls = self.backbone(frames.flatten(0, 1))
        patches = patches.unflatten(0, frames.shape[:2])  # (B, T, P, C)
        cls = None if cls is None else cls.unflatten(0, frames.shape[:2])  # (B, T, C0)
        return self.fuse(patches, valid, cls, project, velocity)

    def fuse(
        self,
        patches: Tensor | None,
        valid: Tensor | None = None,
        cls: Tensor | None = None,
        project: bool = True,
        velocity: Tensor | None = None,
    ) -> MVFormerOutput:
        """Everything after the backbone: patches (B, T, P, C), cls (B, T, C0) -> embeddings of all frames."""
        tokens, attention = self.pool(patches, cls)
        out = self.fuse_tokens(self.with_velocity(tokens, velocity), valid, project)
        return replace(out, entities=tokens if self.pooling.makes_entities else None, attention=attention)

    def pool(self, patches: Tensor | None, cls: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """patches (B, T, P, C), cls (B, T, C0) -> tokens (B, T, N, D), attention (B, T, N, P) or None."""
        channels = self.architecture.channels
        if patches is not None and (patches.ndim != 4 or patches.shape[-1] != channels):
            raise ValueError(f"patches must be (B, T, P, {channels}), got {tuple(patches.shape)}")
        return self.pooling(patches, cls)

    def with_velocity(self, tokens: Tensor, velocity: Tensor | None) -> Tensor:
        """tokens (B, T, N, D), velocity (B, T, C·O) -> (B, T, N, D + C·O): z-scored velocity follows each token.

        Without velocity the tokens stay as they are.
        """
        if velocity is None:
            return tokens
        if velocity.shape != (wanted := (*tokens.shape[:2], self.velocity_width)):
            raise ValueError(f"velocity must be (B, T, C·O) = {tuple(wanted)}, got {tuple(velocity.shape)}")
        if not self.velocity_width:
            return tokens
        scaled = ((velocity - self.velocity_center) / self.velocity_scale).to(tokens.dtype)
        return torch.cat([tokens, scaled.unsqueeze(2).expand(-1, -1, tokens.shape[2], -1)], dim=-1)

    def fuse_tokens(
        self, tokens: Tensor, valid: Tensor | None = None, project: bool = True, place: tuple[int, int] | None = None
    ) -> MVFormerOutput:
        """Everything after the pooling: tokens (B, T, N, D) of `pool`, or `with_velocity` -> embeddings of all frames.

        In training, batch norm takes its statistics over all tokens, padded frames included, as published. When
        the tokens are a part of a longer video, `place` is the number of their first frame and the video's length.
        `valid` may be on the CPU, so that merging tokens does not have to wait for a GPU.
        """
        tokens = self.fusion(*self._map_tokens(tokens, valid), place)
        raw = self.embedding(self._read_out(tokens))  # (B, T, E)
        head = self.projection if project else None
        projections = None if head is None else _unit(_rows(head, raw))
        return MVFormerOutput(raw, _unit(raw), projections)

    def temporal_attention(
        self, tokens: Tensor, valid: Tensor | None = None, block: int = -1, frames: Tensor | None = None
    ) -> Tensor:
        """How much the readout of each frame attends to every entity of every frame, in one block of the fusion.

        With readout "mean" the weights of a frame's entities are averaged.

        Args:
            tokens: As in `fuse_tokens`.
            valid: (B, T) True where a frame is real.
            block: 1-based, negative from the end.
            frames: (F,) query frames; all by default.

        Returns:
            (B, F, T, N), mean over heads; sums to 1 over (T, N), and is 0 from and to padded frames.
        """
        asking = 1 if self.architecture.readout == "cls" else tokens.shape[2]
        return self.fusion.attention_rows(*self._map_tokens(tokens, valid), block, frames, asking)

    def _map_tokens(self, tokens: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Tokens of `fuse_tokens` -> what the fusion takes: (B, T, N, fusion width), and `valid` as bool."""
        if tokens.shape[-1] != self.token_channels:
            reads = f", {self.velocity_width} of them velocity: pass velocity, or embed whole videos with mvf.embed"
            wanted = f"{self.token_channels} channels{reads if self.velocity_width else ''}"
            raise ValueError(f"tokens must have {wanted}; got {tokens.shape[-1]}")
        if valid is not None and valid.shape != tokens.shape[:2]:
            raise ValueError(f"valid must be (B, T) = {tuple(tokens.shape[:2])}, got {tuple(valid.shape)}")
        return _rows(self.token_mlp, self._append_entity_id(tokens)), None if valid is None else valid.bool()

    def _append_entity_id(self, entities: Tensor) -> Tensor:
        if not self.has_entity_id:
            return entities
        identity = torch.eye(entities.shape[-2], dtype=entities.dtype, device=entities.device)
        return torch.cat([entities, identity.expand(*entities.shape[:2], -1, -1)], dim=-1)  # (B, T, N, D + N)

    def _read_out(self, tokens: Tensor) -> Tensor:
        return tokens[:, :, 0] if self.architecture.readout == "cls" else tokens.mean(dim=2)

    # what it shares with a model per action -----------------------------------------------------------------------

    def of(self, action: str) -> MVFormer:
        """This model, whatever the action."""
        return self

    def position_table(self, length: int) -> Tensor:
        """(length, width) position table as the model adds it to a clip of `length` frames."""
        return self.fusion.position_table(length)

    @property
    def velocity_scaling(self) -> dict[str, Tensor]:
        """`velocity_center` and `velocity_scale` by name; empty without velocity."""
        return dict(self.named_buffers(recurse=False))

    # files --------------------------------------------------------------------------------------------------------

    def trained_state(self) -> dict[str, Tensor]:
        """The state dict without the frozen part of the backbone, and the tensors of the motion skip."""
        trained = {name: t for name, t in self.state_dict().items() if is_trained(name, self.backbone)}
        skip = {} if self.motion is None else self.motion.tensors()
        return trained | {MOTION + name: tensor for name, tensor in skip.items()}

    def without_skip(self) -> MVFormer:
        """The same model, its parameters shared, without the motion skip; itself if it has none."""
        if self.motion is None:
            return self
        model = copy(self)
        model.motion = None
        return model

    def load_trained_state(self, state: dict[str, Tensor]) -> None:
        """Loads what `trained_state` returned.

        Raises:
            ValueError: if tensors are missing, left over, or of another shape; the message names them.
        """
        skip = {name.removeprefix(MOTION): tensor for name, tensor in state.items() if name.startswith(MOTION)}
        state = without_motion(state)
        check_state(without_motion(self.trained_state()), state)
        a = self.architecture
        self.motion = MotionMap.from_tensors(skip, a.channels, a.embedding_size) if skip else None
        self.load_state_dict(state, strict=False)

    def save_pretrained(self, folder: str | Path) -> None:
        """Writes `model.safetensors` and `model_config.json`.

        A frozen backbone that can be fetched again is stored by name and sha256, trained parts in full.
        """
        save_model(folder, self.architecture.as_dict(), self.trained_state(), self.backbone)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, backbone: bool = True, backbone_weights: str | Path | None = None
    ) -> MVFormer:
        """Reads a released head, a folder of `save_pretrained`, or a run folder, into a model in eval mode.

        Args:
            folder: Holds `model.safetensors` and `model_config.json`; or the name of a released head, like "drawn".
            backbone: False leaves the backbone out: only `fuse` works then, and no backbone weights are needed.
            backbone_weights: Where the backbone's weights are, if they have moved since.

        Raises:
            FileNotFoundError: when there is no such folder, or it holds no model.
            ValueError: when the folder holds no readable model, or the backbone found now is a different one.
        """
        stored = read_model(folder)
        architecture = stored_settings(Architecture, stored.architecture, folder)
        check_shapes(lambda: cls(architecture), without_motion(stored.trained_parts), check_state, folder)
        network = None
        if backbone and stored.backbone:
            network = rebuild_backbone(stored, folder, backbone_weights)
        model = cls(architecture, network)
        kept = (name for name in stored.trained if network is not None or not name.startswith(BACKBONE))
        model.load_trained_state({name: stored.trained[name] for name in kept})
        return model.eval()


def without_motion(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a model except those of its motion skip."""
    return {name: tensor for name, tensor in state.items() if not name.startswith(MOTION)}


def _projection(size: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), nn.BatchNorm1d(width), nn.ReLU(), nn.Linear(width, size))


def _rows(module: nn.Module, x: Tensor) -> Tensor:
    """Applies a module of rows (M, channels), which batch norm needs, to (..., channels)."""
    return module(x.flatten(0, -2)).unflatten(0, x.shape[:-1])


def _unit(x: Tensor) -> Tensor:
    return F.normalize(x.to(torch.promote_types(x.dtype, torch.float32)), dim=-1, eps=1e-12)


# ----------------------------------------------------------------------------------------------------------------------
# One model per action: the starred rows of the paper's Table 4


class ModelPerAction(nn.Module):
    """Models that were each trained on the videos of one action; `of` gives the one for a video.

    Frozen backbones with the same weights are kept once.

    Args:
        models: The models by action, all of the same architecture.
    """

    def __init__(self, models: Mapping[str, MVFormer]) -> None:
        super().__init__()
        if not models:
            raise ValueError("one model per action needs at least one action, got none")
        self.actions = tuple(models)
        self.models = nn.ModuleList(models.values())
        self._by_action = dict(models)
        first = self._first
        for model in models.values():
            if _same_frozen(model.backbone, first.backbone):
                model.backbone = first.backbone

    def __repr__(self) -> str:
        return f"ModelPerAction({', '.join(self.actions)}; each {self._first!r})"

    def of(self, action: str) -> MVFormer:
        """The model of an action.

        Raises:
            ValueError: for an action without a model.
        """
        if action not in self.actions:
            raise ValueError(f'there is no model for action "{action}"; there are models for {", ".join(self.actions)}')
        return self._by_action[action]

    def without_skip(self) -> ModelPerAction:
        """The same models, their parameters shared, without their motion skips; itself if none has one."""
        plain = {action: model.without_skip() for action, model in self._by_action.items()}
        return (
            self if all(plain[action] is model for action, model in self._by_action.items()) else ModelPerAction(plain)
        )

    @property
    def _first(self) -> MVFormer:
        return self._by_action[self.actions[0]]

    @property
    def backbone(self) -> Backbone | None:
        return self._first.backbone

    @property
    def architecture(self) -> Architecture:
        return self._first.architecture

    def position_table(self, length: int) -> Tensor:
        """(length, width) position table, the same in all models."""
        return self._first.position_table(length)

    def trained_state(self) -> dict[str, Tensor]:
        """The states of all models without their frozen backbones."""
        parts = self._by_action.items()
        return {f"{action}.{name}": t for action, model in parts for name, t in model.trained_state().items()}

    def forward(self, frames: Tensor, valid: Tensor | None = None) -> None:
        """Refuses: frames alone do not say which action they show."""
        raise TypeError("a model per action needs to know the action: model.of(action)(frames, valid)")


def _same_frozen(one: Backbone | None, other: Backbone | None) -> bool:
    if one is None or other is None or any(p.requires_grad for p in one.parameters()):
        return False
    states = one.state_dict(), other.state_dict()
    return all(torch.equal(a, b) for a, b in zip(states[0].values(), states[1].values()))


# ----------------------------------------------------------------------------------------------------------------------
# Pooling of reduced patches from a bank


def pool_reduced(model: MVFormer, reduced: Tensor, basis: Tensor, cls: Tensor | None) -> tuple[Tensor, Tensor | None]:
    """Computes `model.pool` of `reduced @ basis`, up to rounding; for LSTP without ever forming the product.

    LSTP is linear in patches, so the basis moves into its two maps: for `reduced` they are (W_key basis') and
    (W_value basis'), computed once per call. Other poolings get the reconstruction.

    Shape:
        reduced (B, T, P, K), basis (K, C), cls (B, T, C0) -> tokens (B, T, N, D), attention (B, T, N, P) or None
    """
    basis = basis.to(reduced.device)
    pooling = model.pooling
    if not isinstance(pooling, LearnableSpatialTokenPooling):
        return model.pool(torch.matmul(reduced, basis.to(reduced.dtype)), cls)
    with torch.autocast(reduced.device.type, enabled=False):
        maps = {name: getattr(pooling, name).weight @ basis.T for name in ("key", "value")}
    return functional_call(pooling, {f"{name}.weight": weight for name, weight in maps.items()}, (reduced,))
