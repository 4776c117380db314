"""Foreground and classes of an image on the patch grid, and what follows from them at full size.

What HEAP and LightCluster find in an image has one form: which patches are foreground, which regions they form, and
what each region looks like. From it come a foreground map, a map of classes, and instances: connected pieces of
foreground are wholes, the regions inside them their parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from hassod_ros.discovery.features.base import check_image
from hassod_ros.discovery.random_walk import walked
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances
from hassod_ros.masks import fill_holes
from hassod_ros.visibility import visible

if TYPE_CHECKING:
    from hassod_ros.discovery.crf.config import CRFConfig
    from hassod_ros.discovery.hassod import HassodConfig

_SURE = 0.73  # certainty that the CRF is told, as CutLER does it: it may then move outlines
_HALF = 0.5
_NEAR = 8  # patches of the border that a patch is compared with
_FLAT = 1e-4  # deviation of cosines below which an image shows nothing
_THICK = 3  # patches: what is thinner joins things that are apart


@dataclass(frozen=True, eq=False)
class Regions:
    """What is known of an image on its grid of h x w patches; some kilobytes.

    Attributes:
        foreground: (h, w) float32 in [0, 1].
        labels: (h, w) int32 numbers of regions from 0, -1 = of no region.
        parts: (h, w) int32 from 0: what divides the foreground into parts.
        embeddings: (R, C) float32, one a region.
        clusters: (R,) int32, equal numbers mean the same in all images; -1 = of none.

    """

    foreground: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    embeddings: np.ndarray
    clusters: np.ndarray


def foreground_map(image: np.ndarray, regions: Regions, working: HassodConfig) -> np.ndarray:
    """(H, W) float32 foreground in [0, 1], upsampled bilinearly and refined by the CRF where `working` has one.

    Args:
        image: (H, W, 3) uint8 RGB.
        regions: Of this image.
        working: Size at which the CRF runs, its constants and kind.

    """
    check_image(image)
    if working.crf is None:
        return upsampled(regions.foreground, image.shape[:2])
    from hassod_ros.discovery.hassod import resize, working_size  # compiled code, which a robot need not have

    size = (image.shape[1], image.shape[0])
    small = resize(image, working_size(image.shape[:2], working))
    return np.clip(cv2.resize(_refined(small, regions.foreground, working.crf, working), size), 0, 1)


def upsampled(foreground: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Foreground (h, w) of patches at each pixel of (H, W), bilinearly, as float32 in [0, 1]."""
    return np.clip(cv2.resize(foreground, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), 0, 1)


