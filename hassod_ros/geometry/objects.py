"""Oriented boxes of segmented things, standing on the support that was found below them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import cv2
import numpy as np

from hassod_ros.geometry.boxes import Footing, fit_boxes, points_at
from hassod_ros.geometry.depth import usable_depth
from hassod_ros.geometry.planes import Grid, Plane, make_grid
from hassod_ros.geometry.rays import Rays
from hassod_ros.geometry.supports import Stand, find_stands, mend_hierarchy
from hassod_ros.instances import Instances, kept_parents

_LEAST_POINTS = 20
_LEAST_PIECE = 0.1  # of the largest connected piece; smaller ones are specks of what lies behind
_LARGE = 60_000  # px of an instance's region


class Flag(IntFlag):
    """What is wrong with an object; values of hassod_msgs/Object3D."""

    FEW_POINTS = 1
    NO_SUPPORT = 2
    CUT_OFF = 4
    OCCLUDED = 8
    MIXED = 16


@dataclass(frozen=True)
class ObjectOptions:
    """How depth below a mask becomes an object.

    Attributes:
        erode: Width in px of the rim of a mask in which depth must be connected to the depth inside.
        jump: Share of its depth by which a pixel behind an edge is further than its neighbour.
        max_depth: Further pixels are ignored, m.
        least_coverage: Share of the mask that must have depth; below, the object gets FEW_POINTS.

    """

    erode: int = 2
    jump: float = 0.02
    max_depth: float = 2.0
    least_coverage: float = 0.3


@dataclass(frozen=True, eq=False)
class Objects:
    """M things in space, as a struct of arrays; those of the instances that have any depth.

    Attributes:
        index: (M,) int64, place in the Instances.
        centers: (M, 3) float64 m, of the boxes.
        rotations: (M, 3, 3) float64, columns are the boxes' axes: x the longer side, z the support's normal.
        sizes: (M, 3) float64 m > 0, lengths along these axes.
        centroids: (M, 3) float64 m, mean of the points.
        normals: (M, 3) float64, mean direction of the surface, towards the camera.
        coverage: (M,) float64 in [0, 1], share of the mask with usable depth.
        counts: (M,) int64, pixels with usable depth.
        flags: (M,) uint8 of `Flag`.
        supports: (M,) int64, index of the plane below (or, of a support, its own), -1 = none.
        is_support: (M,) bool.
        levels: (M,) uint8, mended `Level`.
        parents: (M,) int64, mended, index among the Objects, or -1.
        masks: M arrays (h, w) uint8 0 or 1: the usable pixels.
        corners: (M, 2) int64 x, y of the masks' first pixels in the image.

    """

    index: np.ndarray
    centers: np.ndarray
    rotations: np.ndarray
    sizes: np.ndarray
    centroids: np.ndarray
    normals: np.ndarray
    coverage: np.ndarray
    counts: np.ndarray
    flags: np.ndarray
    supports: np.ndarray
    is_support: np.ndarray
    levels: np.ndarray
    parents: np.ndarray
    masks: tuple[np.ndarray, ...]
    corners: np.ndarray

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, eq=False)
class Scene:
    """What one depth image and one set of masks say together.

    Attributes:
        depth: (H, W) float32 m, 0 = none.
        rays: Of its pixels.
        grid: Sampled points and planes.
        objects: The things.

    """

    depth: np.ndarray
    rays: Rays
    grid: Grid
    objects: Objects

    def points(self, pixels: np.ndarray) -> np.ndarray:
        """(n, 3) float32 m of indices into the flattened image."""
        return points_at(self.depth, self.rays, pixels)

    def pixels(self, i: int) -> np.ndarray:
        """(n,) int64 indices into the flattened image: the usable pixels of object i."""
        x, y = self.objects.corners[i].tolist()
        rows, columns = np.nonzero(self.objects.masks[i])
        return (rows + y) * self.depth.shape[1] + columns + x


def locate(instances: Instances, depth: np.ndarray, rays: Rays, options: ObjectOptions | None = None) -> Scene:
    """Place every instance that has depth in space.

    Args:
        instances: Of the image that the depth is registered to.
        depth: (H, W) float32 metres, 0 = none, of the image's size.
        rays: Of the image's pixels.
        options: Default: `ObjectOptions()`.

    Raises:
        ValueError: The sizes differ.

    """
    options = options or ObjectOptions()
    if depth.shape != instances.image_size or rays.x.shape != depth.shape:
        raise ValueError(f"masks are of {instances.image_size}, depth of {depth.shape}, rays of {rays.x.shape}")
    grid = make_grid(depth, rays, options.max_depth)
    good = usable_depth(depth, options.jump, options.max_depth)
    usable = [
        _usable(mask, good[y0:y1, x0:x1], options.erode)
        for mask, (x0, y0, x1, y1) in zip(instances.masks, instances.regions.tolist(), strict=True)
    ]
    all_counts = np.array([cv2.countNonZero(each) for each in usable], np.int64)
    seen = np.flatnonzero(all_counts)
    stands = find_stands(instances, grid, options.jump)
    levels, parents = mend_hierarchy(instances, stands)
    areas = instances.areas
    footings = [_footing(i, stands, parents, grid.planes) for i in seen.tolist()]
    masks, corners, counts = tuple(usable[i] for i in seen.tolist()), instances.regions[seen, :2], all_counts[seen]
    boxes = fit_boxes(depth, rays, masks, corners, footings)
    coverage = counts / areas[seen]
    floating = np.array([footing.plane is None for footing in footings], bool)
    flags = np.where(floating, np.uint8(Flag.NO_SUPPORT), np.uint8(0))
    flags[(coverage < options.least_coverage) | (counts < _LEAST_POINTS)] |= np.uint8(Flag.FEW_POINTS)
    flags[stands.cut_off[seen]] |= np.uint8(Flag.CUT_OFF)
    flags[stands.occluded[seen]] |= np.uint8(Flag.OCCLUDED)
    flags[stands.is_mixed[seen]] |= np.uint8(Flag.MIXED)
    return Scene(
        depth,
        rays,
        grid,
        Objects(
            index=seen,
            **boxes._asdict(),
            coverage=coverage,
            counts=counts,
            flags=flags,
            supports=stands.planes[seen],
            is_support=stands.is_support[seen],
            levels=levels[seen],
            parents=kept_parents(parents, seen),
            masks=masks,
            corners=corners,
        ),
    )


def _usable(mask: np.ndarray, good: np.ndarray, erode: int) -> np.ndarray:
    """(h, w) uint8 0 or 1: where the depth below a mask is the thing's own; `good` (h, w) uint8 1 = depth to use."""
    inside = cv2.bitwise_and(mask, good)
    if inside.size > _LARGE:  # on a table or a floor specks do not matter
        return inside
    # A pixel behind an edge is none, so that pieces do not touch at corners.
    count, pieces = cv2.connectedComponents(inside, connectivity=8, ltype=cv2.CV_16U)
    return inside if count <= 2 else _rooted(mask, inside, pieces, count, erode)


