"""Pieces that several processes need, in a form that works on GPUs (nccl) and CPUs (gloo) alike."""

from __future__ import annotations

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce

from mvf.clip import Clip


def world_size() -> int:
    """Number of processes of this run."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def is_main_process() -> bool:
    """True in the one process that reports."""
    return world_size() == 1 or dist.get_rank() == 0


def gather_batch(embeddings: Tensor, clip: Clip) -> tuple[Tensor, Clip]:
    """The embeddings, with gradient, and the clip of all processes, in rank order.

    Every process then computes the loss of the whole batch. The gather's backward sums over processes and the
    wrapper averages, so the parameters get the gradient of that one loss.
    """
    if world_size() == 1:
        return embeddings, clip
    indices = Clip(clip.frame_index, clip.num_frames, clip.valid, clip.phase, clip.action)
    return torch.cat(all_gather(embeddings.contiguous())), indices.map(_gather)


def _gather(tensor: Tensor) -> Tensor:
    # gloo gathers no booleans
    sent = tensor.contiguous().to(torch.int64)
    parts = [torch.empty_like(sent) for _ in range(world_size())]
    dist.all_gather(parts, sent)
    return torch.cat(parts).to(tensor.dtype)


class SyncBatchNorm(nn.BatchNorm1d):
    """Batch norm over the (n, channels) rows of all processes; torch's own refuses CPU tensors."""

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or world_size() == 1:
            return super().forward(x)
        rows = x.float()
        sums = torch.cat([rows.sum(0), rows.square().sum(0), rows.new_full((1,), len(rows))])
        sums = all_reduce(sums)
        count = sums[-1]
        mean, second = (sums[:-1] / count).chunk(2)
        variance = second - mean.square()
        self._update(mean.detach(), (variance * count / (count - 1)).detach())
        normal = (rows - mean) * torch.rsqrt(variance + self.eps)
        return (normal * self.weight + self.bias).to(x.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def synchronise_batch_norm(module: nn.Module) -> None:
    """Turns every `BatchNorm1d` into `SyncBatchNorm` in place; names and weights stay."""
    for part in module.modules():
        if type(part) is nn.BatchNorm1d:
            part.__class__ = SyncBatchNorm
