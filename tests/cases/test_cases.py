"""Runs the scripts of this folder: inputs that once failed, by kind (see each script's first line)."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
AS_ROOT = {"locked_subfolder", "small_shared_memory"}
NAMES = sorted(path.stem for path in HERE.glob("*.py") if path.stem not in ("_help", "__init__", "conftest", "test_cases"))


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_case(name):
    if name in AS_ROOT and os.geteuid():
        pytest.skip("needs root")
    command = [sys.executable, str(HERE / f"{name}.py"), str(ROOT)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0 and "PASS" in done.stdout, done.stdout + done.stderr[-2000:]
