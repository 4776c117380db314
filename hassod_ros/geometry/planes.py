"""Planes in a depth image: tables, shelves, floors and walls, found from all pixels.

A plane's inverse depth is linear in the viewing rays. Small blocks of the image are fitted so, which proposes planes;
the proposal that most pixels agree with is refined on them and taken out, until none is large enough. Deterministic.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.geometry.depth import noise, quantiles
from hassod_ros.geometry.rays import Rays

CELL = 4  # px: the grid that planes are searched on
_THIN = 2  # every so many cells propose planes
_BLOCK = 4  # of these do it together
_STEP = 3  # of these between two blocks
_MIDDLE = np.s_[_BLOCK // 2 : 1 - _BLOCK // 2 : _STEP, _BLOCK // 2 : 1 - _BLOCK // 2 : _STEP]
_LEAST = 147  # cells
_PROPOSALS = 48
_SAMPLE = 1500  # cells that proposals are judged by
_FIT = 2000  # cells that a plane is laid through
_LEAST_SHARE = 0.02  # of the cells with depth
_MOST = 6  # planes
_TWINS = 200  # cells of a plane that another one is compared with
_SAME_ANGLE, _SAME_DISTANCE = 0.985, 3.0  # cosine, and noises between two planes that are one bent by the camera


@dataclass(frozen=True, eq=False)
class Plane:
    """normal * point = distance.

    Attributes:
        normal: (3,) float64 of length 1, to the camera's side.
        distance: In m; negative, because the camera lies above.
        cells: Grid cells that lie on it.

    """

    normal: np.ndarray
    distance: float
    cells: int

    def heights(self, points: np.ndarray) -> np.ndarray:
        """How far points (..., 3) are above the plane, on the camera's side, in m."""
        result: np.ndarray = points @ self.normal.astype(points.dtype) - points.dtype.type(self.distance)
        return result


@dataclass(frozen=True, eq=False)
class Grid:
    """Every CELL-th pixel of the depth image, as points.

    Attributes:
        points: (h, w, 3) float32 m; zeros where there is no depth.
        valid: (h, w) bool.
        planes: Largest first.
        labels: (h, w) int8, index of the plane that a cell lies on, -1 = none.

    """

    points: np.ndarray
    valid: np.ndarray
    planes: tuple[Plane, ...]
    labels: np.ndarray


