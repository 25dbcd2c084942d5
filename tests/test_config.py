import pytest

from mvf.config import DATA_FIELDS, Config, load_config, make_config, presets


def test_penn_is_the_papers_row():
    config = load_config("penn")
    assert (config.backbone, config.image_size, config.layers) == ("dino_vitb8", 224, (4, 8, 12))
    assert (config.entities, config.num_frames, config.epochs, config.readout) == (3, 80, 500, "cls")


def test_overrides_replace_single_fields():
    config = load_config("penn", entities=1, seed=2)
    assert (config.entities, config.seed, config.layers) == (1, 2, (4, 8, 12))


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("layers", "4,8", (4, 8)),
        ("layers", "[4, 8]", (4, 8)),
        ("layers", 12, (12,)),
        ("entity_id", "false", False),
        ("epochs", "7", 7),
        ("learning_rate", "1e-3", 1e-3),
        ("objective_options", '{"temperature": 0.2}', {"temperature": 0.2}),
        ("crop_area", "0.5,1", (0.5, 1.0)),
        ("backbone_weights", 12, "12"),
    ],
)
def test_text_is_cast_to_the_fields_type(name, text, value):
    assert getattr(load_config("penn", **{name: text}), name) == value


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"entitys": 3}, 'did you mean "entities"'),
        ({"pooling": "lstpp"}, 'did you mean "lstp"'),
        ({"entities": 0}, "entities must be at least 1, got 0"),
        ({"layers": "0"}, "from 1 up"),
        ({"epochs": 1.5}, "whole number"),
        ({"num_frames": 1}, "at least 2"),
        ({"objective_options": "[1]"}, "JSON object"),
        ({"features": "bank"}, 'did you mean "banked"'),
        ({"sampling": "contents"}, 'did you mean "content"'),
    ],
)
def test_bad_values_are_refused_with_the_nearest_valid_one(overrides, message):
    with pytest.raises(ValueError, match=message):
        load_config("penn", **overrides)


def test_unknown_preset_names_the_nearest():
    with pytest.raises(ValueError, match='unknown preset "syntetic"; did you mean "synthetic"'):
        load_config("syntetic")


def test_another_dataset_brings_its_data_keys_and_nothing_else():
    penn, folder, mixed = load_config("penn"), load_config("folder"), load_config("penn", dataset="folder")
    for name in DATA_FIELDS:
        assert getattr(mixed, name) == getattr(folder, name)
    assert (mixed.epochs, mixed.backbone, mixed.preset) == (penn.epochs, penn.backbone, "penn")


def test_every_preset_loads_and_survives_json():
    for preset in presets():
        config = load_config(preset)
        assert isinstance(config, Config)
        assert make_config(config.as_dict()) == config


def test_a_relative_data_root_is_kept_absolute(monkeypatch, tmp_path):
    """A run is opened from the notebooks' folder, and trained from another."""
    monkeypatch.chdir(tmp_path)
    config = load_config("folder", data_root="clips")
    monkeypatch.chdir("/")
    assert config.data_root == str(tmp_path / "clips")
