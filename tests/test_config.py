"""Settings and presets: what they cast to, what they refuse, and that every preset says what it is about."""

import copy
import json
from dataclasses import asdict, replace
from functools import cache

import pytest
import torch

from mvf.clip import example_clip
from mvf.config import (
    BASE_FIELDS,
    DATA_FIELDS,
    STUDY,
    Config,
    load_config,
    make_config,
    own_settings,
    preset_values,
    presets,
    stored_config,
    stored_presets,
)
from mvf.losses import OBJECTIVES, build_config_loss
from mvf.models import backbone, build_model
from mvf.training.trainer import TrainingStep


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
        ({"layers": "0"}, "numbers of at least 1"),
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


# presets ------------------------------------------------------------------------------------------------------------

MERGED = ("finegym99_merge", "synthetic_merge")
ON_DATA_OF_THE_PAPER = ("penn", "pouring", "finegym99", "finegym288", "kinetics400")
RECIPES = tuple(f"{name}_content" for name in ON_DATA_OF_THE_PAPER)
DRAWN_AND_OWN = ("demo", "folder", "folder_published", "synthetic", "synthetic_published")
OWN = (*DRAWN_AND_OWN, *RECIPES, *MERGED, *STUDY)  # not of the paper
FAMILIES = {name: stored.objective for name, stored in stored_presets().items() if stored.objective}
PAPER = tuple(name for name in presets() if name not in (*OWN, *FAMILIES))
CARL = {"backbone": "resnet50", "layers": (4,), "pooling": "max", "trainable_blocks": 1}
DATA = {
    "penn": {"layers": (4, 8, 12), "entities": 3, "readout": "cls", "epochs": 500, "batch_size": 4},
    "kinetics400": {"layers": (4, 8, 12), "entities": 3, "readout": "cls", "epochs": 10, "batch_size": 8},
    "pouring": {"layers": (12,), "entities": 3, "readout": "cls", "epochs": 1000, "batch_size": 4},
    "finegym99": {"layers": (10, 11, 12), "entities": 6, "readout": "mean", "epochs": 300, "batch_size": 8},
}
DATA["finegym288"] = DATA["finegym99"]
FINEGYM = {"token_width": 1536, "embedding_size": 256, "num_frames": 240, "block_rule": "sampled"}
FINEGYM |= {"chunk": 2000, "probe": "sgd", "judge": "together"}
MORE = {
    "penn": {"token_width": 512, "embedding_size": 128, "num_frames": 80, "block_rule": "length", "stride": 2},
    "kinetics400": {"num_frames": 80, "overlap": 1.0, "objective_options": {"negatives": "batch_noself"}},
    "pouring": {"num_frames": 240, "block_rule": "length", "stride": 5, "chunk": 1000, "probe": "logistic"},
    "finegym99": FINEGYM,
    "finegym288": FINEGYM,
}
OF_PENN = {
    "penn_from_kinetics": {"init_from": "kinetics400"},
    "penn_zero_shot_kinetics": {"init_from": "kinetics400", "epochs": 0},
    "penn_carl_from_kinetics": {**CARL, "init_from": "kinetics400_carl", "entities": 1},
    "penn_carl_zero_shot_kinetics": {**CARL, "init_from": "kinetics400_carl", "entities": 1, "epochs": 0},
    "penn_mean": {"readout": "mean"},
    "penn_per_action": {"per_action": True},
    "penn_resnet50": {**CARL, "trainable_blocks": 0, "entities": 1},
    "penn_resnet50_lstp_1": {"backbone": "resnet50", "layers": (4,), "entities": 1},
    "penn_resnet50_lstp_mtf": {"backbone": "resnet50", "layers": (4,), "entities": 3},
    **{f"penn_fixed_width_{n}": {"pooling": "fixed_width", "layers": (12,), "entities": n} for n in (3, 5)},
    **{f"penn_last_{n}": {"layers": (12,), "entities": n} for n in (1, 3, 5)},
    **{f"penn_multi_{n}": {"entities": n} for n in (1, 5)},
    **{f"penn_dino_{kind}": {"pooling": kind, "layers": (12,), "entities": 1} for kind in ("max", "mean", "cls")},
}
VSP_ON = {"penn", "finegym99", "finegym288", "pouring", "kinetics400"}
ROWS = {  # data sets of the paper's rows
    **dict.fromkeys(("tcc", "tcn", "sal", "vsp_p", "vsp_f"), {"penn", "finegym99", "finegym288"}),
    **dict.fromkeys(("lav", "gta", "vava", "lrprop"), {"penn"}),
    "vsp": VSP_ON,
}
REFERENCE = {"variant": "reference"}
PUBLISHED = {  # frames, videos a batch, options; None: the data set's
    "tcc": (20, 4, {}),
    "tcn": (40, None, {}),
    "sal": (20, None, {}),
    "lav": (20, 2, {}),
    "gta": (20, 4, REFERENCE),
    "vava": (20, 2, REFERENCE),
    "lrprop": (80, None, {}),
    "vsp": (12, 128, REFERENCE),
    "vsp_p": (12, 128, REFERENCE),
    "vsp_f": (12, 128, {"variance_power": 2}),
}
FORMS = ("", "_published")
ADDED = {  # one step from a preset made for an objective
    "penn_tcc_port": ("penn_tcc_published", {"objective_options": REFERENCE}),
    **{f"penn_{o}{p}_per_action": (f"penn_{o}{p}", {"per_action": True}) for o in ("tcc", "lav") for p in FORMS},
    **{f"penn_vsp{p}_from_kinetics": (f"penn_vsp{p}", {"init_from": f"kinetics400_vsp{p}"}) for p in FORMS},
    **{f"penn_vsp{p}_zero_shot_kinetics": (f"penn_vsp{p}_from_kinetics", {"epochs": 0}) for p in FORMS},
}


