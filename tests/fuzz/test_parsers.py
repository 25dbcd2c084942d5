"""A short run of every fuzz target, the same cases each time; `bench/fuzz.py` runs them for as long as asked for."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from .harness import Prepared, Target
from .registry import TARGETS

CASES = 25  # of each target
SHORT = settings(
    max_examples=CASES, derandomize=True, database=None, deadline=None, suppress_health_check=list(HealthCheck)
)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
def test_only_clear_errors_come_of_nearly_right_and_damaged_input(target: Target, tmp_path):
    prepared = Prepared(target, tmp_path)
    assert not target.file or prepared.try_case(prepared.valid) == "read"

    @SHORT
    @given(prepared.cases)
    def run(content):
        prepared.try_case(content)

    run()
