"""Several feature extractors as one: what one of them confuses, another may tell apart."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from hassod_ros.discovery.features.base import Features
from hassod_ros.errors import InputError


class JoinedFeatures:
    """Channels of several extractors one after the other; see `Features`.

    Each extractor's vectors are divided by their root mean square length in the image, so that all weigh the same: for
    vectors of even length the cosine of two patches is the mean of the extractors' cosines.

    Args:
        parts: Extractors of equal patch size.

    Raises:
        InputError: Their patch sizes differ.

    """

    def __init__(self, parts: Sequence[Features]) -> None:
        self.name = "+".join(part.name for part in parts)
        sizes = {part.name: part.patch_size for part in parts}
        if len(set(sizes.values())) > 1:
            listed = ", ".join(f"{name}: {size}" for name, size in sizes.items())
            raise InputError(
                f"{self.name} cannot be joined: patch sizes differ ({listed}); join features of equal ones"
            )
        self._parts = list(parts)
        self.patch_size = parts[0].patch_size
        self.dim = sum(part.dim for part in parts)
        self.precision = next((part.precision for part in parts if hasattr(part, "precision")), "fp32")
        self.weights_sha256 = hashlib.sha256("+".join(part.weights_sha256 for part in parts).encode()).hexdigest()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, C, h, w) float32; see `Features`."""
        return np.concatenate([even(part(images)) for part in self._parts], axis=1)


def even(features: np.ndarray) -> np.ndarray:
    """(B, C, h, w) with a root mean square length of 1 over each image; an image of zeros stays so."""
    length = np.sqrt(np.square(features).sum(1).mean((1, 2)))  # (B,)
    return features / np.maximum(length, np.float32(1e-12))[:, None, None, None]
