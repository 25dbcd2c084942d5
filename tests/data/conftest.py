from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def frame_cache(tmp_path_factory, monkeypatch):
    """A cache of its own for every test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("MVF_CACHE", str(folder))
    return folder
