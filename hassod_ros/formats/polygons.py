"""Masks as single polygons, for formats that know nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np


def to_polygon(code: Mapping[str, Any]) -> np.ndarray:
    """One polygon around all pieces of a mask and its holes, joined by lines of no width.

    Its points lie a quarter of a pixel inside the mask, so that rasterisers that count pixel centres (pycocotools,
    Pillow) and those that cut coordinates off and draw outlines too (OpenCV) give the mask back.

    Args:
        code: Compressed run lengths.

    Returns:
        (P, 2) float64 x y in pixels.

    Raises:
        ValueError: The mask is empty; the message goes on after "annotation 7".

    """
    from pycocotools import mask as rle

    x, y, width, height = (int(value) for value in rle.toBbox(dict(code)))
    if not width or not height:
        raise ValueError("has an empty mask")
    crop = np.ascontiguousarray(rle.decode(dict(code))[y : y + height, x : x + width])
    large = cv2.resize(crop, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    outlines, _ = cv2.findContours(large, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    joined, *others = (
        outline[:, 0].astype(np.float64) for outline in sorted(outlines, key=cv2.contourArea, reverse=True)
    )
    while others:
        distances = [np.linalg.norm(joined[:, None] - other[None], axis=2) for other in others]
        nearest = int(np.argmin([distance.min() for distance in distances]))
        i, j = np.unravel_index(int(np.argmin(distances[nearest])), distances[nearest].shape)
        other = np.roll(others.pop(nearest), -int(j), axis=0)
        joined = np.concatenate([joined[: i + 1], other, other[:1], joined[i:]])
    return np.asarray((joined + 0.5) / 2 + (x, y))
