import pytest

from mvf.workbench.notebook import read_parameters, run_config

DECLARED = {
    "__annotations__": {"dataset": str, "entities": int, "overrides": dict},
    "dataset": "folder",
    "entities": None,
    "overrides": {},
}


def test_unknown_injected_names_are_refused():
    with pytest.raises(ValueError, match='unknown parameter "entitys"; did you mean "entities"'):
        read_parameters({**DECLARED, "In": ["dataset: str = ''", "# Parameters\nentitys = 3\n"]})


def test_a_setting_that_is_not_declared_is_an_override():
    given = {**DECLARED, "overrides": {"epochs": 3}, "motion_skip": 2.5, "In": ["# Parameters\nmotion_skip = 2.5\n"]}
    assert read_parameters(given)["overrides"] == {"motion_skip": 2.5, "epochs": 3}


def test_values_are_cast_and_bad_ones_named():
    assert read_parameters({**DECLARED, "overrides": '{"epochs": 3}', "entities": "2"})["overrides"] == {"epochs": 3}
    with pytest.raises(ValueError, match="parameter entities must be like 0, got 'many'"):
        read_parameters({**DECLARED, "entities": "many"})


def test_order_of_authority_is_preset_dataset_parameters_overrides():
    base = {"dataset": "folder", "preset": "penn", "epochs": None, "batch_size": 2, "overrides": {}}
    assert run_config(base).epochs == 500  # of the preset
    assert run_config(base).stride == 1  # a data key of the dataset
    assert run_config(base).batch_size == 2
    assert run_config({**base, "overrides": {"batch_size": 3}}).batch_size == 3


def test_an_empty_preset_is_the_datasets_own():
    assert run_config({"dataset": "penn", "preset": ""}).preset == "penn"


def test_zero_entities_is_an_error_not_a_default():
    with pytest.raises(ValueError, match="entities must be at least 1, got 0"):
        run_config({"dataset": "synthetic", "entities": 0})


def test_with_neither_preset_nor_dataset_it_is_the_demo():
    empty = {"dataset": "", "preset": "", "epochs": None, "overrides": {}}
    assert run_config(empty).preset == "demo" and run_config(empty).dataset == "synthetic"
    penn = run_config({**empty, "dataset": "penn"})
    assert (penn.preset, penn.dataset) == ("penn", "penn") and run_config({**empty, "preset": "penn"}) == penn