def differences(one, other):
    one, other = (asdict(load_config(name)) for name in (one, other))
    return {name: value for name, value in one.items() if other[name] != value and name != "preset"}


@pytest.mark.parametrize("name", DATA)
def test_the_rows_of_table_1_have_the_papers_numbers(name):
    values = asdict(load_config(name))
    wanted = {"dataset": name, "backbone": "dino_vitb8", "image_size": 224, "pooling": "lstp", "objective": "scl"}
    wanted |= {"entity_width": 384, "fusion_blocks": 3, "fusion_heads": 8, "learning_rate": 1e-4, "weight_decay": 1e-5}
    wanted |= DATA[name] | MORE[name]
    assert {key: values[key] for key in wanted} == wanted


@pytest.mark.parametrize("name", DATA)
def test_carl_shares_all_but_backbone_and_pooling(name):
    assert differences(f"{name}_carl", name) == CARL | {"entities": 1}


@pytest.mark.parametrize("name", OF_PENN)
def test_ablations_differ_from_penn_in_what_they_ablate_alone(name):
    penn = load_config("penn")
    assert differences(name, "penn") == {
        key: value for key, value in OF_PENN[name].items() if getattr(penn, key) != value
    }


@pytest.mark.parametrize("name", PAPER)
def test_rows_of_the_paper_keep_its_sampling_also_on_other_data(name):
    for base in ("", "demo", "folder"):
        assert not {"sampling", "motion_skip"} & preset_values(name, base).keys()
    assert (load_config(name).sampling, load_config(name).motion_skip) == ("published", 0)


@pytest.mark.parametrize("name", RECIPES)
def test_the_recipe_is_one_step_from_the_paper(name):
    recipe = {"sampling": "content", "motion_skip": 1.0}
    assert differences(name, name.removesuffix("_content")) == recipe
    assert {key: getattr(load_config(name, "demo"), key) for key in recipe} == recipe


@pytest.mark.parametrize("name, skip", [("synthetic", 2.5), ("demo", 2.5), ("folder", 1), ("study", 0)])
def test_the_default_is_the_recipe_and_the_study_compares_what_is_trained(name, skip):
    config = load_config(name)
    assert (config.sampling, config.motion_skip) == ("content", skip)
    assert load_config("synthetic", "folder").motion_skip == 1


@pytest.mark.parametrize("name", MERGED)
def test_merging_alone_is_what_presets_of_merging_change(name):
    assert differences(name, name.removesuffix("_merge")) == {"token_merge": 0.5}


def test_no_preset_is_left_out():
    assert set(PAPER) == {*DATA, *(f"{name}_carl" for name in DATA), *OF_PENN, *ADDED}
    own = {f"{base}_{name}" for name, bases in ROWS.items() for base in (*bases, *STUDY)}
    assert set(FAMILIES) == own | {f"{base}_{name}_published" for name, bases in ROWS.items() for base in bases}
    assert set(OBJECTIVES) == {*FAMILIES.values(), "scl"}


# objectives ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ROWS)
def test_on_mvformers_own_settings_the_objective_alone_differs(name):
    for base in (*ROWS[name], *STUDY):
        options = {"objective_options": {}} if load_config(base).objective_options else {}
        options = {"objective_options": {"segments": 5}} if name == "vsp" else options  # few videos a batch
        assert differences(f"{base}_{name}", base) == {"objective": name} | options


@pytest.mark.parametrize("name", ROWS)
def test_published_settings_are_on_the_model_of_carl(name):
    for base in ROWS[name]:
        frames, batch, options = PUBLISHED[name]
        if base in ("pouring", "kinetics400"):  # the released sampler needs as many for 5 bridges
            frames, batch, options = {"pouring": 240, "kinetics400": 80}[base], None, {**options, "segments": 5}
        carl, config = load_config(f"{base}_carl"), load_config(f"{base}_{name}_published")
        wanted = {"num_frames": frames, "batch_size": batch or carl.batch_size, "objective_options": options}
        assert config == replace(carl, objective=name, preset=config.preset, **wanted)


@pytest.mark.parametrize("name", ADDED)
def test_starred_and_pre_trained_rows_are_one_step_from_the_objectives_preset(name):
    below, values = ADDED[name]
    assert differences(name, below) == values
    assert load_config(name).init_from in ("", *presets())
    assert own_settings(name)["objective"] == load_config(below).objective


