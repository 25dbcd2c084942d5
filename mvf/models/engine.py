"""Engines: what computes a frozen backbone on a CPU, torch or OpenVINO.

OpenVINO runs a graph that is exported from the torch network once, with its positions resized for one image size, and
kept in `$MVF_CACHE/engines`. It gives the same features as torch, to rounding, in less time. GPUs, trained blocks and
compiled networks stay with torch.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from timm.models.vision_transformer import Block
from torch import Tensor, nn
from torch.utils.data import get_worker_info

from mvf.config import CHOICES, Config, nearest
from mvf.device import autocast, resolve_device
from mvf.files import atomic, cache_folder, explained, hidden_beside, locked

if TYPE_CHECKING:
    from mvf.models.backbone import Backbone

logger = logging.getLogger(__name__)

GRAPH_FORMAT = 1  # of an exported graph; goes up when an older one would be misread
GRAPH, WEIGHTS, NOTE = "graph.xml", "graph.bin", "graph.json"
HINTS = {"fp32": "f32", "bf16": "bf16"}  # OpenVINO's names of the precisions that it computes in on CPUs


class Compute(NamedTuple):
    """What computes frozen features, and in which precision."""

    engine: str  # torch or openvino
    precision: str  # fp32, bf16 or fp16


class ExportError(RuntimeError):
    """A network that OpenVINO cannot take over."""


# ----------------------------------------------------------------------------------------------------------------------
# Choosing: settings, else the environment, else what was measured on this machine.


def resolve_compute(engine: str, precision: str, device: torch.device) -> Compute:
    """The engine and precision that settings stand for on a device.

    `auto` is `$MVF_ENGINE` or `$MVF_PRECISION` where that is set. Else it is on a GPU torch and bf16 (fp16 where the
    GPU has no bf16), and on a CPU the fastest combination, which is measured once a machine (`measured_rates`).

    Raises:
        ValueError: for an unknown name, an engine that is not installed, or a precision that it does not have here.
    """
    engine = _asked("engine", engine, "MVF_ENGINE")
    precision = _asked("precision", precision, "MVF_PRECISION")
    if device.type != "cpu":
        return Compute("torch", _precision_of_gpu(device) if precision == "auto" else precision)
    if engine == "openvino":
        _check_openvino(precision)
    if "auto" not in (engine, precision):
        return Compute(engine, precision)
    if precision == "fp16":
        return Compute("torch", precision)  # OpenVINO computes it on few CPUs
    found = {
        compute: seconds
        for compute, seconds in measured_rates().items()
        if engine in ("auto", compute.engine) and precision in ("auto", compute.precision)
    }
    return min(found, key=lambda compute: found[compute] * (LEVEL if compute.engine == "openvino" else 1))


def config_compute(config: Config) -> Compute:
    """What computes the frozen features of a run; see `resolve_compute`."""
    stays = config.trainable_blocks or config.compile
    return resolve_compute("torch" if stays else config.engine, config.precision, resolve_device(config.device))


def _asked(name: str, value: str, variable: str) -> str:
    """The setting, or where it is `auto` the environment's."""
    source = name
    if value == "auto" and os.environ.get(variable):
        value, source = os.environ[variable], f"${variable}"
    if value not in CHOICES[name]:
        raise ValueError(f'{source} must be one of {", ".join(CHOICES[name])}, got "{value}"; '
                         f"{nearest(value, CHOICES[name])}")  # fmt: skip
    return value


def _precision_of_gpu(device: torch.device) -> str:
    if device.type != "cuda":
        return "fp32"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def _check_openvino(precision: str) -> None:
    if not find_spec("openvino"):
        raise ValueError('engine is "openvino", which is not installed: pip install openvino, or use engine="torch"')
    if precision not in ("auto", *openvino_precisions()):
        raise ValueError(
            f'engine "openvino" computes in {" and ".join(openvino_precisions())} on this processor, not in '
            f'{precision}: use precision="fp32", or engine="torch"'
        )


@lru_cache(maxsize=1)
def openvino_precisions() -> tuple[str, ...]:
    """Precisions that OpenVINO computes in on this processor; empty where it is not installed."""
    if not find_spec("openvino"):
        return ()
    capabilities = _core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return ("fp32", "bf16") if "BF16" in capabilities else ("fp32",)


# ----------------------------------------------------------------------------------------------------------------------
# Measuring: three blocks of ViT-S on 16 frames of 112 pixels, in every combination there is.

TOKENS, WIDTH, HEADS, FRAMES, BLOCKS = 65, 384, 6, 16, 3
INSTRUCTIONS = {"avx2", "avx512f", "avx512_bf16", "avx512_fp16", "amx_bf16"}
SECONDS, REPEATS = 0.3, 10  # of each combination, at most
LEVEL = 0.95  # where both are as fast OpenVINO is taken: other load slows it by its share, and torch several times


def machine() -> dict[str, Any]:
    """What the measured rates hold for."""
    packages = ("torch", "openvino") if find_spec("openvino") else ("torch",)
    return {"processor": processor(), "threads": torch.get_num_threads()} | {name: version(name) for name in packages}


