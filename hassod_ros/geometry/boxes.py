"""Oriented boxes of all things of an image at once: upright on a plane, or along the points' own directions.

Every thing is looked at through the same number of points, so that one array holds them all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from hassod_ros.geometry.depth import quantiles
from hassod_ros.geometry.planes import Plane
from hassod_ros.geometry.rays import Rays

_SAMPLE = 1024  # points of each thing; few pixels are taken several times
_SPARSE = 4  # every so many of them get a normal
_REACH = 3  # px to the neighbours of a normal; the noise of a nearer pair would turn it
_NEAR = 0.05  # share of the depth that these may differ by
_TRIM = 0.002  # share of the points at either end of an axis that may be wrong
_TOP = 0.005  # share of the points above the top
_RIM = 0.006  # m above the support below which pixels may be the support's, at the rim of a mask
_THIN = 0.03  # m; of lower things every pixel counts
_LEAST_SIDE = 1e-3  # m; a box with a side of 0 breaks viewers
_FOURFOLD = 0.55  # how well side faces must agree before they turn the box
_LOOSE = 1.1  # how much larger than the smallest rectangle one along the side faces may be
_STEEP = 0.35  # cosine to the plane's normal below which a normal is one of a side face
_LEAST_FACES = 30  # normals of side faces
_ANGLES = np.arange(24) * (np.pi / 24)
_SHARES = np.arange(_SAMPLE) / _SAMPLE
_LARGE = 60_000  # px of a mask's region
_DIRECTIONS = np.stack([np.cos(_ANGLES), np.sin(_ANGLES)], axis=1).astype(np.float32)  # (24, 2)


@dataclass(frozen=True, eq=False)
class Footing:
    """The plane that a box is upright on (None: there is none), and whether it reaches down to it or is the plane."""

    plane: Plane | None
    stands: bool
    is_plane: bool


class Boxes(NamedTuple):
    """N boxes; shapes and units as in `Objects`.

    Attributes:
        centers: (N, 3) float64 m.
        rotations: (N, 3, 3) float64.
        sizes: (N, 3) float64 m.
        centroids: (N, 3) float64 m.
        normals: (N, 3) float64.

    """

    centers: np.ndarray
    rotations: np.ndarray
    sizes: np.ndarray
    centroids: np.ndarray
    normals: np.ndarray


def points_at(depth: np.ndarray, rays: Rays, pixels: np.ndarray) -> np.ndarray:
    """(..., 3) float32 m of indices (...) into the flattened image."""
    z = depth.reshape(-1).take(pixels)
    result = np.empty((*pixels.shape, 3), np.float32)
    np.multiply(z, rays.x.reshape(-1).take(pixels), out=result[..., 0])
    np.multiply(z, rays.y.reshape(-1).take(pixels), out=result[..., 1])
    result[..., 2] = z
    return result


def _rows_at(depth: np.ndarray, rays: Rays, pixels: np.ndarray) -> np.ndarray:
    """(..., 3, K) float32 m of indices (..., K), which is worked on faster than (..., K, 3)."""
    z = depth.reshape(-1).take(pixels)
    result = np.empty((*pixels.shape[:-1], 3, pixels.shape[-1]), np.float32)
    np.multiply(z, rays.x.reshape(-1).take(pixels), out=result[..., 0, :])
    np.multiply(z, rays.y.reshape(-1).take(pixels), out=result[..., 1, :])
    result[..., 2, :] = z
    return result


def fit_boxes(
    depth: np.ndarray, rays: Rays, masks: Sequence[np.ndarray], corners: np.ndarray, footings: Sequence[Footing]
) -> Boxes:
    """The box of each thing.

    Args:
        depth: (H, W) float32 metres.
        rays: Of its pixels.
        masks: Of each of N things: (h, w) uint8 0 or 1, at least one pixel.
        corners: (N, 2) int64 x, y of the masks' first pixels.
        footings: What each stands on.

    """
    n = len(masks)
    if not n:
        three = np.zeros((0, 3))
        return Boxes(three, np.zeros((0, 3, 3)), three, three, three)
    sample, counts = _sample(masks, corners, depth.shape[1])
    points = _rows_at(depth, rays, sample)
    centroids = (points @ np.full(_SAMPLE, 1 / _SAMPLE, np.float32)).astype(np.float64)  # faster than a mean
    directions, known = _normals(depth, rays, sample[:, ::_SPARSE])
    normals = directions.sum(2, dtype=np.float64)
    normals = np.where(np.linalg.norm(normals, axis=1, keepdims=True) > 1e-6, normals, -centroids)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True)
    rotations, lows, highs = np.empty((n, 3, 3)), np.empty((n, 3)), np.empty((n, 3))
    upright = np.array([footing.plane is not None for footing in footings])
    for i in np.flatnonzero(~upright).tolist():
        rotations[i], lows[i], highs[i] = _free(points[i].T)
    k = np.flatnonzero(upright)
    if len(k):
        distinct = np.minimum(counts[k], _SAMPLE) / _SAMPLE
        across = centroids[k, 2] * abs(float(rays.x[0, 1] - rays.x[0, 0]))  # m across a pixel
        standing = [footings[i] for i in k.tolist()]
        rotations[k], lows[k], highs[k] = _upright(points[k], directions[k], known[k], standing, across, distinct)
    centers = (rotations @ ((lows + highs) / 2)[..., None])[..., 0]
    return Boxes(centers, rotations, np.maximum(highs - lows, _LEAST_SIDE), centroids, normals)


def _sample(masks: Sequence[np.ndarray], corners: np.ndarray, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) indices into the flattened image, spread evenly over the pixels of each mask; and the pixels' numbers."""
    # Of large ones every second row: that is the same, and half the work.
    thin = [1 + (mask.size > _LARGE and len(mask) > 1 and bool(mask[::2].any())) for mask in masks]
    inside = [np.flatnonzero(mask[::step].view(bool)) for mask, step in zip(masks, thin, strict=True)]
    counts = np.array([len(each) for each in inside]) * thin
    chosen = np.stack([each.take(_evenly(len(each))) for each in inside])
    widths = np.array([[mask.shape[1]] for mask in masks])
    rows = ((chosen + 0.5) / widths).astype(np.int64)  # integers are divided several times as slowly
    columns = chosen - rows * widths + corners[:, :1]
    return (rows * np.array(thin)[:, None] + corners[:, 1:]) * width + columns, counts


