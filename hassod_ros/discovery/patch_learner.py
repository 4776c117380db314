"""What HEAP and LightCluster share: they learn from pooled features of a set and find foreground and regions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hassod_ros.discovery.features.base import Features, check_image, features_of
from hassod_ros.discovery.hassod import resize, working_size
from hassod_ros.discovery.regions import Regions, foreground_map, to_instances
from hassod_ros.discovery.states import State, describe
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances

_GRID = 16  # largest side of the pooled grid that learning keeps of an image


class PatchLearner(ABC):
    """The steps of `method.Learner` that do not hang on what is learned.

    Attributes:
        config: Settings, with `working()`, `filters` and `cover`.

    """

    config: Any

    def prepare(self, image: np.ndarray, patch_size: int) -> np.ndarray:
        """The image as the feature extractor sees it: (H', W', 3) uint8, sides multiples of `patch_size`."""
        check_image(image)
        return resize(image, working_size(image.shape[:2], self.config.working(), patch_size))

    def sample(self, prepared: Sequence[np.ndarray], features: Features) -> list[np.ndarray]:
        """What `learn` needs of each prepared image: (C, h', w') float16 features, pooled to at most 16 x 16."""
        return [pooled(each) for each in finite_features(prepared, features)]

    @abstractmethod
    def learn(self, samples: Iterable[np.ndarray], features: Mapping[str, Any]) -> State:
        """See `method.Learner`."""

    def fit(self, images: Iterable[np.ndarray], features: Features) -> State:
        """What is learned from a set of prepared images, one at a time; see `learn`."""
        return self.learn((self.sample([image], features)[0] for image in images), describe(features))

    def masks(self, image: np.ndarray, partition: Regions) -> Instances:
        """Objects of an image and their regions as parts; see `regions.to_instances`."""
        filters = self.config.filters
        least = max(filters.min_area, filters.min_share * image.shape[0] * image.shape[1])
        return to_instances(image, partition, self.foreground(image, partition), least, self.config.cover)

    def foreground(self, image: np.ndarray, partition: Regions) -> np.ndarray:
        """(H, W) float32 foreground of an image in [0, 1]; see `regions.foreground_map`."""
        return foreground_map(image, partition, self.config.working())


def pooled(features: np.ndarray) -> np.ndarray:
    """(C, h, w) float32 -> (C, h', w') float16, averaged to at most 16 a side."""
    down, across = (_averaging(side, min(side, _GRID)) for side in features.shape[1:])
    return (down @ features @ across.T).astype(np.float16)


def _averaging(source: int, target: int) -> np.ndarray:
    """(target, source) float32 weights that average over equal stretches, as OpenCV's INTER_AREA does."""
    edges = np.arange(target + 1) * (source / target)
    places = np.arange(source)
    low = np.maximum(edges[:-1, None], places)
    high = np.minimum(edges[1:, None], places + 1)
    return (np.maximum(high - low, 0) * (target / source)).astype(np.float32)


def finite_features(prepared: Sequence[np.ndarray], features: Features) -> list[np.ndarray]:
    """`features_of`, and InputError where they hold NaN or infinity."""
    found = features_of(prepared, features)
    if any(not np.isfinite(each).all() for each in found):
        raise InputError("the features hold NaN or infinity; check the weights and the image they come from")
    return found