def processor() -> str:
    """The processor's name and what tells two of one name apart: its instructions for matrix products."""
    try:
        lines = [line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines()]
        found = {name.strip(): value.strip() for name, _, value in lines}
        return ", ".join([found["model name"], *sorted(INSTRUCTIONS & set(found["flags"].split()))])
    except (OSError, KeyError):  # not Linux on x86
        return f"{platform.processor() or platform.machine()}, {torch.backends.cpu.get_cpu_capability()}"


@lru_cache(maxsize=1)
def measured_rates() -> dict[Compute, float]:
    """Seconds that the blocks take with every engine and precision, kept in `rates_file()`."""
    path = rates_file()
    try:
        with explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):  # others would disturb the clock
            if found := _read_rates(path):
                return found
            found = measure_rates()
            rows = [[*compute, seconds] for compute, seconds in found.items()]
            with atomic(path) as temporary:
                temporary.write_text(json.dumps({"machine": machine(), "seconds": rows}, indent=1))
            return found
    except OSError as error:
        logger.warning("engines are measured again each time: %s", error)
        return measure_rates()


def rates_file() -> Path:
    """Where this machine's rates are kept; other threads or versions have another file."""
    return cache_folder() / "engines" / f"rates-{_digest(machine() | {'blocks': BLOCKS})}.json"