def above_otsu(values: np.ndarray) -> np.ndarray:
    """(n,) bool, which values lie above Otsu's threshold; none where all are equal."""
    low, high = float(values.min()), float(values.max())
    if high - low < 1e-6:
        return np.zeros(len(values), bool)
    steps = ((values - low) / (high - low) * 255).astype(np.uint8)
    threshold, _ = cv2.threshold(steps[None], 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return np.asarray(steps > threshold)


def foreground_of(scores: np.ndarray, vectors: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """(h, w) bool, which patches are foreground: near and alike ones share scores, Otsu's threshold, bridges are cut.

    Args:
        scores: (h w,), the higher the rather foreground.
        vectors: `vectors_of` the same patches.
        grid: (h, w).

    """
    return without_bridges(above_otsu(walked(scores, vectors, grid)).reshape(grid))


def without_bridges(foreground: np.ndarray) -> np.ndarray:
    """Foreground (h, w) bool without what is thinner than three patches (morphological opening).

    Thin bridges of clutter join things that are apart into one. A piece that is thin everywhere stays as it is.
    """
    given = foreground.astype(np.uint8)
    opened = cv2.morphologyEx(given, cv2.MORPH_OPEN, np.ones((_THICK, _THICK), np.uint8))
    count, pieces = cv2.connectedComponents(given, connectivity=8)
    thick = np.bincount(pieces.ravel(), weights=opened.ravel(), minlength=count) > 0
    return np.asarray((opened > 0) | (foreground & ~thick[pieces]))


def class_map(image: np.ndarray, regions: Regions, foreground: np.ndarray) -> np.ndarray:
    """(H, W) int32: 1 + cluster of the region at each foreground pixel, 0 = background.

    Args:
        image: (H, W, 3) uint8 RGB.
        regions: Of this image.
        foreground: Its `foreground_map`.

    """
    clusters = np.append(regions.clusters, -1)[regions.labels]  # (h, w)
    return np.where(foreground >= _HALF, 1 + spread_into(clusters, image.shape[:2]), 0)


def region_map(image: np.ndarray, regions: Regions, foreground: np.ndarray) -> np.ndarray:
    """(H, W) int32: number of the region at each foreground pixel, -1 = background; arguments as in `class_map`."""
    return np.where(foreground >= _HALF, spread_into(regions.labels, image.shape[:2]), -1)


def to_instances(image: np.ndarray, regions: Regions, foreground: np.ndarray, least: float, cover: float) -> Instances:
    """Connected pieces of foreground as wholes, their regions as parts.

    Args:
        image: (H, W, 3) uint8 RGB.
        regions: Of this image.
        foreground: Its `foreground_map`.
        least: Pixels that a mask needs.
        cover: Coverage that makes one mask a part of another.

    Returns:
        Instances with levels and parents, wholes first, the larger the earlier. The score is the mean foreground in the
        mask. None where nothing is foreground, or the picture is blank (see `visibility`).

    """
    size = (image.shape[0], image.shape[1])
    inside = (foreground >= _HALF).astype(np.uint8)
    parts = spread_into(regions.parts, size)
    rectangles: list[tuple[int, int, int, int]] = []
    crops: list[np.ndarray] = []
    pieces = _pieces(inside, least)
    for whole, (x0, y0, x1, y1) in pieces:
        rectangles.append((x0, y0, x1, y1))
        crops.append(fill_holes(whole))
    for whole, (x0, y0, x1, y1) in pieces:
        window = parts[y0:y1, x0:x1]
        for part in np.unique(window[whole > 0]).tolist():
            for mask, (a, b, c, d) in _pieces(((window == part) & (whole > 0)).astype(np.uint8), least):
                if np.count_nonzero(mask) < cover * np.count_nonzero(whole):
                    rectangles.append((x0 + a, y0 + b, x0 + c, y0 + d))
                    crops.append(mask)
    boxes = np.array(rectangles, np.int64).reshape(-1, 4)
    keep = np.flatnonzero(visible(image, boxes, crops, size))
    boxes, crops = boxes[keep], [crops[i] for i in keep.tolist()]
    scores = np.array(
        [
            foreground[y0:y1, x0:x1][crop > 0].mean()
            for crop, (x0, y0, x1, y1) in zip(crops, boxes.tolist(), strict=True)
        ],
        np.float32,
    )
    parents, levels = coverage_forest(boxes, crops, cover=cover)
    return Instances(
        image_size=size, boxes=boxes, masks=crops, scores=np.clip(scores, 0, 1), levels=levels, parents=parents
    )


def on_the_border(shape: tuple[int, int]) -> np.ndarray:
    """(h, w) bool, the outermost patches: more of them are background than elsewhere."""
    ring = np.zeros(shape, bool)
    ring[[0, -1]] = ring[:, [0, -1]] = True
    return ring


def unlike_border(vectors: np.ndarray, border: np.ndarray) -> np.ndarray:
    """(n,) float32, how unlike the border of their image patches are, in standard deviations around the image's mean.

    Minus the mean cosine with the 8 most similar patches of the border (the boundary prior of Wei et al., "Geodesic
    saliency using background priors", ECCV 2012, on features); zeros where all patches are alike.

    Args:
        vectors: (n, C) of length 1, all patches of one image.
        border: (n,) bool, which of them lie on its border.

    """
    alike = vectors @ vectors[border].T
    near = min(_NEAR, alike.shape[1])
    values = -np.partition(alike, alike.shape[1] - near, axis=1)[:, -near:].mean(axis=1)
    spread = float(values.std())
    if spread < _FLAT:
        return np.zeros(len(vectors), np.float32)
    return np.asarray((values - values.mean()) / spread, np.float32)


def spread_into(labels: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """Labels of patches (h, w) at each pixel of (H, W), as int32."""
    return cv2.resize(labels.astype(np.float32), (size[1], size[0]), interpolation=cv2.INTER_NEAREST).astype(np.int32)


def components(foreground: np.ndarray, least: float) -> np.ndarray:
    """(h, w) int32 numbers of the connected pieces of a bool grid from 0, largest first; -1 elsewhere.

    Args:
        foreground: (h, w) bool.
        least: Share of the grid that a piece must have.

    """
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(foreground.astype(np.uint8), connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    order = np.argsort(-areas, kind="stable")
    order = order[areas[order] >= least * foreground.size]
    number = np.full(len(stats), -1, np.int32)
    number[1 + order] = np.arange(len(order))
    return np.asarray(number[pieces])


def means_of(vectors: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """(count, C) float32 of length 1: mean vector of each label; zeros where there is none.

    Args:
        vectors: (n, C).
        labels: (n,) integers from 0, or -1 for what counts nowhere.
        count: Number of labels.

    """
    sums = (labels == np.arange(count)[:, None]).astype(np.float32) @ vectors
    return unit(sums)


def vectors_of(features: np.ndarray) -> np.ndarray:
    """(C, h, w) -> (h w, C) float32 of length 1."""
    return unit(features.reshape(len(features), -1).T)


def unit(vectors: np.ndarray) -> np.ndarray:
    """(n, C) float32 rows of length 1; rows of zeros stay."""
    vectors = np.asarray(vectors, np.float32)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.float32(1e-12))


def _refined(small: np.ndarray, foreground: np.ndarray, crf: CRFConfig, working: HassodConfig) -> np.ndarray:
    from hassod_ros.discovery.crf import refine

    map_ = upsampled(foreground, small.shape[:2])
    inside = (1 - _SURE) + (2 * _SURE - 1) * map_
    (groups,) = refine(small, [np.stack([1 - inside, inside])], crf, method=working.crf_method)
    return groups[1]


def _pieces(mask: np.ndarray, least: float) -> list[tuple[np.ndarray, tuple[int, int, int, int]]]:
    """Connected pieces of a 0/1 picture with at least so many pixels, largest first, with their rectangles."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
    areas = stats[1:, cv2.CC_STAT_AREA]
    found = []
    for i in (1 + np.argsort(-areas, kind="stable")).tolist():
        x, y, width, height, area = stats[i].tolist()
        if area >= least:
            found.append(((labels[y : y + height, x : x + width] == i).astype(np.uint8), (x, y, x + width, y + height)))
    return found
