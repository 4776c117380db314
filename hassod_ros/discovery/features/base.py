"""What every extractor of dense features promises (HASSOD, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np

from hassod_ros.errors import InputError

HANDCRAFTED = "handcrafted"
TINY = "tiny"


class Features(Protocol):
    """Images in, one feature vector per patch out.

    Attributes:
        name: Name that `load_features` knows it by.
        patch_size: Side of a patch in pixels.
        dim: Channels C of a feature vector.
        weights_sha256: Fingerprint of the parameters, for the provenance of whatever is made from the features.

    """

    name: str
    patch_size: int
    dim: int
    weights_sha256: str

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Describe every patch.

        Args:
            images: (B, H, W, 3) uint8 RGB, H and W multiples of `patch_size`.

        Returns:
            (B, C, h, w) float32 with h = H / patch_size and w = W / patch_size, all finite.

        Raises:
            InputError: H or W is no multiple of `patch_size`, or a feature is not finite.

        """
        ...


def check_image(image: np.ndarray) -> None:
    """Refuse what is not (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(
            f"discovery needs an (H, W, 3) uint8 RGB image, got {image.dtype} {image.shape}; read files with read_image"
        )


def check_images(images: np.ndarray, patch_size: int) -> None:
    """Refuse what is not (B, H, W, 3) uint8 with sides that are multiples of `patch_size`."""
    if images.ndim != 4 or images.shape[3] != 3 or images.dtype != np.uint8:
        raise InputError(f"features need (B, H, W, 3) uint8 images, got {images.dtype} {images.shape}")
    height, width = images.shape[1:3]
    if not height or not width or height % patch_size or width % patch_size:
        raise InputError(
            f"{width}x{height} images do not divide into patches of {patch_size}; resize them to multiples"
        )


def features_of(prepared: Sequence[np.ndarray], features: Features) -> list[np.ndarray]:
    """(C, h, w) float32 of each image (H, W, 3) uint8; images of one size share a pass."""
    if len({picture.shape for picture in prepared}) == 1:
        return list(features(np.stack(prepared)))
    return [features(picture[None])[0] for picture in prepared]