def _read_rates(path: Path) -> dict[Compute, float]:
    """Stored rates; none where there are none or the file is damaged."""
    try:
        rows = json.loads(path.read_text())["seconds"]
        return {Compute(str(engine), str(precision)): float(seconds) for engine, precision, seconds in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _digest(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:20]


def measure_rates(clock: Callable[[], float] = time.perf_counter) -> dict[Compute, float]:
    """Seconds of the fastest call of each combination; they take turns, so that other load meets all alike."""
    with torch.random.fork_rng(devices=[]):
        blocks = nn.Sequential(*(Block(WIDTH, HEADS, qkv_bias=True) for _ in range(BLOCKS))).eval()
        blocks, tokens = blocks.requires_grad_(False), torch.rand(FRAMES, TOKENS, WIDTH)
    runs: dict[Compute, Callable[[], object]] = {}
    for precision in ("fp32", "bf16"):
        runs[Compute("torch", precision)] = partial(_in_torch, blocks, tokens, precision)
    try:
        model = _convert(blocks, tokens[:2]) if openvino_precisions() else None
        for precision in openvino_precisions():
            runs[Compute("openvino", precision)] = partial(CompiledGraph(model, precision), tokens)
    except RuntimeError as error:
        logger.warning("OpenVINO does not work here (%s): torch computes", str(error).strip().splitlines()[-1])
    for run in runs.values():
        run()
    found = dict.fromkeys(runs, float("inf"))
    spent = dict.fromkeys(runs, 0.0)
    for _ in range(REPEATS):
        for compute, run in runs.items():
            if spent[compute] < SECONDS:
                started = clock()
                run()
                seconds = clock() - started
                spent[compute] += seconds
                found[compute] = min(found[compute], seconds)
    return found


def block_operations() -> float:
    """Floating-point operations of what `measured_rates` times: products with weights, and of queries with keys."""
    return FRAMES * BLOCKS * (24 * TOKENS * WIDTH**2 + 4 * TOKENS**2 * WIDTH)


@torch.inference_mode()
def _in_torch(blocks: nn.Module, tokens: Tensor, precision: str) -> Tensor:
    with autocast(precision, tokens.device):
        return blocks(tokens)


# ----------------------------------------------------------------------------------------------------------------------
# Exporting: one graph a network and image size, whose outputs are those of all layers.


class AllOutputs(nn.Module):
    """Everything that the workbench reads of a frozen backbone, as one function of frames of a fixed size.

    Shape:
        frames (M, 3, S, S) -> patches, class token and class-token attention of every layer, in the order of `names`
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.layers = range(1, backbone.num_blocks + 1)
        kinds = ("patches", "cls", "heads") if backbone.has_cls else ("patches",)
        self.names = [f"{kind}{layer}" for kind in kinds for layer in self.layers]

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        features, rows = self.backbone.features_and_attention(
            frames, self.layers, self.layers if self.backbone.has_cls else ()
        )
        patches, classes = zip(*(features[layer] for layer in self.layers))
        return (*patches, *classes, *rows.values()) if self.backbone.has_cls else patches


def export(backbone: Backbone, image_size: int) -> Path:
    """Folder of the exported graph of a backbone for frames of `image_size`; made where it is missing or damaged.

    Several processes may ask at once: one exports, the others wait. The name of the folder is a digest of all that the
    graph is made of, so that a graph of other weights or versions is never taken.

    Raises:
        ExportError: where the network cannot be exported, or the folder cannot be written.
    """
    made_of = {
        "format": GRAPH_FORMAT, "backbone": backbone.timm_name, "weights": backbone.weights_sha256,
        "image_size": image_size, **{name: version(name) for name in ("torch", "timm", "openvino")},
    }  # fmt: skip
    folder = cache_folder() / "engines" / _digest(made_of)
    if (folder / NOTE).exists():
        return folder
    try:
        with explained(folder):
            folder.parent.mkdir(parents=True, exist_ok=True)
            with locked(folder.with_suffix(".lock")):
                if not (folder / NOTE).exists():
                    _write(backbone, image_size, folder, made_of)
    except OSError as error:
        raise ExportError(str(error)) from error
    return folder


def _write(backbone: Backbone, image_size: int, folder: Path, made_of: dict[str, Any]) -> None:
    import openvino

    logger.info("exporting %s at %d pixels to OpenVINO, once", backbone.timm_name, image_size)
    try:
        outputs = AllOutputs(backbone.at_fixed_size(image_size))
        model = _convert(outputs, torch.rand(2, 3, image_size, image_size))
        for output, name in zip(model.outputs, outputs.names, strict=True):
            output.get_tensor().set_names({name})
    except Exception as error:  # torch and OpenVINO raise many kinds for networks that they do not know
        raise ExportError(f"{backbone.timm_name} does not export: {str(error).strip().splitlines()[0]}") from error
    hidden = hidden_beside(folder)
    shutil.rmtree(hidden, ignore_errors=True)
    try:
        hidden.mkdir()
        with explained(folder / WEIGHTS, hidden / WEIGHTS):
            openvino.save_model(model, hidden / GRAPH, compress_to_fp16=False)
        sums = {name: _sha256(hidden / name) for name in (GRAPH, WEIGHTS)}
        (hidden / NOTE).write_text(json.dumps({"made_of": made_of, "sha256": sums}, indent=1))
        shutil.rmtree(folder, ignore_errors=True)  # a damaged one
        hidden.rename(folder)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def _convert(module: nn.Module, example: Tensor) -> Any:
    """A module of one tensor, whose outputs are a tensor or a tuple of them, as an OpenVINO model for any batch size.

    By torch's tracer: exporting by `torch.export` takes eight times as long. `openvino.convert_model` does the same but
    reports its use to a server.
    """
    from openvino.frontend import FrontEndManager
    from openvino.frontend.pytorch.ts_decoder import TorchScriptPythonDecoder

    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's: sizes of the image become constants, as they should
        traced = torch.jit.trace(module, example, check_trace=False)
    frontend = FrontEndManager().load_by_framework("pytorch")
    decoder = TorchScriptPythonDecoder(traced)  # the frontend does not keep it alive
    return frontend.convert(frontend.load(decoder))


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# ----------------------------------------------------------------------------------------------------------------------
# Running.


class CompiledGraph:
    """An OpenVINO model compiled for this processor; it computes on as many threads as torch."""

    def __init__(self, model: Any, precision: str) -> None:
        self._compiled = _core().compile_model(
            model,
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": HINTS[precision],
                "PERFORMANCE_HINT": "LATENCY",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "ENABLE_CPU_PINNING": False,  # decoding shares the cores
            },
        )
        self._lock = threading.Lock()  # one request at a time

    def __call__(self, items: Tensor) -> list[Tensor]:
        """Outputs in the order of the model's."""
        with self._lock:
            found = self._compiled(items.detach().float().contiguous().numpy())
            return [torch.from_numpy(found[place]) for place in range(len(self._compiled.outputs))]


def run(backbone: Backbone, frames: Tensor, names: Sequence[str], precision: str) -> list[Tensor]:
    """Named outputs (see `AllOutputs`) of (M, 3, S, S) frames.

    Raises:
        ExportError: where the network cannot be exported.
        RuntimeError: in a worker process of a data loader, where OpenVINO's threads do not run.
    """
    if get_worker_info() is not None:
        raise RuntimeError("a worker that reads data cannot compute features with OpenVINO")
    folder = export(backbone, frames.shape[-1])
    try:
        graph = _load(folder, tuple(names), precision, torch.get_num_threads())
    except (OSError, ValueError) as error:
        logger.warning("%s: it is exported again", error)
        (folder / NOTE).unlink(missing_ok=True)
        graph = _load(export(backbone, frames.shape[-1]), tuple(names), precision, torch.get_num_threads())
    return graph(frames)


@lru_cache(maxsize=8)
def _load(folder: Path, names: tuple[str, ...], precision: str, threads: int) -> CompiledGraph:
    """The graph in a folder, cut down to the outputs that are wanted.

    Raises:
        ValueError: where a file does not match its checksum.
        ExportError: where OpenVINO cannot compile it.
    """
    import openvino

    note = json.loads((folder / NOTE).read_text())
    for name, wanted in note["sha256"].items():
        if _sha256(folder / name) != wanted:
            raise ValueError(f"{folder / name} does not match its checksum")
    whole = _core().read_model(folder / GRAPH)
    results = {name: output.node for output in whole.outputs for name in output.get_names()}
    wanted = openvino.Model([results[name] for name in names], whole.get_parameters())
    try:
        return CompiledGraph(wanted, precision)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise ExportError(f"OpenVINO does not compile the graph in {folder}: {reason}") from error


@lru_cache(maxsize=1)
def _core() -> Any:
    import openvino

    return openvino.Core()
