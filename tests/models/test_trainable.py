"""The last blocks of a backbone trained with the rest: gradients, files, training, resuming, controls."""

import json

import numpy as np
import pytest
import torch

import mvf
from mvf.embedding import embed_features, fingerprint, video_features
from mvf.evaluation.controls import embed_controls, untrained_model
from mvf.models import MVFormer, build_model, load_weights
from mvf.models.backbone import Backbone
from mvf.training.run import load_run
from tests.models.stored import forget_checksums

VIT = {"features": "online", "backbone": "test_vit", "layers": "2,6", "trainable_blocks": 2}
RESNET = {**VIT, "backbone": "test_resnet", "image_size": 64, "layers": "4", "trainable_blocks": 1, "pooling": "max"}
TRAINED = {"vit": ("model.blocks.4.", "model.blocks.5."), "resnet": ("model.layer4.",)}
KINDS = pytest.mark.parametrize(("kind", "settings"), [("vit", VIT), ("resnet", RESNET)])


def changed_backbone(model):
    """Moves every trained tensor of the backbone, statistics of batch norms among them."""
    torch.manual_seed(7)
    with torch.no_grad():
        for name, tensor in model.trained_state().items():
            if name.startswith("backbone.") and tensor.is_floating_point():
                tensor.add_(0.1 * torch.rand(tensor.shape))
    return model


def frames(model, count=3):
    size = model.backbone.image_size
    return torch.rand(1, count, 3, size, size, generator=torch.Generator().manual_seed(1))


@KINDS
def test_trained_blocks_get_gradients_and_follow_the_mode_and_the_rest_does_not(tiny, kind, settings):
    model = build_model(tiny(**settings)).train()
    model(frames(model, 4)).projections.square().mul(torch.randn(8)).sum().backward()
    for name, parameter in model.backbone.named_parameters():
        assert (parameter.grad is not None) == name.startswith(TRAINED[kind]) == parameter.requires_grad, name
    for name, module in model.backbone.named_modules():
        assert module.training == (not name or f"{name}.".startswith(TRAINED[kind])), name
    assert not any(module.training for module in model.eval().modules())


def test_a_trained_stage_updates_its_batch_norms_in_training_only():
    backbone = Backbone("test_resnet", "random", 64, (4,), trainable_blocks=1)
    statistics = {name: t.clone() for name, t in backbone.state_dict().items() if "running_mean" in name}
    backbone.eval()(torch.rand(2, 3, 64, 64))
    assert all(torch.equal(backbone.state_dict()[name], tensor) for name, tensor in statistics.items())
    backbone.train()(torch.rand(2, 3, 64, 64))
    moved = [name for name, tensor in statistics.items() if not torch.equal(backbone.state_dict()[name], tensor)]
    assert moved and moved == [name for name in statistics if name.startswith("model.layer4.")]


@KINDS
def test_until_trained_the_features_are_those_of_the_frozen_network(tiny, kind, settings):
    trained, frozen = (build_model(tiny(**{**settings, **more})).backbone for more in ({}, {"trainable_blocks": 0}))
    pixels = torch.rand(2, 3, trained.image_size, trained.image_size)
    torch.testing.assert_close(trained.eval()(pixels), frozen(pixels), rtol=0, atol=0)
    assert trained(pixels)[0].requires_grad and not frozen(pixels)[0].requires_grad
    with torch.no_grad():
        assert not trained(pixels)[0].requires_grad


def test_blocks_count_from_the_deepest_layer_that_is_read():
    assert Backbone("test_vit", "random", 32, (2, 4), 1).trained_parts == ("model.blocks.3",)
    assert Backbone("test_resnet", "random", 64, (3,), 2).trained_parts == ("model.layer2", "model.layer3")


@pytest.mark.parametrize(
    ("name", "layers", "count", "message"),
    [
        ("test_vit", (2, 6), 7, "must be 0 to 6.*got 7"),
        ("test_vit", (2, 6), -1, "got -1"),
        ("test_vit", (2,), 3, "0 to 2"),
        ("test_resnet", (4,), 5, "0 to 4"),
        ("test_convnext", (4,), 1, "neither: use 0"),
    ],
)
def test_numbers_of_blocks_that_cannot_be_trained_are_refused(name, layers, count, message):
    with pytest.raises(ValueError, match=message):
        Backbone(name, "random", 64 if "vit" not in name else 32, layers, count)


@KINDS
def test_trained_blocks_are_stored_and_the_frozen_ones_rebuilt(tiny, tmp_path, kind, settings):
    model = changed_backbone(build_model(tiny(**settings))).eval()
    model.save_pretrained(tmp_path)
    stored = mvf.models.stored.read_model(tmp_path)
    inside = [name.removeprefix("backbone.") for name in stored.trained if name.startswith("backbone.")]
    assert inside and all(name.startswith(TRAINED[kind]) for name in inside) and not stored.frozen
    found = MVFormer.from_pretrained(tmp_path)
    assert found.backbone.trainable_blocks == settings["trainable_blocks"]
    assert found.trained_state().keys() == model.trained_state().keys()
    for name, tensor in found.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name
    torch.testing.assert_close(found(frames(model)).embeddings, model(frames(model)).embeddings, rtol=0, atol=0)
    assert fingerprint(found) == fingerprint(model) != fingerprint(build_model(tiny(**settings)))
    assert MVFormer.from_pretrained(tmp_path, backbone=False).backbone is None


def test_older_folders_are_read_as_frozen(tiny, tmp_path):
    build_model(tiny()).save_pretrained(tmp_path)
    forget_checksums(tmp_path)
    described = json.loads((tmp_path / "model_config.json").read_text())
    described["backbone"].pop("trainable_blocks")
    (tmp_path / "model_config.json").write_text(json.dumps(described))
    assert MVFormer.from_pretrained(tmp_path).backbone.trained_parts == ()


