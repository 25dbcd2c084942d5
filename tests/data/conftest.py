from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def frame_counts(tmp_path_factory):
    """A cache that all tests share, so that real footage is counted once."""
    return tmp_path_factory.mktemp("frame_counts")


@pytest.fixture(autouse=True)
def fresh_cache(frame_counts, monkeypatch):
    """Keeps frame counts out of the user's cache."""
    monkeypatch.setenv("MVF_CACHE", str(frame_counts))
