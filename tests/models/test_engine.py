"""OpenVINO beside torch: the same features, one export, a choice that is measured, and torch wherever it must be."""

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial

import pytest
import torch

import mvf
from mvf.bank import FeatureBank
from mvf.data import find_config_videos
from mvf.models import engine
from mvf.models.backbone import Backbone
from mvf.models.engine import Compute, resolve_compute
from mvf.training.run import read_config
from mvf.workbench.notebook.session import embed_splits, open_model, report_on

CPU = torch.device("cpu")
RATES = {Compute("torch", "fp32"): 3.0, Compute("torch", "bf16"): 2.0, Compute("openvino", "fp32"): 2.5,
         Compute("openvino", "bf16"): 1.0}  # fmt: skip


def network(name="vit_tiny_patch16_224", image_size=32, layers=(2, 4), chosen="openvino"):
    backbone = Backbone(name, "random", image_size, layers)
    backbone.use_engine(chosen)
    assert backbone.engine == chosen
    return backbone


def frames(count=3, size=32):
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    monkeypatch.delenv("MVF_ENGINE", raising=False)
    monkeypatch.delenv("MVF_PRECISION", raising=False)


@pytest.fixture
def rates(monkeypatch):
    """What the machine is said to have measured, with a processor that computes in bf16."""
    monkeypatch.setattr(engine, "measured_rates", lambda: RATES)
    monkeypatch.setattr(engine, "openvino_precisions", lambda: ("fp32", "bf16"))


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


# features -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, size, layers",
    [("vit_tiny_patch16_224", 32, (2, 4)), ("vit_small_patch14_reg4_dinov2", 28, (1, 12)), ("resnet50", 64, (3,)),
     ("vit_small_patch16_dinov3", 48, (3,))],
)  # fmt: skip
@torch.inference_mode()
def test_features_and_maps_are_torchs(name, size, layers):
    backbone, heads = network(name, size, layers), (1, layers[-1])
    found, mapped = backbone(frames(5, size)), backbone.cls_attention(frames(5, size), heads)
    backbone.engine = "torch"
    for got, wanted in zip(
        (*found, *mapped), (*backbone(frames(5, size)), *backbone.cls_attention(frames(5, size), heads))
    ):
        assert (got is None) == (wanted is None)
        if wanted is not None:
            assert got.dtype == wanted.dtype and (got - wanted).norm() <= 1e-4 * wanted.norm()


@torch.inference_mode()
def test_a_frame_has_the_same_bits_whenever_it_is_computed():
    backbone = network()
    first, again = backbone(frames(4)), backbone(frames(4))
    assert all(torch.equal(a, b) for a, b in zip(first, again))
    assert torch.equal(network()(frames(4))[0], first[0])


@torch.inference_mode()
def test_images_of_another_size_have_a_graph_of_their_own():
    backbone = network()
    found = backbone.cls_attention(frames(2, 64), (4,))[2]
    backbone.engine = "torch"
    torch.testing.assert_close(found, backbone.cls_attention(frames(2, 64), (4,))[2], atol=1e-5, rtol=1e-4)


def test_frames_of_another_shape_are_refused_as_by_torch():
    with pytest.raises(ValueError, match=r"frames must be \(M, 3, S, S\), got \(2, 3, 32, 48\)"):
        network()(torch.zeros(2, 3, 32, 48))


def test_trained_and_compiled_networks_stay_with_torch():
    trained = Backbone("vit_tiny_patch16_224", "random", 32, (2, 4), trainable_blocks=1)
    trained.use_engine("openvino")
    assert trained.engine_on(CPU) == "torch" and trained(frames())[0].requires_grad
    compiled = network()
    compiled.compiled = True
    assert compiled.engine_on(CPU) == "torch"
    assert network().engine_on(torch.device("cuda")) == "torch"


# the export ---------------------------------------------------------------------------------------------------------


def exports(folder):
    return [path.parent for path in (folder / "engines").glob("*/graph.json")]


