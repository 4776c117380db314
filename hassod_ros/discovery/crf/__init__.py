"""Multi-label dense CRF: regions from coarse patches snap to the edges of the image (HASSOD, 3.1 and appendix J)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hassod_ros.discovery.crf.config import FLOOR, PAPER, CRFConfig, Method
from hassod_ros.discovery.crf.lattice import tile_order
from hassod_ros.discovery.crf.mean_field import (
    Layout,
    TooManyRegionsError,
    Unary,
    mean_field,
    unary_of_maps,
    unary_of_probabilities,
)
from hassod_ros.errors import InputError


def refine(
    image: np.ndarray,
    probabilities: Sequence[np.ndarray],
    config: CRFConfig = PAPER,
    *,
    method: Method = "native",
) -> list[np.ndarray]:
    """Run the CRF on every group of labels of one image.

    Args:
        image: (H, W, 3) uint8 RGB.
        probabilities: One (R, H, W) float32 array per group, summing to 1 over its R labels.
        config: Constants.
        method: "native" (numba, as many threads as numba is set to) or "pydensecrf" (the original code, one group after
            the other, always all iterations).

    Returns:
        One (R, H, W) float32 array of probabilities per group, summing to 1 over R.

    Raises:
        InputError: Arrays of the wrong shape or type, or a method whose package is not installed.

    """
    image = _check_image(image)
    groups = [_check_group(group, image) for group in probabilities]
    if method == "native":
        layout = Layout.of([len(group) for group in groups])
        order = tile_order(*image.shape[:2])
        return mean_field(image, layout, unary_of_probabilities(groups, order, layout), config)
    if method == "pydensecrf":
        return [_refine_pydensecrf(image, group, config) for group in groups]
    raise InputError(f"unknown CRF method '{method}'; use native or pydensecrf")


def refine_label_maps(
    image: np.ndarray,
    label_maps: np.ndarray,
    config: CRFConfig = PAPER,
    *,
    method: Method = "native",
) -> list[np.ndarray]:
    """Run the CRF on coarse label maps, interpolated to the image's size on the way.

    The same as `refine` on the maps' one-hot masks resized bilinearly (align_corners False), without making them.

    Args:
        image: (H, W, 3) uint8 RGB.
        label_maps: (T, h, w) integers, map t holding labels 0 to its largest.
        config: Constants.
        method: See `refine`.

    Returns:
        For each map its (R, H, W) float32 probabilities, R = largest label + 1.

    Raises:
        InputError: See `refine`.

    """
    image = _check_image(image)
    maps = np.ascontiguousarray(label_maps)
    if maps.ndim != 3 or 0 in maps.shape[1:] or not np.issubdtype(maps.dtype, np.integer) or (maps < 0).any():
        raise InputError(f"label maps must be (T, h, w) integers from 0, got {maps.dtype} {maps.shape}")
    maps = maps.astype(np.int32)
    if method != "native":
        size = image.shape[:2]
        return refine(image, [interpolate(labels, size) for labels in maps], config, method=method)
    height, width = image.shape[:2]
    layout = Layout.of([int(labels.max()) + 1 for labels in maps])
    rows = _positions(maps.shape[1], height)
    columns = _positions(maps.shape[2], width)
    unary = Unary(*unary_of_maps(maps, *rows, *columns, tile_order(height, width), layout.starts))
    try:
        return mean_field(image, layout, unary, config)
    except TooManyRegionsError:
        if len(maps) == 1:
            raise
    return [refine_label_maps(image, one[None], config)[0] for one in maps]  # slower, and a fraction of the memory


def interpolate(labels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """One-hot masks of a label map, resized bilinearly (align_corners False).

    Args:
        labels: (h, w) integers from 0.
        size: (H, W) wanted.

    Returns:
        (R, H, W) float32, R = largest label + 1, summing to 1 over R.

    """
    onehot = (labels == np.arange(int(labels.max()) + 1)[:, None, None]).astype(np.float32)
    low, high, part = _positions(labels.shape[0], size[0])
    onehot = onehot[:, low] * (1 - part)[:, None] + onehot[:, high] * part[:, None]
    low, high, part = _positions(labels.shape[1], size[1])
    return onehot[:, :, low] * (1 - part) + onehot[:, :, high] * part


def _positions(source: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each target index the two source indices around it and the weight of the second."""
    at = np.maximum((np.arange(target, dtype=np.float32) + np.float32(0.5)) * np.float32(source / target) - 0.5, 0)
    low = np.minimum(at.astype(np.int32), source - 1)
    return low, np.minimum(low + 1, source - 1), (at - low).astype(np.float32)


def _check_image(image: np.ndarray) -> np.ndarray:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
        raise InputError(f"the CRF needs an (H, W, 3) uint8 RGB image, got {image.dtype} {image.shape}")
    return np.ascontiguousarray(image)


def _check_group(group: np.ndarray, image: np.ndarray) -> np.ndarray:
    if group.ndim != 3 or len(group) == 0 or group.shape[1:] != image.shape[:2]:
        raise InputError(
            f"probabilities must be (R, {image.shape[0]}, {image.shape[1]}) like the image, got {group.shape}"
        )
    group = np.ascontiguousarray(group, np.float32)
    if not np.isfinite(group).all():
        raise InputError("the probabilities hold NaN or infinity; check the features they come from")
    return group


def _refine_pydensecrf(image: np.ndarray, group: np.ndarray, config: CRFConfig) -> np.ndarray:
    try:
        from pydensecrf.densecrf import DenseCRF2D
    except ImportError as error:
        raise InputError("the CRF method 'pydensecrf' needs its package: pip install pydensecrf2") from error
    labels, height, width = group.shape
    if labels == 1:
        return np.ones_like(group)
    crf = DenseCRF2D(width, height, labels)
    crf.setUnaryEnergy(-np.log(np.clip(group, FLOOR, 1)).reshape(labels, -1))
    crf.addPairwiseGaussian(sxy=config.gaussian_sxy, compat=config.gaussian_compat)
    # It refuses read-only images.
    crf.addPairwiseBilateral(
        sxy=config.bilateral_sxy, srgb=config.bilateral_srgb, rgbim=image.copy(), compat=config.bilateral_compat
    )
    return np.array(crf.inference(config.iterations), np.float32).reshape(group.shape)
