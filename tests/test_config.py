import json

import pytest

from mvf.config import BASE_FIELDS, DATA_FIELDS, Config, load_config, make_config, presets, stored_config


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


@pytest.mark.parametrize(
    ("name", "close"), [("penn_tccc", "penn_tcc"), ("penn_vsp_publish", "penn_vsp_published"), ("penn_gt", "penn_gta")]
)
def test_presets_made_for_objectives_are_named_too(name, close):
    assert close in presets()
    with pytest.raises(ValueError, match=f'did you mean "{close}"'):
        load_config(name)


def test_a_preset_can_be_changed_without_changing_the_next_one():
    load_config("penn_vsp_published").objective_options["variant"] = "corrected"
    assert load_config("penn_vsp_published").objective_options == {"variant": "reference"}


def test_on_another_base_a_preset_has_the_bases_data_and_size_and_its_own_objective():
    config, base = load_config("penn_vsp_published", "pouring"), load_config("pouring")
    assert all(getattr(config, name) == getattr(base, name) for name in BASE_FIELDS)
    assert (config.objective, config.objective_options) == ("vsp", {"variant": "reference"})
    assert config.backbone == "resnet50" and config.epochs == base.epochs


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


@pytest.mark.parametrize("value", [float("inf"), "inf", "1e999", 10**400, float("nan")])
def test_numbers_that_are_no_whole_numbers_are_refused_by_name(value):
    if value == 10**400:  # whole, and larger than any float
        assert make_config({"seed": value}).seed == value
    else:
        with pytest.raises(ValueError, match="seed must be like 1, got"):
            make_config({"seed": value})


def test_settings_that_are_no_object_are_refused():
    with pytest.raises(ValueError, match="settings must be an object of values by name, got list"):
        make_config([1])


@pytest.mark.parametrize("name, value", [("jitter", float("nan")), ("crop_area", [0.1, float("inf")])])
def test_numbers_are_finite_also_inside_a_tuple(name, value):
    with pytest.raises(ValueError, match=f"{name} must be a finite number, got .*(nan|inf)"):
        load_config("synthetic", **{name: value})


def test_settings_of_earlier_versions_are_read_with_a_warning_where_they_did_something(tmp_path, caplog):
    path = tmp_path / "config.json"
    for value in (0, 3):
        path.write_text(json.dumps(load_config("penn").as_dict() | {"bank_renew": value}))
        assert stored_config(path) == load_config("penn")
        assert ("bank_renew to 3" in caplog.text) == bool(value)


@pytest.mark.parametrize("options", [{"epochs": 2}, {"epochs": 2, "dataset": "folder"}])
def test_a_configuration_is_built_once_from_the_merged_values(monkeypatch, options):
    built, checks = [], Config.__post_init__
    monkeypatch.setattr(Config, "__post_init__", lambda config: (built.append(1), checks(config)))
    load_config("demo", **options)
    assert len(built) == 1