def test_one_export_serves_all_layers_and_a_damaged_one_is_made_again(own_cache, caplog):
    with torch.inference_mode():
        good, _ = network()(frames())
        network(layers=(1,)).cls_attention(frames(), (3,))
    (folder,) = exports(own_cache)
    weights = bytearray((folder / "graph.bin").read_bytes())
    weights[len(weights) // 2] ^= 1
    (folder / "graph.bin").write_bytes(weights)
    engine._load.cache_clear()
    with torch.inference_mode():
        assert torch.equal(network()(frames())[0], good)
    assert "graph.bin does not match its checksum: it is exported again" in caplog.text


def test_an_export_of_another_version_is_not_taken(own_cache, monkeypatch):
    network()
    monkeypatch.setattr(engine, "GRAPH_FORMAT", engine.GRAPH_FORMAT + 1)
    network()
    assert len(exports(own_cache)) == 2


def test_a_network_that_does_not_export_is_computed_by_torch_which_is_said(own_cache, monkeypatch, caplog):
    def fail(*_):
        raise RuntimeError("no rule for aten.riddle\nat line 1")

    monkeypatch.setattr(engine, "_convert", fail)
    backbone = Backbone("vit_tiny_patch16_224", "random", 32, (2, 4))
    backbone.use_engine("openvino")
    assert backbone.engine == "torch" and backbone(frames())[0].shape == (3, 4, 384)
    assert "does not export: no rule for aten.riddle: torch computes it instead" in caplog.text
    assert not exports(own_cache)


def test_a_graph_that_does_not_compile_is_computed_by_torch_which_is_said(monkeypatch, caplog):
    backbone = network()

    def fail(*_):
        raise RuntimeError("Exception from plugin.cpp:53:\nno such shape")

    monkeypatch.setattr(engine.CompiledGraph, "__init__", fail)
    engine._load.cache_clear()
    assert backbone(frames())[0].shape == (3, 4, 384) and backbone.engine == "torch"
    assert "no such shape: torch computes it instead" in caplog.text
    assert {compute.engine for compute in engine.measure_rates()} == {"torch"}


def test_no_room_for_an_export_is_said_and_torch_computes(own_cache, monkeypatch, caplog):
    import openvino

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(openvino, "save_model", full)
    backbone = Backbone("vit_tiny_patch16_224", "random", 32, (2, 4))
    backbone.use_engine("openvino")
    assert backbone.engine == "torch" and "is full" in caplog.text and "torch computes it instead" in caplog.text
    assert not [path for path in (own_cache / "engines").iterdir() if path.suffix != ".lock"]


def test_two_that_export_at_once_make_one(own_cache):
    both = [Backbone("vit_tiny_patch16_224", "random", 32, (2, 4)) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:  # each opens the lock file for itself, as two processes do
        list(pool.map(lambda backbone: backbone.use_engine("openvino"), both))
    assert [backbone.engine for backbone in both] == ["openvino"] * 2
    (folder,) = exports(own_cache)
    assert {path.name for path in folder.parent.iterdir()} <= {folder.name, f"{folder.name}.lock"}


# the choice ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "asked, wanted",
    [
        (("auto", "auto"), ("openvino", "bf16")),
        (("torch", "auto"), ("torch", "bf16")),
        (("auto", "fp32"), ("openvino", "fp32")),
        (("openvino", "auto"), ("openvino", "bf16")),
        (("torch", "fp32"), ("torch", "fp32")),
        (("auto", "fp16"), ("torch", "fp16")),
    ],
)
def test_auto_is_the_fastest_of_what_is_left_open(rates, asked, wanted):
    assert resolve_compute(*asked, CPU) == wanted


def test_the_environment_stands_for_auto_alone(rates, monkeypatch):
    monkeypatch.setenv("MVF_ENGINE", "torch")
    monkeypatch.setenv("MVF_PRECISION", "fp32")
    assert resolve_compute("auto", "auto", CPU) == ("torch", "fp32")
    assert resolve_compute("openvino", "bf16", CPU) == ("openvino", "bf16")
    monkeypatch.setenv("MVF_ENGINE", "openvin")
    with pytest.raises(ValueError, match=r'\$MVF_ENGINE must be one of auto, torch, openvino, got "openvin"'):
        resolve_compute("auto", "auto", CPU)


def test_what_this_machine_lacks_is_refused_with_what_to_do(monkeypatch):
    monkeypatch.setattr(engine, "openvino_precisions", lambda: ("fp32",))
    with pytest.raises(ValueError, match='computes in fp32 on this processor, not in bf16: use precision="fp32"'):
        resolve_compute("openvino", "bf16", CPU)
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="not installed: pip install openvino"):
        resolve_compute("openvino", "fp32", CPU)
    with pytest.raises(ValueError, match='engine="openvino" computes frozen networks'):
        mvf.load_config("demo", engine="openvino", compile=True)


def test_auto_takes_the_fastest_by_a_clock_that_the_test_winds(monkeypatch):
    """Each call of a combination moves the clock by what the test says it takes."""
    takes, now = {"torch fp32": 3.0, "torch bf16": 2.0, "openvino": 1.0}, [0.0]

    def by_torch(block, tokens, precision):
        now[0] += takes[f"torch {precision}"]

    monkeypatch.setattr(engine, "_in_torch", by_torch)
    monkeypatch.setattr(engine.CompiledGraph, "__call__", lambda *_: now.__setitem__(0, now[0] + takes["openvino"]))
    for name in takes:
        takes[name] = 0.5
        found = engine.measure_rates(lambda: now[0])
        monkeypatch.setattr(engine, "measured_rates", lambda found=found: found)
        chosen = resolve_compute("auto", "auto", CPU)
        assert found[chosen] == min(found.values()) == 0.5 and name in f"{chosen.engine} {chosen.precision}"
        takes[name] = 4.0


