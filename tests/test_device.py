"""Number formats by name, and batch norm of two processes that is that of one."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from mvf.device import SyncBatchNorm, autocast, synchronise_batch_norm
from mvf.models.engine import resolve_compute


@pytest.mark.parametrize("function", [autocast, lambda name, device: resolve_compute("torch", name, device)])
def test_an_unknown_precision_names_the_known_ones(function):
    with pytest.raises(ValueError, match='precision must be one of .*fp32, bf16, fp16, got "fp8"'):
        function("fp8", torch.device("cpu"))


# batch norm of two processes ----------------------------------------------------------------------------------------


SIZES = (1, 5)  # samples of the two processes
SHAPES = {"rows": (6, 3), "pictures": (6, 3, 4, 5)}
LAST = torch.channels_last
KINDS = {
    "float32": lambda x: x,
    "float64": lambda x: x.double(),
    "bfloat16": lambda x: x.bfloat16(),
    "far from zero": lambda x: x + 1000,
    "channels last": lambda x: x.to(memory_format=LAST) if x.ndim == 4 else x,
}
CASES = [(shape, kind) for shape in SHAPES for kind in KINDS]


def batch(shape: str, kind: str) -> tuple[Tensor, Tensor]:
    """Input of all processes, and what the outputs are weighted with in the loss."""
    generator = torch.Generator().manual_seed(1)
    x, weights = torch.randn(2, *SHAPES[shape], generator=generator)
    return KINDS[kind](x), weights


def layer(shape: str, kind: str) -> nn.Module:
    norm = nn.BatchNorm1d(3) if shape == "rows" else nn.BatchNorm2d(3)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        norm.bias.copy_(torch.tensor([1.0, 0.0, -1.0]))
    return norm.double() if kind == "float64" else norm


def results(norm: nn.Module, x: Tensor, weights: Tensor) -> dict[str, Tensor]:
    x = x.detach().clone().requires_grad_()
    out = norm(x)
    (out * weights).sum().backward()
    gradients = {"weight_grad": norm.weight.grad, "bias_grad": norm.bias.grad}
    return {"out": out.detach(), "grad": x.grad, **gradients, **norm.state_dict()}


def work(rank: int, folder: str) -> None:
    """One of the processes; a file is their meeting point, so that no port can be taken."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=len(SIZES))
    found = {}
    for case in CASES:
        norm = nn.Sequential(layer(*case))
        synchronise_batch_norm(norm)
        x, weights = (tensor.split(SIZES)[rank] for tensor in batch(*case))
        found[case] = results(norm[0], x, weights)
    torch.save(found, Path(folder, f"{rank}.pt"))
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """What each process found."""
    folder = tmp_path_factory.mktemp("two")
    mp.spawn(work, (str(folder),), nprocs=len(SIZES))
    return [torch.load(folder / f"{rank}.pt", weights_only=True) for rank in range(len(SIZES))]


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES, ids="-".join)
def test_two_processes_normalise_as_one(parts, case):
    x, weights = batch(*case)
    whole = results(layer(*case), x, weights)
    first, second = (part[case] for part in parts)
    tolerance = {"rtol": 1e-2, "atol": 5e-4} if case[1] == "far from zero" else {}
    for name in ("out", "grad"):
        assert first[name].dtype == x.dtype
        torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name], **tolerance)
    for name in ("weight_grad", "bias_grad"):
        torch.testing.assert_close(first[name] + second[name], whole[name], **tolerance)
    for name in ("running_mean", "running_var", "num_batches_tracked"):
        torch.testing.assert_close(first[name], whole[name], **tolerance)
        assert torch.equal(first[name], second[name])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "channels last"])
def test_the_memory_format_stays(parts, kind):
    for part in parts:
        out = part["pictures", kind]["out"]
        assert out.is_contiguous(memory_format=LAST if kind == "channels last" else torch.contiguous_format)


def test_names_weights_and_other_modules_stay():
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyBatchNorm1d())
    network(torch.randn(2, 3, 2, 2))
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    before = network.eval()(x := torch.randn(2, 3, 2, 2))
    synchronise_batch_norm(network)
    assert [type(part) for part in network] == [nn.Conv2d, SyncBatchNorm, nn.Flatten, SyncBatchNorm]
    assert torch.equal(network(x), before) and list(network.state_dict()) == list(state)
    network.train()(x)  # one process alone: torch's own
    moved = [name for name, tensor in network.state_dict().items() if not torch.equal(tensor, state[name])]
    assert moved == [name for name in state if "running" in name or "num_batches" in name]