def _evenly(count: int) -> np.ndarray:
    """(S,) places among so many, at even distances; few are taken several times."""
    return (_SHARES * count).astype(np.intp)


def _upright(
    points: np.ndarray,
    normals: np.ndarray,
    known: np.ndarray,
    footings: Sequence[Footing],
    pixel: np.ndarray,
    distinct: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotations, and lowest and highest coordinates in them, of boxes that stand on planes."""
    planes = [footing.plane for footing in footings if footing.plane is not None]
    up = np.array([plane.normal for plane in planes])
    ground = np.array([plane.distance for plane in planes])
    stands = np.array([footing.stands for footing in footings])
    is_plane = np.array([footing.is_plane for footing in footings])
    axes = axes_around(up)  # (N, 3, 3) rows: two level ones and up
    local = axes.astype(np.float32) @ points  # (N, 3, S)
    heights = local[:, 2]
    low_most, bottom, top, high_most = quantiles(heights, 0.05, _TOP, 1 - _TOP, 0.95).astype(np.float64)
    bottom, top = np.where(is_plane, low_most, bottom), np.where(is_plane, high_most, top)
    bottom = np.where(stands, ground, bottom)
    # Pixels of the support at the mask's rim would widen the footprint.
    keep = (heights > (ground + _RIM)[:, None]) | ~(stands & (top - ground > _THIN))[:, None]
    flat = _only(local[:, :2], keep)
    outer = _outer(flat)
    angles = np.radians([cv2.minAreaRect(each)[2] for each in outer.transpose(0, 2, 1).copy()])
    turned = (axes @ normals).astype(np.float64)
    angles = np.where(top - bottom > _THIN, _along_faces(outer, angles, turned, known, distinct), angles)
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    x_axis = cosine * axes[:, 0] + sine * axes[:, 1]
    y_axis = cosine * axes[:, 1] - sine * axes[:, 0]
    (x0, x1), (y0, y1) = (quantiles(side, _TRIM, 1 - _TRIM).astype(np.float64) for side in _turn(flat, angles))
    half = pixel / 2  # a pixel's depth is its centre's, the thing ends at its border
    x0, x1, y0, y1 = x0 - half, x1 + half, y0 - half, y1 + half
    swap = (y1 - y0 > x1 - x0)[:, None]  # x is the longer side
    rotation = np.stack([np.where(swap, y_axis, x_axis), np.where(swap, -x_axis, y_axis), up], axis=2)
    low = np.where(swap, np.stack([y0, -x1, bottom], axis=1), np.stack([x0, y0, bottom], axis=1))
    high = np.where(swap, np.stack([y1, -x0, top], axis=1), np.stack([x1, y1, top], axis=1))
    return rotation, low, high


def axes_around(up: np.ndarray) -> np.ndarray:
    """(N, 3, 3) rows: two directions at right angles to `up` (N, 3) of length 1, and it; right-handed."""
    # Duff et al., Building an Orthonormal Basis, Revisited (JCGT 6-1, 2017).
    x, y, z = up.T
    sign = np.copysign(1.0, z)
    a = -1 / (sign + z)
    b = x * y * a
    first = np.stack([1 + sign * x * x * a, sign * b, -sign * x], axis=1)
    return np.stack([first, np.stack([b, sign + y * y * a, -y], axis=1), up], axis=1)


def _only(flat: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """(N, 2, S) where the kept points (N, S) take the others' places; unchanged where there are hardly any."""
    count = np.count_nonzero(keep, axis=1)
    result = flat.copy()
    for i in np.flatnonzero((count > 3) & (count < keep.shape[1])).tolist():
        chosen = np.flatnonzero(keep[i])
        result[i] = flat[i].take(chosen[_evenly(len(chosen))], axis=1)
    return result


def _turn(flat: np.ndarray, angles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, S) coordinates along directions at angles (N,) and across, of points (N, 2, S)."""
    cosine, sine = np.cos(angles).astype(np.float32)[:, None], np.sin(angles).astype(np.float32)[:, None]
    return cosine * flat[:, 0] + sine * flat[:, 1], cosine * flat[:, 1] - sine * flat[:, 0]


def _outer(flat: np.ndarray) -> np.ndarray:
    """(N, 2, 48) the outermost of points (N, 2, S), which are all that a rectangle around them rests on."""
    along = _DIRECTIONS @ flat  # (N, 24, S)
    return np.take_along_axis(flat, np.concatenate([along.argmin(2), along.argmax(2)], axis=1)[:, None], axis=2)


def _along_faces(
    outer: np.ndarray, smallest: np.ndarray, normals: np.ndarray, known: np.ndarray, distinct: np.ndarray
) -> np.ndarray:
    """(N,) angles of the side faces where they agree, else of the smallest rectangle; normals are (N, 3, K).

    `outer` (N, 2, M) are the outermost points.
    """
    side = known & (np.abs(normals[:, 2]) < _STEEP)
    count = np.count_nonzero(side, axis=1)
    unit = np.where(side, normals[:, 0] + 1j * normals[:, 1], 1)
    unit = np.square(np.square(unit / np.abs(unit)))  # faces at right angles agree
    mean = (unit * side).sum(1) / np.maximum(count, 1)
    faces: np.ndarray = np.angle(mean) / 4
    enough = count >= np.maximum(_LEAST_FACES / distinct, 0.1 * np.count_nonzero(known, axis=1))
    # Faces that only seem to agree make a much larger box.
    agree = enough & (np.abs(mean) > _FOURFOLD) & (_areas(outer, faces) < _LOOSE * _areas(outer, smallest))
    return np.where(agree, faces, smallest)


def _areas(flat: np.ndarray, angles: np.ndarray) -> np.ndarray:
    along, across = _turn(flat, angles)
    result: np.ndarray = np.ptp(along, axis=1) * np.ptp(across, axis=1)
    return result


def _free(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Box along the points' own main directions, the shortest towards the camera."""
    _, axes = np.linalg.eigh(np.cov(points.T))
    up = axes[:, 0] * (-1 if axes[:, 0] @ points.mean(0) > 0 else 1)
    rotation = np.stack([axes[:, 2], np.cross(up, axes[:, 2]), up], axis=1)
    low, high = quantiles((points @ rotation).T, _TRIM, 1 - _TRIM)
    return rotation, low, high


def _normals(depth: np.ndarray, rays: Rays, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 3, K) float32 surface normals at pixels (N, K), towards the camera, zeros where there is none; and where."""
    height, width = depth.shape
    rows, columns = np.divmod(pixels, width)
    known = (rows >= _REACH) & (rows < height - _REACH) & (columns >= _REACH) & (columns < width - _REACH)
    pixels = np.where(known, pixels, min(_REACH, height // 2) * width + min(_REACH, width // 2))
    z = depth.reshape(-1).take(pixels)
    steps = np.array([-_REACH, _REACH, -_REACH * width, _REACH * width])[:, None, None]
    around = _rows_at(depth, rays, np.clip(pixels + steps, 0, depth.size - 1))  # (4, N, 3, K)
    known &= (np.abs(around[:, :, 2] - z) < _NEAR * z).all(0)
    a, b = around[3] - around[2], around[1] - around[0]
    normals = np.empty_like(a)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):  # np.cross is slower
        normals[:, i] = a[:, j] * b[:, k] - a[:, k] * b[:, j]
    squares = np.square(normals)
    lengths = np.sqrt(squares[:, 0] + squares[:, 1] + squares[:, 2])
    known &= lengths > 0
    normals *= (known / np.where(known, lengths, np.float32(1)))[:, None]
    return normals, known
