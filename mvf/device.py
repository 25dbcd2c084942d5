"""Device and precision of a run, and what its processes share."""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

from mvf.clip import Clip

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


def resolve_device(device: str = "auto") -> torch.device:
    """Returns the named device, or the best available one for `auto`.

    Raises:
        ValueError: if the named device is not available.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(f'device is "{device}" but this machine has no CUDA GPU: use device="cpu" or "auto"')
    return torch.device(device)


def autocast(precision: str, device: torch.device) -> AbstractContextManager:
    """Autocast for `fp32` (which needs none), `bf16` or `fp16`.

    Raises:
        ValueError: for any other name.
    """
    if precision not in DTYPES:
        raise ValueError(f'precision must be one of {", ".join(DTYPES)}, got "{precision}"')
    dtype = DTYPES[precision]
    return nullcontext() if dtype is None else torch.autocast(device.type, dtype=dtype)


def check_finite(what: str, value: float, where: str) -> None:
    """Stops training before a bad step changes the model.

    Raises:
        FloatingPointError: when `value` is not finite.
    """
    if not math.isfinite(value):
        raise FloatingPointError(
            f'the {what} is {value} at {where}. Try a lower learning_rate or precision="fp32"; if that does not help, '
            "leave these videos out"
        )


# Several processes: these functions work on GPUs (nccl) and on CPUs (gloo).


def world_size() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """Whether this is the one process that reports and writes."""
    return world_size() == 1 or dist.get_rank() == 0


def gather_batch(embeddings: Tensor, clip: Clip) -> tuple[Tensor, Clip]:
    """Gathers the embeddings (with gradient) and clips of all processes, in the order of a single process.

    Every process then computes the loss of the whole batch. The gather's backward sums over processes and the
    wrapper averages, so the parameters get the gradient of that one loss. Objectives that draw at random, or that take
    the batch's first video as a reference, see the same batch as in a single process.

    Args:
        embeddings: (B, ...) embeddings of this process's videos, `batch[rank::world]`.
        clip: The clip of these videos.
    """
    if world_size() == 1:
        return embeddings, clip
    indices = Clip(clip.frame_index, clip.num_frames, clip.valid, clip.phase, clip.action)
    return _in_order(all_gather(embeddings.contiguous())), indices.map(_gather)


def _gather(tensor: Tensor) -> Tensor:
    # gloo cannot gather booleans
    sent = tensor.contiguous().to(torch.int64)
    parts = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(parts, sent)
    return _in_order(parts).to(tensor.dtype)


def _in_order(parts: Sequence[Tensor]) -> Tensor:
    """Undoes the split `batch[rank::world]`: the first videos of all processes, then the second ones, ...

    Example:
        >>> _in_order([torch.tensor([0, 2]), torch.tensor([1, 3])])
        tensor([0, 1, 2, 3])
    """
    return torch.stack([*parts], dim=1).flatten(0, 1)


class SyncBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch norm of (n, channels, ...) over all processes; torch's own refuses CPU tensors."""

    def _check_input_dim(self, x: Tensor) -> None:
        """Accepts both rows and images."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        values = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [0, *range(2, x.ndim)]
        count = all_reduce(values.new_tensor(x.numel() // x.shape[1]))
        mean = all_reduce(values.sum(axes, keepdim=True)) / count
        centred = values - mean
        # not E[x²] - E[x]², which cancels in float32
        variance = all_reduce(centred.square().sum(axes, keepdim=True)) / count
        self._update(mean.flatten(), (variance * count / (count - 1)).flatten())
        normal = centred * torch.rsqrt(variance + self.eps)
        return (normal * self.weight.view_as(mean) + self.bias.view_as(mean)).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        if self.num_batches_tracked is None or self.running_mean is None or self.running_var is None:
            return  # it keeps no statistics
        self.num_batches_tracked += 1
        momentum = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean.to(self.running_mean), momentum)
        self.running_var.lerp_(variance.to(self.running_var), momentum)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Turns every batch norm of rows or images into `SyncBatchNorm` in place; names and weights stay."""
    for part in module.modules():
        if type(part) in (nn.BatchNorm1d, nn.BatchNorm2d):
            part.__class__ = SyncBatchNorm