def test_overrides_reach_presets_made_for_objectives():
    config = load_config("penn_tcc_published", entities=1)
    assert (config.preset, config.num_frames, config.backbone) == ("penn_tcc_published", 20, "resnet50")


OPTIONS = {(c.objective, str(c.objective_options)): name for name in presets() if (c := load_config(name))}


@pytest.mark.parametrize("name", OPTIONS.values())
def test_the_objective_of_every_preset_can_be_learned_from(name):
    config = load_config(name)
    torch.manual_seed(1)
    loss = build_config_loss(config)
    # two phases of 6 frames, but one where clips show one phase; frames that an interleaving objective can pair
    phase = torch.arange(12).ge(6).long() * (loss.sampler != "phase")
    clip = example_clip(3, loss.views, 12)
    shape = clip.frame_index.shape
    clip = replace(clip, action=torch.zeros(3, dtype=torch.long), phase=phase.expand(shape).clone())
    z = torch.nn.functional.normalize(torch.randn(*shape, config.embedding_size), dim=-1).requires_grad_()
    value = loss(z, clip, generator=torch.Generator().manual_seed(1))
    value.backward()
    assert value.isfinite() and z.grad.isfinite().all() and z.grad.any()


def test_supervision_is_what_table_4_says():
    labels = {name: build_config_loss(load_config(f"penn_{name}")).labels for name in ROWS}
    video = dict.fromkeys(("tcc", "lav", "gta", "vava", "lrprop"), "video")
    assert labels == video | dict.fromkeys(("tcn", "sal", "vsp"), "none") | {"vsp_p": "phase", "vsp_f": "frame"}


# at full size -------------------------------------------------------------------------------------------------------


@cache
def network(name, image_size):
    """Random weights, drawn once for all presets of a backbone."""
    return real_load_backbone(name, "random", image_size)


real_load_backbone = backbone.load_backbone


def copied(name, weights, image_size, check):
    return copy.deepcopy(network(name, image_size))


MODELS = [name for name in presets() if load_config(name).objective == "scl"]  # objectives are on these models


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_the_model_runs_and_learns_at_full_size(name, monkeypatch):
    monkeypatch.setattr(backbone, "load_backbone", copied)
    config = load_config(name, backbone_weights="random")
    torch.manual_seed(1)
    step = TrainingStep(build_model(config), build_config_loss(config)).train()
    size = config.image_size
    clip = example_clip(1, 2, 2)
    clip = type(clip)(clip.frame_index, clip.num_frames, clip.valid, frames=torch.rand(1, 2, 2, 3, size, size))
    optimizer = torch.optim.Adam([p for p in step.parameters() if p.requires_grad], lr=config.learning_rate)
    loss = step(clip)
    loss.backward()
    optimizer.step()
    assert torch.isfinite(loss)
    for parameter_name, parameter in step.named_parameters():
        assert (parameter.grad is None) == (not parameter.requires_grad), parameter_name
        assert parameter.grad is None or parameter.grad.isfinite().all(), parameter_name
    with torch.inference_mode():
        out = step.model.eval()(clip.frames[0, :1, :1])
    assert out.embeddings.shape == (1, 1, config.embedding_size) and out.embeddings.isfinite().all()
    if config.pooling == "lstp":
        assert out.attention.shape == (1, 1, config.entities, step.model.backbone.grid[0] ** 2)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "tccc"}, 'unknown objective "tccc"; did you mean "tcc"'),
        ({"objective": "scl+0.1*laf"}, 'unknown objective "laf"; did you mean "lav"'),
        ({"objective": ""}, 'unknown objective ""'),
        ({"backbone": "dino_vitb9"}, 'unknown backbone "dino_vitb9"; did you mean "dino_vitb8"'),
        ({"backbone": "vit_smal_patch16_224"}, 'did you mean "vit_small_patch16_224"'),
        ({"backbone": "vit_tiny_patch16_224.nobody"}, "unknown backbone"),
        (
            {"backbone": "dinov2_vits14", "image_size": 110},
            "image_size 110 does not fit the 14-pixel patches .* use 98 or 112",
        ),
        ({"backbone": "dino_vitb8", "image_size": 7}, "use 8"),
        ({"backbone": "dino_vitb8", "layers": (4, 13)}, r"dino_vitb8 has layers 1 to 12, got layers \(4, 13\)"),
        ({"backbone": "resnet50", "layers": (5,), "image_size": 224}, "resnet50 has layers 1 to 4"),
    ],
)
def test_names_and_sizes_that_no_model_has_are_refused_before_anything_is_read(settings, message):
    with pytest.raises(ValueError, match=message):
        load_config("synthetic", **settings)


@pytest.mark.parametrize("objective", ["scl", "scl+0.1*lav", "0.5*tcc + 2*vsp", "vsp_p"])
def test_every_objective_and_sum_is_known(objective):
    assert load_config("synthetic", objective=objective).objective == objective
