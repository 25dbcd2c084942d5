"""The four tasks equal the published evaluators on one action of real size."""

import numpy as np
import pytest

from mvf import metrics
from tests.golden import GOLDEN


@pytest.fixture(scope="module")
def golden():
    return dict(np.load(GOLDEN / "metrics_clean_and_jerk.npz"))


def videos(golden, split):
    bounds = np.cumsum(golden[f"{split}_lengths"])[:-1]
    return np.split(golden[f"{split}_embs"], bounds), np.split(golden[f"{split}_labels"], bounds)


@pytest.mark.parametrize("fraction", [0.1, 0.5, 1.0])
def test_linear_probes(golden, fraction):
    data = *videos(golden, "train"), *videos(golden, "val")
    accuracy = metrics.phase_classification(*data, fraction=fraction)
    assert accuracy == pytest.approx(golden[f"expected_class_{fraction}"], abs=2e-3)
    progression = metrics.phase_progression(*data, num_phases=int(golden["num_phases"]), fraction=fraction)
    assert progression == pytest.approx(golden[f"expected_prog_{fraction}"], abs=1e-6)


@pytest.mark.parametrize("split", ["train", "val"])
def test_kendall_tau(golden, split):
    tau = metrics.kendall_tau(videos(golden, split)[0], stride=int(golden["stride"]))
    assert tau == pytest.approx(golden[f"expected_tau_{split}"], abs=1e-6)


def test_retrieval(golden):
    precisions = metrics.retrieval_precisions(*videos(golden, "val"), stride=int(golden["stride"]))
    assert {k: pytest.approx(golden[f"expected_ap_{k}"], abs=1e-6) for k in (5, 10, 15)} == precisions
