"""Pictures of instances: colours that follow the part/whole hierarchy, laid over the image."""

from __future__ import annotations

from collections.abc import Collection

import cv2
import numpy as np

from hassod_ros.instances import Instances, Level
from hassod_ros.masks import paint

_GOLDEN = 0.6180339887498949  # multiples of it, modulo 1, keep far from each other
_GAP = 8
_CAPTIONS = ("image", "wholes", "+ parts", "+ subparts")


def colours(instances: Instances) -> np.ndarray:
    """One colour per instance: a hue for each whole, and shades of that hue for what belongs to it.

    A colour follows from the ids of the instance and of its whole, so that tracked objects keep theirs; where there is
    no id the index takes its place.

    Args:
        instances: N instances.

    Returns:
        (N, 3) uint8 RGB.

    """
    n = len(instances)
    roots = np.arange(n)
    for _ in range(len(Level) - 1):
        above = instances.parents[roots]
        roots = np.where(above >= 0, above, roots)
    keys = np.where(instances.ids > 0, instances.ids.astype(np.int64) - 1, np.arange(n))
    hue = keys[roots] * _GOLDEN % 1
    shade = keys * _GOLDEN**2 % 1 - 0.5  # tells the parts of one whole apart
    is_whole = instances.levels == Level.WHOLE
    hue += np.where(is_whole, 0, 0.09 * shade)
    saturation = np.array([0.85, 0.65, 0.45])[instances.levels]
    value = np.where(is_whole, 0.9, 0.8 + 0.4 * shade)
    # HSV to RGB: each channel is a clipped triangle wave of the hue.
    wave = np.abs((hue[:, None] + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    rgb = value[:, None] * (1 - saturation[:, None] * (1 - np.clip(wave, 0, 1)))
    return np.round(rgb * 255).astype(np.uint8)


def draw(
    image: np.ndarray,
    instances: Instances,
    *,
    levels: Collection[int] = tuple(Level),
    alpha: float = 0.45,
    outline: int = 1,
) -> np.ndarray:
    """Lay instances over an image: translucent fills and solid outlines, parts above wholes and small above large.

    Scene has an outline only, beneath everything else.

    Args:
        image: (H, W, 3) uint8 RGB; not changed.
        instances: Instances of that image.
        levels: The levels to draw.
        alpha: Share of the colour in the fill, in [0, 1].
        outline: Width of the outlines in pixels; 0 = none.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: The image is not uint8 RGB of the size that the instances belong to.

    """
    if image.dtype != np.uint8 or image.shape != (*instances.image_size, 3):
        raise ValueError(f"the image must be uint8 {(*instances.image_size, 3)}, got {image.dtype} {image.shape}")
    chosen = np.flatnonzero(np.isin(instances.levels, list(levels)))
    if not len(chosen):
        return image.copy()
    chosen = chosen[np.lexsort((-instances.areas[chosen], instances.levels[chosen], ~instances.scene[chosen]))]
    # Painting numbers and colouring them once is cheaper than blending every crop, and fills do not add up.
    number_type = np.uint8 if len(chosen) < 256 else np.uint16
    top = np.zeros(instances.image_size, number_type)
    regions = instances.regions.tolist()
    for number, i in enumerate(chosen.tolist(), start=1):
        paint(top, regions[i], instances.masks[i], number)
    palette = np.zeros((max(256, len(chosen) + 1), 3), np.uint8)
    palette[1 : len(chosen) + 1] = colours(instances)[chosen]
    layer = cv2.applyColorMap(top, palette[:, None]) if number_type is np.uint8 else palette[top]
    covered = (top > 0).view(np.uint8)
    filled = (top > np.count_nonzero(instances.scene[chosen])).view(np.uint8)
    picture = image.copy()
    cv2.copyTo(cv2.addWeighted(image, 1 - alpha, layer, alpha, 0), filled, picture)
    if outline:
        kernel = np.ones((2 * outline + 1, 2 * outline + 1), np.uint8)
        border = (cv2.dilate(top, kernel) != cv2.erode(top, kernel)).view(np.uint8) & covered
        cv2.copyTo(layer, border, picture)
    return picture


def side_by_side(image: np.ndarray, instances: Instances, *, alpha: float = 0.45, outline: int = 1) -> np.ndarray:
    """The image, its wholes, with parts, and with subparts, next to each other under captions.

    Args:
        image: (H, W, 3) uint8 RGB.
        instances: Instances of that image.
        alpha: As in `draw`.
        outline: As in `draw`.

    Returns:
        (H + caption, 4 W + gaps, 3) uint8 RGB.

    """
    height, width = instances.image_size
    panels = [draw(image, instances, levels=range(depth), alpha=alpha, outline=outline) for depth in range(4)]
    size = float(np.clip(width / 400, 0.35, 1.5))
    strip = round(30 * size)
    sheet = np.full((height + strip, 4 * width + 3 * _GAP, 3), 255, np.uint8)
    counts = np.bincount(instances.levels, minlength=len(Level))
    for i, (panel, caption) in enumerate(zip(panels, _CAPTIONS, strict=True)):
        left = i * (width + _GAP)
        sheet[strip:, left : left + width] = panel
        text = caption if i == 0 else f"{caption} ({counts[i - 1]})"
        label = np.full((strip, width, 3), 255, np.uint8)
        place = (round(6 * size), round(21 * size))
        cv2.putText(label, text, place, cv2.FONT_HERSHEY_SIMPLEX, 0.6 * size, (0, 0, 0), 1, cv2.LINE_AA)
        sheet[:strip, left : left + width] = label
    return sheet
