"""Labels without the scene: masks that HEAP or LightCluster call background are dropped, or kept out of the hierarchy.

Both methods answer what HASSOD leaves open, which regions are things and which are wall, floor or sky. How a mask is
judged by their foreground is ours: by its mean over the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from hassod_ros.discovery.features.base import Features
from hassod_ros.discovery.features.remembered import Remembered
from hassod_ros.discovery.method import Learner, Method
from hassod_ros.errors import InputError
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances

Fate = Literal["drop", "mark"]


@dataclass(frozen=True)
class SceneConfig:
    """What becomes of masks that are scene.

    Raises:
        InputError: A value is out of its range.

    """

    fate: Fate = "drop"  # or mark: they stay, flagged as scene, and are nobody's parent
    foreground: float = 0.5  # mean foreground below which a mask is scene, in [0, 1]
    area: float = 0.03  # share of the image: smaller masks are never scene

    def __post_init__(self) -> None:
        if self.fate not in get_args(Fate):
            raise InputError(f"masks of the scene are one of {', '.join(get_args(Fate))}, not {self.fate!r}")
        for name in ("foreground", "area"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} of the scene lies in [0, 1], got {getattr(self, name)}")


class _Both(NamedTuple):
    """What a method and a learner found in one image."""

    found: Any
    regions: Any


class WithoutScene:
    """A discovery method whose masks a learner tells apart into things and scene; see `method.Method`.

    Args:
        method: Finds the masks.
        learner: Knows what is foreground, of the same features.
        config: What becomes of the scene.

    """

    def __init__(self, method: Method, learner: Learner, config: SceneConfig | None = None) -> None:
        self.config = method.config
        self._method, self._learner, self._scene = method, learner, config or SceneConfig()

    def prepare(self, image: np.ndarray, patch_size: int) -> np.ndarray:
        """As the method does."""
        return self._method.prepare(image, patch_size)

    def fit(self, images: Iterable[np.ndarray], features: Features) -> Any:
        """What the learner learns."""
        return self._learner.fit(images, features)

    def partition(self, prepared: Sequence[np.ndarray], features: Features, state: Any) -> list[_Both]:
        """What both find, in one pass through the features; `state` is the learner's."""
        once = Remembered(features, keep=len(prepared))
        found = self._method.partition(prepared, once, None)
        regions = self._learner.partition(prepared, once, state)
        return [_Both(*pair) for pair in zip(found, regions, strict=True)]

    def masks(self, image: np.ndarray, partition: _Both) -> Instances:
        """The method's instances, their forest arranged anew among those that are no scene."""
        instances = self._method.masks(image, partition.found)
        scene = scenes(instances, self._learner.foreground(image, partition.regions), self._scene)
        among = ~scene[:, None] & ~scene
        parents, levels = coverage_forest(instances.regions, instances.masks, cover=self.config.cover, allowed=among)
        marked = replace(instances, parents=parents, levels=levels, scene=scene)
        return marked if self._scene.fate == "mark" else marked.select(~scene)


def scenes(instances: Instances, foreground: np.ndarray, config: SceneConfig) -> np.ndarray:
    """(N,) bool: masks that are scene by a foreground (H, W) in [0, 1] of the instances' image.

    Raises:
        ValueError: The foreground is of another size.

    """
    if foreground.shape != instances.image_size:
        raise ValueError(f"the masks are of {instances.image_size}, the foreground of {foreground.shape}")
    sums = np.array(
        [
            foreground[y0:y1, x0:x1].sum(where=mask.view(bool), dtype=np.float64)
            for mask, (x0, y0, x1, y1) in zip(instances.masks, instances.regions.tolist(), strict=True)
        ]
    )
    large = instances.areas > config.area * foreground.size
    result: np.ndarray = large & (sums < config.foreground * instances.areas)
    return result
