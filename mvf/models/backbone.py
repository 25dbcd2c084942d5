"""The image backbone: patch features, class token and class-token attention of chosen layers."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import timm
import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

from mvf.device import DTYPES
from mvf.models import engine
from mvf.models.weights import TimmNetwork, at_fixed_size, check_image_size, is_vit, load_backbone, patch_size

logger = logging.getLogger(__name__)

PIXELS_AT_ONCE = 16 * 112**2  # on a CPU; more activations do not fit its caches (ViT-S/14: 22 ms per frame, not 15)


Features = dict[int, tuple[Tensor, Tensor | None]]  # by layer: patches (M, P, C_l) and class token (M, C0)
Rows = dict[int, Tensor]  # by layer: (M, heads, P) weights of the class token's attention


class Backbone(nn.Module):
    """A pretrained timm network that turns frames into patch features; all or all but its last blocks are frozen.

    Features are the outputs of the chosen blocks before the final norm, concatenated on channels in the
    order in which the layers are named; class and register tokens are left out. The module normalises
    its input itself. What is frozen stays in eval mode and without gradients whatever its parent does.

    Reference: Walmer et al., arXiv 2311.10873, section 3.1; Caron et al., DINO, ICCV 2021.

    Args:
        name: Alias (`mvf.models.weights.ALIASES`) or timm name.
        weights: Empty: hub, else package index; the path of a file; or `random`.
        image_size: Side of the square frames, in pixels.
        layers: 1-based blocks (ResNets: stages 1 to 4), negative from the end.
        trainable_blocks: Number of blocks (ResNets: stages) that are trained, up to the deepest of `layers`.

    Attributes:
        weights, timm_name, weights_source, weights_sha256: As requested, and as found; see `LoadedBackbone`.
        layers: The same, all positive.
        channels: C, summed over the layers.
        cls_channels: C0, width of the class token; None where the network has none.
        grid: (h, w) patches of a frame, P = h * w.
        num_blocks: Number of layers to choose from.
        num_heads: Attention heads of a block; None without class token.
        compiled: Whether torch compiles it.
        engine: What computes it on a CPU, `torch` or `openvino`; see `use_engine`.
        trained_parts: Names of the modules that are trained; empty where all is frozen.

    Shape:
        frames (M, 3, S, S) in [0, 1] -> patches (M, P, C), cls (M, C0) or None: the class token of the deepest layer

    Raises:
        ValueError: for a layer or a number of blocks that the network lacks, or frames that its patches do not divide.

    Example:
        >>> backbone = Backbone("vit_tiny_patch16_224", "random", image_size=32, layers=(4, -1))
        >>> patches, cls = backbone(torch.rand(2, 3, 32, 32))
        >>> patches.shape, cls.shape, backbone.layers
        (torch.Size([2, 4, 384]), torch.Size([2, 192]), (4, 12))
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        name: str,
        weights: str | Path = "",
        image_size: int = 224,
        layers: Sequence[int] = (4, 8, 12),
        trainable_blocks: int = 0,
    ) -> None:
        super().__init__()
        loaded = load_backbone(name, weights, image_size, lambda model: _check_one_grid(model, name, layers))
        self.model = loaded.model
        self.name, self.weights, self.timm_name = name, str(weights), loaded.timm_name
        self.weights_source, self.weights_sha256 = loaded.source, loaded.sha256
        self.image_size = image_size
        self.num_blocks = _num_layers(self.model)
        self.layers = self.resolve_layers(layers)
        self.grid = self.grid_of(image_size)
        self.channels = sum(_width(self.model, layer) for layer in self.layers)
        self.has_cls = getattr(self.model, "cls_token", None) is not None
        self.cls_channels = self.model.embed_dim if self.has_cls else None
        self.num_heads = _num_heads(self.model) if self.has_cls else None
        for kind in ("mean", "std"):
            values = torch.tensor(self.model.pretrained_cfg[kind]).view(3, 1, 1)
            self.register_buffer(kind, values, persistent=False)
        self.trainable_blocks, self.compiled, self.engine = trainable_blocks, False, "torch"
        self.trained_parts = _trained_parts(self.model, name, max(self.layers), trainable_blocks)
        for part in self.trained_parts:
            self.get_submodule(part).requires_grad_()
        self.train()

    def __repr__(self) -> str:
        """One line; `torch.nn.Module.__repr__(backbone)` lists all modules."""
        return f"Backbone({self.summary})"

    @property
    def summary(self) -> str:
        """Name, image size, layers and what is trained, in a few words."""
        layers = ", ".join(map(str, self.layers))
        trained = f"last {self.trainable_blocks} trained" if self.trained_parts else "frozen"
        return f"{self.name} at {self.image_size} px, layers {layers} of {self.num_blocks}, {trained}"

    def train(self, mode: bool = True) -> Backbone:
        """Only trained blocks follow `mode`: a frozen batch norm keeps its statistics."""
        super().train(False)
        for part in self.trained_parts:
            self.get_submodule(part).train(mode)
        self.training = mode and bool(self.trained_parts)
        return self

    def compile_network(self) -> None:
        """Compiles the computation of features; they then differ in rounding, and the first calls are slow."""
        self._selected = torch.compile(self._selected)  # type: ignore[method-assign]  # only this instance compiles
        self.compiled = True

    def use_engine(self, name: str) -> None:
        """Lets `torch` or `openvino` compute frozen features on CPUs; torch where the network does not export."""
        if name == "openvino":
            try:
                engine.export(self, self.image_size)
            except engine.ExportError as error:
                logger.warning("%s: torch computes it instead", error)
                name = "torch"
        self.engine = name

    def engine_on(self, device: torch.device) -> str:
        """What computes frozen features on a device: OpenVINO only on CPUs, and neither compiled nor trained blocks."""
        return "torch" if device.type != "cpu" or self.compiled or self.trained_parts else self.engine

    def resolve_precision(self, precision: str) -> str:
        """`fp32`, `bf16` or `fp16`; `auto` is the fastest here."""
        device = self.mean.device
        return engine.resolve_compute(self.engine_on(device), precision, device).precision

    def at_fixed_size(self, image_size: int) -> Backbone:
        """The same frozen network for frames of `image_size` alone, which exports; weights are shared."""
        fixed = copy.copy(self)
        fixed._modules = {"model": at_fixed_size(self.model, self.timm_name, image_size)}
        return fixed

    def before_training(self) -> Backbone:
        """The pretrained network, all frozen: this one if none of its blocks are trained, else loaded again."""
        if not self.trained_parts:
            return self
        return Backbone(self.name, self.weights, self.image_size, self.layers).to(self.mean.device)

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor | None]:
        """Patch features of `self.layers` and the class token of the deepest of them."""
        patches, cls = self.intermediates(frames, self.layers)
        return torch.cat(patches, dim=-1), cls

    def resolve_layers(self, layers: Sequence[int]) -> tuple[int, ...]:
        """Layers counted from 1; raises ValueError where the network lacks one."""
        return _resolved(layers, self.num_blocks, self.name)

    def grid_of(self, image_size: int) -> tuple[int, int]:
        """(h, w) patches of a square frame of `image_size` pixels; raises ValueError where they do not fit."""
        check_image_size(self.model, self.name, image_size)
        cuts = isinstance(self.model, (timm.models.ConvNeXt, timm.models.EdgeNeXt))  # others pad the last patch
        side = image_size // patch_size(self.model) if cuts else -(-image_size // patch_size(self.model))
        return side, side

    def intermediates(self, frames: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
        """Outputs (M, P, C_l) of each layer, and the class token (M, C0) of the deepest, or None."""
        layers = self.resolve_layers(layers)
        patches, classes = zip(*(self._selected(part, layers) for part in self._parts(frames)))
        if len(patches) == 1:
            return patches[0], classes[0]
        return [torch.cat(parts) for parts in zip(*patches)], torch.cat(classes) if self.has_cls else None

    def _parts(self, frames: Tensor) -> Sequence[Tensor]:
        at_once = max(1, len(frames))
        if frames.device.type == "cpu" and not self.trained_parts:
            at_once = max(1, PIXELS_AT_ONCE // frames.shape[-1] ** 2)
        return frames.split(at_once)

    def _selected(self, frames: Tensor, layers: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
        return _select(self._outputs(frames, layers)[0], layers)

    def cls_attention(
        self, frames: Tensor, layers: Sequence[int] = (-1,)
    ) -> tuple[Tensor, Tensor | None, Tensor | None]:
        """Returns what `forward` returns, and how the class token of `layers` attends to the patches, in one pass.

        Weights are a softmax over all tokens, but only those of patches are returned: a row sums to less
        than 1, as class and register tokens take the rest.

        Returns:
            patches (M, P, C), cls (M, C0), heads (len(layers), M, heads, P) float32; the last two are None
            for a network without class token.
        """
        layers = self.resolve_layers(layers)
        patches, classes, heads = zip(*(self._cls_attention(part, layers) for part in self._parts(frames)))
        if not self.has_cls:
            return torch.cat(patches), None, None
        return torch.cat(patches), torch.cat(classes), torch.cat(heads, dim=1)

    def _cls_attention(self, frames: Tensor, layers: Sequence[int]) -> tuple[Tensor, Tensor | None, Tensor | None]:
        features, rows = self._outputs(frames, self.layers, layers if self.has_cls else ())
        patches, cls = _select(features, self.layers)
        heads = torch.stack([rows[layer] for layer in layers]) if self.has_cls else None
        return torch.cat(patches, dim=-1), cls, heads

    def _outputs(self, frames: Tensor, layers: Sequence[int], heads: Sequence[int] = ()) -> tuple[Features, Rows]:
        """Features of `layers` and class-token attention in blocks `heads`, by the engine."""
        if frames.ndim != 4 or frames.shape[1] != 3 or frames.shape[2] != frames.shape[3]:
            raise ValueError(f"frames must be (M, 3, S, S), got {tuple(frames.shape)}")
        if frames.shape[-1] != self.image_size:  # which was checked when the weights were loaded
            check_image_size(self.model, self.name, frames.shape[-1])
        precision = _precision_of_autocast()
        if self.engine_on(frames.device) == "openvino" and precision in engine.openvino_precisions():
            try:
                return self._outputs_of_graph(frames, layers, heads, precision)
            except engine.ExportError as error:
                logger.warning("%s: torch computes it instead", error)
                self.engine = "torch"
        return self.features_and_attention(frames, layers, heads)

    def _outputs_of_graph(
        self, frames: Tensor, layers: Sequence[int], heads: Sequence[int], precision: str
    ) -> tuple[Features, Rows]:
        names = [f"patches{layer}" for layer in layers]
        names += [f"cls{layer}" for layer in layers if self.has_cls] + [f"heads{layer}" for layer in heads]
        found = dict(zip(names, engine.run(self, frames, names, precision)))
        features = {layer: (found[f"patches{layer}"], found.get(f"cls{layer}")) for layer in layers}
        return features, {layer: found[f"heads{layer}"] for layer in heads}

    def features_and_attention(
        self, frames: Tensor, layers: Collection[int], heads: Collection[int] = ()
    ) -> tuple[Features, Rows]:
        """By torch: (M, P, C_l) patches and (M, C0) class token or None of `layers`; (M, heads, P) weights of `heads`.

        Raises:
            RuntimeError: where the blocks of `heads` do not compute their attention by torch's fused function.
        """
        if not heads:
            return self._features(frames, layers), {}
        deepest = max(*layers, *heads)
        with ClassTokenAttention(heads) as recorded:
            features = self._features(frames, {*layers, deepest})
        if recorded.calls != deepest:
            raise RuntimeError(
                f"{deepest} blocks of {self.timm_name} made {recorded.calls} calls of fused attention, wanted one "
                "each; attention maps need TIMM_FUSED_ATTN unset and blocks with one attention"
            )
        prefix = self.model.num_prefix_tokens
        return features, {layer: recorded.rows[layer][..., prefix:] for layer in heads}

    def _features(self, frames: Tensor, layers: Collection[int]) -> Features:
        order = sorted(set(layers))
        first = 0 if isinstance(self.model, timm.models.ResNet) else 1  # a ResNet's feature 0 is its stem
        options: dict[str, Any] = {"indices": [layer - first for layer in order], "norm": False}
        options |= {"intermediates_only": True, "stop_early": True}
        options |= {"return_prefix_tokens": True, "output_fmt": "NLC"} if self.has_cls else {"output_fmt": "NCHW"}
        with torch.set_grad_enabled(torch.is_grad_enabled() and bool(self.trained_parts)):
            outputs = self.model.forward_intermediates((frames - self.mean) / self.std, **options)
        if self.has_cls:
            return {layer: (patches, prefix[:, 0]) for layer, (patches, prefix) in zip(order, outputs)}
        return {layer: (maps.flatten(2).transpose(1, 2), None) for layer, maps in zip(order, outputs)}


def _precision_of_autocast() -> str:
    """The precision that the surrounding autocast asks for."""
    if not torch.is_autocast_enabled("cpu"):
        return "fp32"
    return next(name for name, dtype in DTYPES.items() if dtype == torch.get_autocast_dtype("cpu"))


def _select(features: Features, layers: Sequence[int]) -> tuple[list[Tensor], Tensor | None]:
    patches = [features[layer][0] for layer in layers]
    sizes = {item.shape[1] for item in patches}
    if len(sizes) > 1:
        raise ValueError(f"layers {tuple(layers)} have different numbers of patches, {sorted(sizes)}; choose one layer")
    return patches, features[max(layers)][1]


def _num_layers(model: TimmNetwork) -> int:
    if is_vit(model):
        return len(model.blocks)
    return len(model.feature_info) - isinstance(model, timm.models.ResNet)


def _resolved(layers: Sequence[int], count: int, name: str) -> tuple[int, ...]:
    """Layers counted from 1, of a network that has `count`."""
    for layer in layers:
        if layer == 0 or abs(layer) > count:
            raise ValueError(
                f"{name} has layers 1 to {count}, got layer {layer}; choose among them, or -1 to -{count} from the end"
            )
    if not layers or len(set(layers)) < len(layers):
        raise ValueError(f"layers must be different numbers, at least one; got {tuple(layers)}")
    return tuple(layer if layer > 0 else count + 1 + layer for layer in layers)


def _check_one_grid(model: TimmNetwork, name: str, layers: Sequence[int]) -> None:
    """Refuses layers that the network lacks, or with different numbers of patches, such as two stages of a ResNet."""
    first = 0 if isinstance(model, timm.models.ResNet) else 1
    wanted = _resolved(layers, _num_layers(model), name)
    found = {layer: model.feature_info[layer - first]["reduction"] for layer in wanted}
    if len(set(found.values())) > 1:
        raise ValueError(f"layers {tuple(layers)} of {name} have patches of {found} pixels a side; choose one layer")


def _trained_parts(model: TimmNetwork, name: str, deepest: int, count: int) -> tuple[str, ...]:
    """Names of the last `count` blocks or stages of those that run for layer `deepest`."""
    if not 0 <= count <= deepest:
        raise ValueError(f"trainable_blocks must be 0 to {deepest}, the last layer of {name} that is read; got {count}")
    if count and not (is_vit(model) or isinstance(model, timm.models.ResNet)):
        raise ValueError(f"trainable_blocks is for vision transformers and ResNets, {name} is neither: use 0")
    numbers = range(deepest - count + 1, deepest + 1)
    return tuple(f"model.blocks.{i - 1}" if is_vit(model) else f"model.layer{i}" for i in numbers)


def _num_heads(model: TimmNetwork) -> int:
    return next(module.num_heads for module in model.blocks[0].modules() if hasattr(module, "num_heads"))


def _width(model: TimmNetwork, layer: int) -> int:
    if is_vit(model):
        return model.embed_dim
    return model.feature_info[layer - 1 + isinstance(model, timm.models.ResNet)]["num_chs"]


class ClassTokenAttention(TorchFunctionMode):
    """Records the class token's attention while a network runs.

    Every vision transformer of timm hands its final queries and keys, with biases, norms and rotary
    positions applied, to one function. Reading them there is exact for all of them, and costs one row.
    """

    def __init__(self, layers: Collection[int]) -> None:
        super().__init__()
        self.layers = frozenset(layers)
        self.rows: dict[int, Tensor] = {}
        self.calls = 0

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Any,
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if function is scaled_dot_product_attention:
            self.calls += 1
            if self.calls in self.layers:
                query, key = args[0][:, :, :1].float(), args[1].float()  # (M, heads, 1, d), (M, heads, L, d)
                scores = query @ key.transpose(-2, -1) / key.shape[-1] ** 0.5
                bias = (kwargs or {}).get("attn_mask")  # BEiT's relative positions
                scores = scores if bias is None else scores + bias[..., :1, :]
                self.rows[self.calls] = scores.softmax(dim=-1).squeeze(2)
        return function(*args, **(kwargs or {}))
