"""Features that are computed once for several readers of the same images."""

from __future__ import annotations

import time
from collections import deque

import numpy as np

from hassod_ros.discovery.features.base import Features


class Remembered:
    """The last answers of an extractor; see `Features`.

    Args:
        features: The extractor.
        keep: How many answers.

    Attributes:
        seconds: Processor time that the extractor has taken.

    """

    def __init__(self, features: Features, keep: int = 1) -> None:
        self._features = features
        self.name, self.dim = features.name, features.dim
        self.patch_size, self.weights_sha256 = features.patch_size, features.weights_sha256
        self._last: deque[tuple[np.ndarray, np.ndarray]] = deque(maxlen=keep)
        self.seconds = 0.0

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """See `Features`."""
        for given, found in self._last:
            if np.array_equal(given, images):
                return found
        start = time.process_time()
        found = self._features(images)
        self.seconds += time.process_time() - start
        self._last.append((images.copy(), found))
        return found