def test_rates_are_measured_once_a_machine(own_cache, monkeypatch):
    calls = []
    monkeypatch.setattr(engine, "measure_rates", lambda: calls.append(1) or RATES)
    for _ in range(2):
        engine.measured_rates.cache_clear()
        assert engine.measured_rates() == RATES
    monkeypatch.setattr(engine, "processor", lambda: "another")
    engine.measured_rates.cache_clear()
    engine.measured_rates()
    engine.rates_file().write_text("{")
    engine.measured_rates.cache_clear()
    engine.measured_rates()
    engine.measured_rates.cache_clear()
    assert len(calls) == 3


# runs and banks -----------------------------------------------------------------------------------------------------


def test_engines_have_banks_of_their_own_and_torch_keeps_its_key(tmp_path):
    by_openvino, by_torch = (
        FeatureBank(network(chosen=name), None, "fp32", tmp_path) for name in ("openvino", "torch")
    )
    assert by_openvino.made_from == by_torch.made_from | {"engine": "openvino"}
    assert list(by_torch.made_from) == ["backbone", "weights", "image_size", "augmentation", "precision"]


def test_a_run_says_what_computed_it_goes_on_with_it_and_is_opened_with_it(tiny, tmp_path, rates, monkeypatch):
    monkeypatch.setattr(
        engine, "measured_rates", lambda: {Compute("openvino", "fp32"): 1.0, Compute("torch", "fp32"): 2.0}
    )
    config = tiny(precision="auto", features="online", epochs=1)
    run = mvf.train(config, tmp_path / "run")
    stored = json.loads((run.folder / "config.json").read_text())
    assert (stored["engine"], stored["precision"]) == ("openvino", "fp32")
    monkeypatch.setattr(
        engine, "measured_rates", lambda: {Compute("torch", "fp32"): 1.0, Compute("openvino", "fp32"): 2.0}
    )
    again = mvf.train(config, tmp_path / "run")
    assert again.config == run.config and again.model.backbone.engine == "openvino"
    model, opened = open_model(run.folder)
    assert model.backbone.engine == "openvino" and opened == run.config
    assert open_model(run.folder, engine="torch")[0].backbone.engine == "torch"
    records = find_config_videos(config, "val")[:1]
    by_openvino = mvf.embed(model, records)[0].embeddings
    model.backbone.engine = "torch"
    torch.testing.assert_close(
        *map(torch.from_numpy, (by_openvino, mvf.embed(model, records)[0].embeddings)), atol=1e-4, rtol=0
    )


def test_a_run_of_another_machine_is_opened_and_resumed_by_torch_with_a_line(tiny, tmp_path, monkeypatch, caplog):
    config = tiny(features="online", epochs=2)
    with pytest.raises(ZeroDivisionError):
        mvf.train(replace(config, engine="torch", precision="bf16"), tmp_path / "run", on_epoch=lambda row: 1 / 0)
    settings = tmp_path / "run" / "config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"engine": "openvino"}))
    monkeypatch.setattr(engine, "openvino_precisions", lambda: ("fp32",))
    for use in (mvf.load_run, partial(mvf.train, replace(config, engine="auto", precision="auto"))):
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            run = use(tmp_path / "run")
        assert run.model.backbone.engine == "torch" and run.config.precision == "bf16"
        assert "not in bf16" in caplog.text and "torch computes this run here" in caplog.text
    assert len(run.history) == 2
    with pytest.raises(ValueError, match='use precision="fp32", or engine="torch"'):
        mvf.train(replace(config, engine="openvino", precision="bf16"), tmp_path / "run")
    assert len(mvf.train(replace(config, engine="torch", precision="bf16"), tmp_path / "run").history) == 2


def test_a_run_from_before_engines_is_torchs(tiny, tmp_path):
    run = mvf.train(tiny(engine="torch", features="online", epochs=1), tmp_path / "run")
    settings = run.folder / "config.json"
    settings.write_text(json.dumps({k: v for k, v in json.loads(settings.read_text()).items() if k != "engine"}))
    assert read_config(run.folder) == run.config
    assert mvf.train(replace(run.config, engine="auto"), tmp_path / "run").history == run.history


def test_bank_training_report_and_maps_never_call_torchs_network(tiny, tmp_path, own_cache, monkeypatch):
    network()  # exported

    real = Backbone.features_and_attention

    def fail(backbone, frames, *layers):
        assert frames.device.type == "meta", "torch computed frozen features"  # meta: operations are counted
        return real(backbone, frames, *layers)

    monkeypatch.setattr(Backbone, "features_and_attention", fail)
    run = mvf.train(tiny(engine="openvino", features="banked", epochs=1), tmp_path / "run")
    splits = embed_splits(run.model, run.config)
    report = report_on(run.model, run.config, splits)
    assert report["cropped"]["untrained"] and report["localization"]
    assert mvf.attention_maps(run.model, splits.val_records[0], (1, -1)).heads is not None
    assert json.loads((splits.cache.folder / "made_from.json").read_text())["engine"] == "openvino"
