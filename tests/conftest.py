"""Tiny settings and real footage for all tests."""

from __future__ import annotations

import copy
import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MVF_ENGINE", "torch")  # exporting takes seconds; tests of OpenVINO ask for it

TINY = {
    "backbone": "vit_tiny_patch16_224",
    "backbone_weights": "random",
    "image_size": 32,
    "layers": "2,4",
    "entity_width": 16,
    "token_width": 16,
    "fusion_width": 16,
    "fusion_heads": 2,
    "fusion_feedforward": 16,
    "fusion_blocks": 1,
    "embedding_size": 8,
    "projection_width": 8,
    "num_frames": 8,
    "epochs": 2,
    "batch_size": 4,
    "bank_views": 2,
    "precision": "fp32",
    "motion_skip": 0,  # tests that want it set it
    "data_options": {
        "train_videos": 6,
        "val_videos": 4,
        "actions": ["squat", "jumping_jacks"],
        "idle": 4,
        "repeats": 1,
        "height": 48,
        "width": 56,
        "bystanders": 0,
    },
}
LONGEST = (
    "tests/browser", "tests/test_notebooks.py", "tests/training/test_processes.py", "tests/test_docs.py",
    "tests/tables/test_batch.py", "tests/test_datasets.py",
)  # fmt: skip
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory):
    """Banks of this test session; downloaded weights stay where they are."""
    from mvf.files import cache_folder

    weights = cache_folder() / "weights"
    folder = tmp_path_factory.mktemp("cache")
    weights.mkdir(parents=True, exist_ok=True)
    (folder / "weights").symlink_to(weights)
    before = os.environ.get("MVF_CACHE")
    os.environ["MVF_CACHE"] = str(folder)
    yield folder
    os.environ.pop("MVF_CACHE") if before is None else os.environ.update(MVF_CACHE=before)


@pytest.fixture(scope="session", autouse=True)
def networks_are_drawn_once():
    """Copies random networks: timm takes longer to draw one than most tests take for all else."""
    import torch  # not above: it reads OMP_NUM_THREADS

    from mvf.models import weights

    create, drawn = weights._create, {}

    def copied(timm_name, image_size, **options):
        key = timm_name, image_size, str(options), torch.get_default_device(), torch.initial_seed()
        if key not in drawn:
            drawn[key] = create(timm_name, image_size, **options)
        return copy.deepcopy(drawn[key])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(weights, "_create", copied)
        yield


@pytest.fixture
def tiny():
    """`tiny(**overrides)`: a configuration that trains in seconds on a CPU."""
    from mvf.config import load_config

    return lambda **overrides: load_config("synthetic", **{**TINY, **overrides})


@pytest.fixture
def shared():
    """The folder with real footage, beside the repository."""
    if not (SHARED / "real" / "clips").is_dir():
        pytest.skip("the folder ../shared with real footage is not beside the repository")
    return SHARED


def pytest_collection_modifyitems(items):
    """Puts the longest tests first, so that no processor waits for one at the end."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
