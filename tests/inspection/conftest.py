"""A part that is taught once for all tests, see parts.py."""

from collections.abc import Callable

import numpy as np
import pytest

from hassod_ros.inspection.reference import Reference, learn
from hassod_ros.inspection.settings import Settings
from tests.inspection.parts import observe, part, taken


@pytest.fixture(scope="session")
def good() -> list[np.ndarray]:
    """Five good pictures."""
    return [taken(part(), seed) for seed in range(5)]


@pytest.fixture(scope="session")
def reference(good: list[np.ndarray]) -> Reference:
    return learn(good, Settings(), name="plate", observe=observe, model_sha256="a" * 64)


@pytest.fixture(scope="session")
def teach() -> Callable[..., Reference]:
    """`learn` with the detector of this file."""

    def teach(pictures: list[np.ndarray], **settings: object) -> Reference:
        return learn(pictures, Settings(**settings), name="plate", observe=observe, model_sha256="a" * 64)

    return teach
