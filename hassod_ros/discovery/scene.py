"""Labels without the scene: masks that HEAP or LightCluster call background are dropped, or kept out of the hierarchy.

Both methods answer what HASSOD leaves open, which regions are things and which are wall, floor or sky. How a mask is
judged by their foreground is ours: by its mean over the mask.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from hassod_ros.discovery.features.base import Features
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
        once = _Once(features)
        found = self._method.partition(prepared, once, None)
        regions = self._learner.partition(prepared, once, state)
        return [_Both(*pair) for pair in zip(found, regions, strict=True)]

    def masks(self, image: np.ndarray, partition: _Both) -> Instances:
        """The method's instances, their forest arranged anew among those that are no scene."""
        instances = self._method.masks(image, partition.found)
        scene = scenes(instances, self._learner.foreground(image, partition.regions), self._scene)
        things = np.flatnonzero(~scene)
        kept = instances.select(things)
        new_parents, new_levels = coverage_forest(kept.regions, kept.masks, cover=self.config.cover)
        if self._scene.fate == "drop":
            index, parents, levels = things, new_parents, new_levels
        else:
            index = np.arange(len(instances))
            parents, levels = np.full(len(index), -1), np.zeros(len(index), np.uint8)
            parents[things], levels[things] = np.where(new_parents >= 0, things[new_parents], -1), new_levels
        return Instances(
            image_size=instances.image_size,
            boxes=instances.boxes[index],
            masks=[instances.masks[i] for i in index],
            scores=instances.scores[index],
            levels=levels,
            parents=parents,
            scene=scene[index],
        )


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


class _Once:
    """Features that are computed once for two readers of the same batch."""

    def __init__(self, features: Features) -> None:
        self.name, self.patch_size, self.dim = features.name, features.patch_size, features.dim
        self.weights_sha256 = features.weights_sha256
        self._features = features
        self._known: list[tuple[np.ndarray, np.ndarray]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """See `Features`."""
        for given, described in self._known:
            if np.array_equal(given, images):
                return described
        self._known.append((images, self._features(images)))
        return self._known[-1][1]