def _rooted(mask: np.ndarray, inside: np.ndarray, pieces: np.ndarray, count: int, erode: int) -> np.ndarray:
    """The pieces that reach some pixels that are not at the mask's rim, without specks."""
    core = inside
    if erode:
        kernel = np.ones((2 * erode + 1,) * 2, np.uint8)
        core = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) & inside
        if not core.any():
            core = inside  # thinner than the rim
    shares = np.bincount((2 * pieces + core).reshape(-1), minlength=2 * count).reshape(count, 2)  # outside, inside it
    sizes = shares.sum(1)
    kept = (sizes >= _LEAST_PIECE * sizes[1:].max()) & (shares[:, 1] > 0)
    kept[0] = False
    return kept.view(np.uint8).take(pieces)


def _footing(i: int, stands: Stand, parents: np.ndarray, planes: tuple[Plane, ...]) -> Footing:
    """A part is upright as its whole is, and ends where it ends; a support may itself stand on another one."""
    above = i
    while parents[above] >= 0:
        above = int(parents[above])
    base = int(stands.bases[above])
    if base >= 0:
        return Footing(planes[base], bool(stands.touches[i]) and stands.bases[i] == base, False)
    plane = int(stands.planes[above])
    return Footing(planes[plane] if plane >= 0 else None, False, bool(stands.is_support[i]))