def test_a_model_starts_from_the_trained_blocks_of_another(tiny, tmp_path):
    source = changed_backbone(build_model(tiny(**VIT)))
    source.save_pretrained(tmp_path / "trained")
    model = build_model(tiny(**VIT))
    load_weights(model, tmp_path / "trained")
    assert fingerprint(model) == fingerprint(source)
    with pytest.raises(ValueError, match="trained backbone.model.blocks.4.*set trainable_blocks as it did"):
        load_weights(build_model(tiny(**{**VIT, "trainable_blocks": 1})), tmp_path / "trained")


def test_a_model_that_trains_more_starts_the_rest_from_the_pretrained_network(tiny, tmp_path):
    build_model(tiny(**{**VIT, "trainable_blocks": 0})).save_pretrained(tmp_path)
    torch.manual_seed(5)
    model = build_model(tiny(**VIT))
    before = {name: tensor.clone() for name, tensor in model.backbone.state_dict().items()}
    load_weights(model, tmp_path)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.backbone.state_dict().items())
    assert torch.equal(model.pooling.query, MVFormer.from_pretrained(tmp_path).pooling.query)


def test_trained_blocks_start_from_those_inside_an_official_checkpoint(tiny, tmp_path, monkeypatch):
    official = changed_backbone(build_model(tiny(**RESNET)))
    monkeypatch.setattr("mvf.models.load_official_checkpoint", lambda path: official)
    model = build_model(tiny(**RESNET))
    load_weights(model, tmp_path / "checkpoint.pth")
    assert fingerprint(model) == fingerprint(official)


@KINDS
def test_training_moves_the_trained_blocks_only_and_resumes_exactly(tiny, tmp_path, kind, settings):
    config = tiny(**settings, epochs=2, batch_size=6)
    run = mvf.train(config, tmp_path / "unbroken")
    pretrained = run.model.backbone.before_training().state_dict()
    moved = {
        name for name, tensor in run.model.backbone.state_dict().items() if not torch.equal(tensor, pretrained[name])
    }
    assert moved and all(name.startswith(TRAINED[kind]) for name in moved)

    def stop(row):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        mvf.train(config, tmp_path / "stopped", on_epoch=stop)
    resumed = mvf.train(config, tmp_path / "stopped")
    assert resumed.history[1]["loss"] == run.history[1]["loss"]
    assert fingerprint(resumed.model) == fingerprint(run.model) == fingerprint(load_run(tmp_path / "unbroken").model)


@pytest.fixture(scope="module")
def looked_at():
    """A trained ResNet stage, the model before training, and what the controls read of one video."""
    from mvf.config import load_config
    from tests.conftest import TINY

    options = {**TINY["data_options"], "val_videos": 1}
    config = load_config("synthetic", **{**TINY, **RESNET, "data_options": options})
    model = changed_backbone(build_model(config)).train()
    untrained = untrained_model(config, model)
    records = mvf.data.find_config_videos(config, "val")
    return model, untrained, records, embed_controls(model, untrained, records, config)


def test_the_untrained_model_has_the_backbone_before_training(looked_at):
    model, untrained, *_ = looked_at
    assert untrained.backbone is not model.backbone and untrained.backbone.trained_parts == ()
    fresh = Backbone("test_resnet", "random", 64, (4,)).state_dict()
    assert all(torch.equal(tensor, fresh[name]) for name, tensor in untrained.backbone.state_dict().items())


def test_a_run_and_its_untrained_model_start_alike_whatever_the_weights(tiny, tmp_path):
    network = Backbone("test_resnet", "random", 64, (4,)).model
    torch.save(network.state_dict(), tmp_path / "w.pth")
    config = tiny(**{**RESNET, "backbone_weights": str(tmp_path / "w.pth")})
    torch.manual_seed(config.seed)
    before = torch.get_rng_state()
    Backbone("test_resnet", tmp_path / "w.pth", 64, (4,))
    assert torch.equal(torch.get_rng_state(), before)
    started = build_model(config)
    torch.manual_seed(config.seed)
    given = build_model(config, backbone=started.backbone)
    for other in (given, untrained_model(config, changed_backbone(given))):
        for name, tensor in other.state_dict().items():
            if not name.startswith("backbone."):
                assert torch.equal(tensor, started.state_dict()[name]), name


def test_controls_read_each_model_s_own_backbone(looked_at):
    model, untrained, records, controls = looked_at
    features = {network: video_features(network, records[0], precision="fp32") for network in (model, untrained)}
    mean = features[untrained][0].mean(1).numpy()
    np.testing.assert_allclose(controls.whole["backbone"][0][0].embeddings, mean, atol=1e-5)
    crop = slice(controls.starts[records[0].name][0], None)
    for name, network in (("model", model), ("untrained", untrained)):
        found = controls.cropped[name][0][0].embeddings
        wanted = embed_features(network, features[network][0][crop][: len(found)])
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    assert not torch.allclose(features[model][0], features[untrained][0], atol=1e-2)


def test_looking_leaves_a_model_in_training_as_it_was(looked_at, tiny):
    model, _, records, _ = looked_at
    before = fingerprint(model)
    mvf.embed(model, records)
    video_features(model, records[0])
    vit = build_model(tiny(**VIT)).train()
    maps = mvf.attention_maps(vit, records[0])
    assert maps.heads.shape[:2] == (1, records[0].num_frames) and maps.entities.shape[1] == 3
    assert fingerprint(model) == before and model.training and model.backbone.model.layer4.training
