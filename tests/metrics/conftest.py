import numpy as np
import pytest


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def labelled(rng):
    """Seven training and five validation videos of three phases, some frames unlabelled, separable but not quite."""

    def draw(count):
        embeddings, phases = [], []
        for length in rng.integers(12, 25, count):
            phase = np.sort(np.append(rng.integers(0, 3, length - 3), [0, 1, 2]))
            video = np.eye(3)[phase] @ np.eye(3, 6) + 0.5 * rng.normal(size=(length, 6))
            phase[rng.random(length) < 0.2] = -1
            phase[[0, length // 2, -1]] = 0, 1, 2
            embeddings.append(video / np.linalg.norm(video, axis=1, keepdims=True))
            phases.append(phase)
        return embeddings, phases

    return *draw(7), *draw(5)