def make_grid(depth: np.ndarray, rays: Rays, max_depth: float = np.inf) -> Grid:
    """Sample a depth image and find its planes.

    Args:
        depth: (H, W) float32 metres, 0 = none.
        rays: Of its pixels.
        max_depth: Further pixels are left out, m.

    """
    here = np.s_[CELL // 2 :: CELL, CELL // 2 :: CELL]
    z = depth[here]
    valid = (z > 0) & (z <= max_depth)
    points = np.empty((*z.shape, 3), np.float32)
    points[..., 2] = z * valid
    x, y = rays.x[here], rays.y[here]
    np.multiply(points[..., 2], x, out=points[..., 0])
    np.multiply(points[..., 2], y, out=points[..., 1])
    planes, labels = _find(points, valid, x, y)
    return Grid(points, valid, planes, labels)


def _find(points: np.ndarray, valid: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[tuple[Plane, ...], np.ndarray]:
    labels = np.full(valid.shape, -1, np.int8)
    where = np.flatnonzero(valid)
    total = len(where)
    least = max(_LEAST_SHARE * total, _LEAST)
    if total < least:
        return (), labels
    flat = points.reshape(-1, 3).take(where, axis=0)  # several times faster than points[valid]
    proposals = _propose(points[..., 2], valid, x, y)
    step = max(1, total // _SAMPLE)
    limits = noise(flat[:, 2])
    weights = 1 / np.square(limits)
    sample, sample_limits, sample_weights = flat[::step].copy(), limits[::step].copy(), weights[::step].copy()
    agree = np.abs(proposals[:, :3] @ sample.T - proposals[:, 3:]) < sample_limits  # (S, n)
    votes_of = agree.astype(np.float32)  # a matrix product counts faster than anything on bools
    open_ = np.ones(len(proposals), bool)
    free, free_sample = np.ones(total, bool), np.ones(len(sample), bool)
    found: list[Plane] = []
    owner = np.full(total, -1, np.int8)
    while len(found) < _MOST and open_.any():
        votes = np.where(open_, votes_of @ free_sample.astype(np.float32), -1)
        best = int(np.argmax(votes))
        if votes[best] * step < least:
            break
        normal, distance = proposals[best, :3], proposals[best, 3]
        on = agree[best] & free_sample
        for _ in range(2):
            normal, distance = _fit(sample, sample_weights, on)
            on = _near(sample, sample_limits, normal, distance) & free_sample
        # A proposal that led to nothing is not tried again; what it holds stays free.
        open_[best] = False
        if np.count_nonzero(on) * step < least:
            continue
        on = _near(flat, limits, normal, distance) & free
        normal, distance = _fit(flat, weights, on)
        on = _near(flat, limits, normal, distance) & free
        count = int(np.count_nonzero(on))
        if count < least:
            continue
        free &= ~on
        free_sample = free[::step]
        twin = _twin(found, normal, flat, limits, on)
        if twin is None:
            owner[on] = len(found)
            found.append(Plane(normal, float(distance), count))
        else:
            owner[on] = twin
            found[twin] = Plane(found[twin].normal, found[twin].distance, found[twin].cells + count)
    order = np.argsort([-plane.cells for plane in found], kind="stable")
    rank = np.append(np.argsort(order), -1).astype(np.int8)
    labels.reshape(-1)[where] = rank[owner]
    return tuple(found[i] for i in order), labels


def _propose(z: np.ndarray, valid: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(S, 4) float32 normal and distance of planes through small flat blocks, spread over the image."""
    z, one, x, y = (
        z[::_THIN, ::_THIN],
        valid[::_THIN, ::_THIN].astype(np.float64),
        x[::_THIN, ::_THIN],
        y[::_THIN, ::_THIN],
    )
    w = one / np.maximum(z, np.float32(1e-6))
    x, y = x * one, y * one
    sums = np.stack(
        [
            cv2.boxFilter(term, cv2.CV_64F, (_BLOCK, _BLOCK), normalize=False)[_MIDDLE].reshape(-1)
            for term in (one, x, y, x * x, x * y, y * y, w, w * x, w * y, w * w)
        ]
    )
    full = np.flatnonzero(sums[0] > 0.7 * _BLOCK**2)
    if not len(full):
        return np.zeros((0, 4), np.float32)
    n, sx, sy, sxx, sxy, syy, sw, swx, swy, sww = sums.take(full, axis=1)
    matrix = np.stack([sxx, sxy, sx, sxy, syy, sy, sx, sy, n], axis=1).reshape(-1, 3, 3)
    right = np.stack([swx, swy, sw], axis=1)
    matrix = matrix + 1e-9 * n[:, None, None] * np.eye(3)
    plane = np.linalg.solve(matrix, right[..., None])[..., 0]  # inverse depth = plane * (x, y, 1)
    spread = np.sqrt(np.maximum(sww - (plane * right).sum(1), 0) / n)
    depth = n / sw
    length = np.linalg.norm(plane, axis=1)
    # A plane through the camera is seen edge on and fits anything.
    flat = np.flatnonzero((spread * depth**2 < noise(depth)) & (length > 1e-3) & np.isfinite(plane).all(1))
    flat = _spread(flat, _PROPOSALS)
    normals = -plane[flat] / length[flat, None]
    return np.column_stack([normals, -1 / length[flat]]).astype(np.float32)


def _spread(places: np.ndarray, most: int) -> np.ndarray:
    """All of them, or `most` at even distances."""
    return places if len(places) <= most else places[np.linspace(0, len(places) - 1, most).round().astype(int)]


def _near(points: np.ndarray, limits: np.ndarray, normal: np.ndarray, distance: float) -> np.ndarray:
    result: np.ndarray = np.abs(points @ normal.astype(np.float32) - np.float32(distance)) < limits
    return result


def _fit(points: np.ndarray, weights: np.ndarray, on: np.ndarray) -> tuple[np.ndarray, float]:
    """Plane of least squares through the points `on` (N,), near ones first where the noise is small.

    Returns:
        Normal (3,) float64 to the camera's side, and distance.

    """
    index = np.flatnonzero(on)
    index = index[:: 1 + len(index) // _FIT]
    weights = weights.take(index)
    weights = weights / weights.sum()
    points = points.take(index, axis=0)
    middle = weights @ points
    away = points - middle
    moments = (away * weights[:, None]).T @ away  # centred, so that float32 is enough
    normal = cv2.eigen(moments.astype(np.float64))[2][2]  # of the smallest; several times faster than NumPy's
    distance = float(normal @ middle)
    return (normal, distance) if distance < 0 else (-normal, -distance)


def _twin(found: list[Plane], normal: np.ndarray, points: np.ndarray, limits: np.ndarray, on: np.ndarray) -> int | None:
    """A plane found before that the points `on` (N,) belong to as well, had the camera not bent it."""
    for i, plane in enumerate(found):
        if plane.normal @ normal > _SAME_ANGLE:
            some = _spread(np.flatnonzero(on), _TWINS)
            gaps = np.abs(plane.heights(points.take(some, axis=0))) / limits.take(some)
            if quantiles(gaps, 0.5)[0] < _SAME_DISTANCE:
                return i
    return None
