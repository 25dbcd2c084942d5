"""Targets: official checkpoints, ONNX encoders, stored models, and run folders."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any
from unittest.mock import Mock, patch

import numpy as np
import onnx
import torch
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from mvf.config import load_config
from mvf.evaluation import read_report
from mvf.models import MVFormer, load_official_checkpoint, weights
from mvf.models.mvformer import Architecture
from mvf.models.weight_files import WeightsUnavailableError, read_state
from mvf.models.wheel_weights import CLASS_POSITION, NUM_BLOCKS, PATCH_POSITIONS, read_encoder
from mvf.training.run import STATE, load_run, open_folder, read_config, read_history, write_epoch

from ..conftest import TINY
from ..models.stored import forget_checksums
from .binaries import PICKLED, pickled
from .harness import NUMBERS, Target, changed, json_files, mutated, plain, texts, zipped

SIZES = Architecture(
    channels=8, cls_channels=None, entities=2, entity_width=4, token_width=8, fusion_width=8, fusion_blocks=1,
    fusion_heads=2, fusion_feedforward=8, embedding_size=4, projection_width=4, num_frames=4,
)  # fmt: skip

# official checkpoints -----------------------------------------------------------------------------------------------

CFG = {
    "IMAGE_SIZE": 32,
    "TRAIN": {"NUM_FRAMES": 4},
    "MODEL": {
        "PROJECTION_SIZE": 4,
        "BASE_MODEL": {"NETWORK": "TIMM-test_vit", "OUT_CHANNEL": 8},
        "EMBEDDER_MODEL": {
            **{"FUSION_TYPE": "smart", "SMART_TOKENS": 2, "SMART_POOL_CHANNELS": 4, "SMART_ONE_HOT": "pool"},
            **{"SMART_FINAL": "one", "SMART_FEATS": "1,5", "FC_LAYERS": [[8, True], [8, True]], "CAPACITY_SCALAR": 1},
            **{"HIDDEN_SIZE": 8, "NUM_LAYERS": 1, "NUM_HEADS": 2, "D_FF": 8, "FC_DROPOUT_RATE": 0.1},
            **{"EMBEDDING_SIZE": 4},
        },
    },
}
OFFICIAL = (  # our names -> official ones
    ("pooling.key.", "embed.pooling.cross_att.linear_K2d."),
    ("pooling.value.", "embed.pooling.cross_att.linear_V2d."),
    ("token_mlp.8.", "embed.video_emb."),
    ("token_mlp.", "embed.fc_layers."),
    ("fusion.blocks.", "embed.video_encoder.enc_layers."),
    (".attention_norm.", ".res_layer0.norm."),
    (".feedforward_norm.", ".res_layer1.norm."),
    (".attention.query.", ".self_att.linear_Q2d."),
    (".attention.key.", ".self_att.linear_K2d."),
    (".attention.value.", ".self_att.linear_V2d."),
    (".attention.output.", ".self_att.linear_d2Q."),
    (".feedforward.0.", ".feed_forward.fc1."),
    (".feedforward.2.", ".feed_forward.fc2."),
    ("embedding.", "embed.embedding_layer."),
    ("projection.", "ssl_projection.net."),
)


@cache
def _official_state() -> dict[str, torch.Tensor]:
    state = {}
    for name, tensor in MVFormer(SIZES).state_dict().items():
        for ours, theirs in OFFICIAL:
            starts = not ours.startswith(".")
            name = theirs + name.removeprefix(ours) if starts and name.startswith(ours) else name
            name = name if starts else name.replace(ours, theirs)
        state[name] = tensor
    query = state.pop("pooling.query")
    return state | {"embed.pooling.cross_att.Q_s": query[None], "embed.pooling.cross_att.Q_s_b": 0 * query[0]}


def _checkpoint(cfg: Any, state: Any) -> bytes:
    file = io.BytesIO()
    torch.save({"epoch": 1, "model_state": state, "cfg": cfg}, file)
    return file.getvalue()


def _write_official(home: Path) -> None:
    (home / "official.pth").write_bytes(_checkpoint(CFG, _official_state()))


def _official(home: Path, _: Any) -> None:
    model = load_official_checkpoint(home / "official.pth")
    a = model.architecture
    assert model.fuse(torch.zeros(1, 3, 4, a.channels), cls=torch.zeros(1, 3, a.cls_channels or 1)).embeddings.isfinite


@cache
def _small_members() -> dict[str, bytes]:
    """The files within a checkpoint; `archive/data.pkl` is its pickle."""
    with zipfile.ZipFile(io.BytesIO(_checkpoint(CFG, {"a": torch.ones(2)}))) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _rezipped(data: bytes) -> bytes:
    """A checkpoint with another pickle."""
    return zipped(_small_members() | {PICKLE: data})


PICKLE = "archive/data.pkl"
STATES = st.one_of(PICKLED.map(pickled), mutated(_small_members()[PICKLE])).map(_rezipped)
TENSORS = st.sampled_from(
    [torch.zeros(1), torch.zeros(0), torch.tensor(3), torch.zeros(8, 8), torch.full((4,), torch.nan)]
)
CHECKPOINTS = st.one_of(
    changed(CFG).map(lambda cfg: _checkpoint(cfg, _official_state())),
    st.dictionaries(
        st.one_of(st.sampled_from(sorted(_official_state())), texts), st.one_of(TENSORS, plain), max_size=3
    ).map(lambda state: _checkpoint(CFG, _official_state() | state)),
    STATES,
)

# ONNX ---------------------------------------------------------------------------------------------------------------


def _encoder_tensors() -> dict[str, np.ndarray]:
    width, one = 4, np.ones(4, np.float32)
    found = {CLASS_POSITION: np.ones((1, 1, width), np.float32), PATCH_POSITIONS: np.ones((1, 9, width), np.float32)}
    found["backbone.embeddings.cls_token"] = np.ones((1, 1, width), np.float32)
    for name in ("embeddings.patch_embeddings.projection", "layernorm"):
        found |= {f"backbone.{name}.{end}": one for end in ("weight", "bias")}
    for block in range(NUM_BLOCKS):
        prefix = f"backbone.encoder.layer.{block}"
        attention = [f"attention.attention.{part}" for part in ("query", "key", "value")]
        for name in (*attention, "attention.output.dense", "mlp.fc1", "mlp.fc2", "norm1", "norm2"):
            found |= {f"{prefix}.{name}.{end}": one for end in ("weight", "bias")}
        found |= {f"{prefix}.layer_scale{i}.lambda1": one for i in (1, 2)}
    return found


def _encoder() -> onnx.ModelProto:
    """An encoder with the names of the real one, four channels wide."""
    tensors = [numpy_helper.from_array(value, name) for name, value in _encoder_tensors().items()]
    nodes = []
    for block in range(NUM_BLOCKS):
        attention = [f"attention/attention/{part}" for part in ("query", "key", "value")]
        for name in (*attention, "attention/output/dense", "mlp/fc1", "mlp/fc2"):
            weight = f"onnx::MatMul_{len(nodes)}"
            tensors.append(numpy_helper.from_array(np.ones((4, 4), np.float32), weight))
            node = f"/backbone/encoder/layer.{block}/{name}/MatMul"
            nodes.append(helper.make_node("MatMul", ["x", weight], ["y"], name=node))
    return helper.make_model(helper.make_graph(nodes, "encoder", [], [], tensors))


def _write_onnx(home: Path) -> None:
    (home / "encoder.onnx").write_bytes(_encoder().SerializeToString())


def _onnx(home: Path, _: Any) -> None:
    path = home / "encoder.onnx"
    state = read_encoder(path.read_bytes(), path.name)
    assert all(isinstance(tensor, torch.Tensor) for tensor in state.values())


def _odd_onnx(number: int, change: str, size: int) -> bytes:
    model = _encoder()
    tensor = model.graph.initializer[number % len(model.graph.initializer)]
    node = model.graph.node[number % len(model.graph.node)]
    if change == "dims":
        tensor.dims[:] = [size, size]
    elif change == "outside":
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = "location", "../../../../../../etc/passwd"
    elif change == "type":
        tensor.data_type = size % 40
    elif change == "inputs":
        del node.input[:]
    else:
        tensor.name = node.name = change
    return model.SerializeToString()


ODD_ONNX = st.builds(
    _odd_onnx,
    st.integers(0, 200),
    st.sampled_from(["dims", "outside", "type", "inputs", "", "x"]),
    st.sampled_from([0, 1, 3, -1, 2**31, 2**62, 8, 16]),
)

# models and runs ----------------------------------------------------------------------------------------------------


def _write_run(home: Path) -> None:
    config = load_config("synthetic", **TINY)
    (home / "config.json").write_text(json.dumps(config.as_dict()))
    rows = [
        {
            "epoch": 0,
            "step": 3,
            "loss": 1.5,
            "learning_rate": 1e-4,
            "grad_norm": 1,
            "seconds": 2,
            "frames_per_second": 9,
        }
    ]
    state = {name: {"a": torch.ones(2)} for name in STATE} | {"generators": {"cpu": torch.get_rng_state()}}
    write_epoch(home, MVFormer(SIZES), rows, state)
    (home / "metrics.json").write_text('{"scores": {"classification": 0.5}}')
    torch.save(MVFormer(SIZES).state_dict(), home / "weights.pth")


def _write_unchecked_run(home: Path) -> None:
    """Without the checksum, which would refuse all settings before they are parsed."""
    _write_run(home)
    forget_checksums(home)


def _run(home: Path, _: Any) -> None:
    missing = WeightsUnavailableError("model_config.json: no network while fuzzing")
    with patch.object(weights.weight_files, "hub_weights", Mock(side_effect=missing)):
        run = load_run(home)
    assert run.model.fuse(torch.zeros(1, 3, 4, 8)).embeddings.shape == (1, 3, 4) and run.history


def _config(home: Path, _: Any) -> None:
    read_config(home)


def _history(home: Path, _: Any) -> None:
    assert all(isinstance(value, float) for row in read_history(home) for value in row.values())


def _state(home: Path, _: Any) -> None:
    open_folder(home, read_config(home))


def _weights(home: Path, _: Any) -> None:
    assert all(isinstance(tensor, torch.Tensor) for tensor in read_state(home / "weights.pth").values())


def _report(home: Path, _: Any) -> None:
    read_report(home / "metrics.json")


DESCRIBED = {
    "architecture": asdict(SIZES),
    "backbone": {
        **{"name": "test_vit", "weights": "random", "source": "random", "sha256": "0" * 64, "image_size": 32},
        **{"layers": [1, 2], "trainable_blocks": 0},
    },
}
SIZED = st.one_of(st.sampled_from(NUMBERS), plain)
CONFIG = load_config("synthetic", **TINY).as_dict()
RUN = r"model_config\.json|model\.safetensors|no weights for|backbone|trained on|the tensors do not fit"

TARGETS = (
    Target("official checkpoint", _official, CHECKPOINTS, _write_official, "official.pth"),
    Target("ONNX encoder", _onnx, ODD_ONNX, _write_onnx, "encoder.onnx"),
    Target(
        *("model_config.json", _run, json_files(st.one_of(changed(DESCRIBED, SIZED), plain))),
        *(_write_unchecked_run, "model_config.json", RUN),
    ),
    Target("model.safetensors", _run, st.binary(max_size=64), _write_run, "model.safetensors", RUN),
    Target("config.json", _config, json_files(st.one_of(changed(CONFIG, SIZED), plain)), _write_run, "config.json"),
    Target("history.csv", _history, st.binary(max_size=64), _write_run, "history.csv"),
    Target("state.pt", _state, STATES, _write_run, "state.pt"),
    Target("weights .pth", _weights, STATES, _write_run, "weights.pth"),
    Target("metrics.json", _report, json_files(plain), _write_run, "metrics.json"),
)
