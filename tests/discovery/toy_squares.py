"""Squares on grass, and features by which they can be told."""

import numpy as np

from hassod_ros.discovery.features.base import check_images


class Colours:
    """Features that are the mean colour of a patch."""

    name, patch_size, dim, weights_sha256 = "colours", 8, 4, "c"

    def __call__(self, images: np.ndarray) -> np.ndarray:
        check_images(images, 8)
        count, height, width, _ = images.shape
        mean = images.reshape(count, height // 8, 8, width // 8, 8, 3).mean((2, 4)) / 255 - 0.5
        ones = np.full((*mean.shape[:3], 1), 0.1)
        return np.concatenate([mean, ones], axis=3).transpose(0, 3, 1, 2).astype(np.float32)


def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A red (even seeds) or blue square on grass, and its mask."""
    rng = np.random.default_rng(seed)
    image = np.full((96, 96, 3), (60, 160, 70), np.uint8)
    mask = np.zeros((96, 96), bool)
    y, x = 8 * rng.integers(2, 6, 2)
    mask[y : y + 32, x : x + 32] = True
    image[mask] = (210, 40, 40) if seed % 2 == 0 else (40, 40, 210)
    return np.clip(image + rng.normal(0, 4, image.shape), 0, 255).astype(np.uint8), mask
