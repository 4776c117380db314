"""Oriented boxes of segmented things, standing on the support that was found below them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntFlag

import cv2
import numpy as np

from hassod_ros.geometry.depth import behind_edges, quantiles
from hassod_ros.geometry.planes import Grid, Plane, make_grid
from hassod_ros.geometry.rays import Rays
from hassod_ros.geometry.supports import Stand, find_stands, mend_hierarchy
from hassod_ros.instances import Instances

_LEAST_POINTS = 20
_LEAST_PIECE = 0.1  # of the largest connected piece; smaller ones are specks of what lies behind
_TRIM = 0.002  # share of the points at either end of an axis that may be wrong
_TOP = 0.005  # share of the points above the top
_RIM = 0.006  # m above the support below which pixels may be the support's, at the rim of a mask
_THIN = 0.03  # m; of lower things every pixel counts
_LEAST_SIDE = 1e-3  # m; a box with a side of 0 breaks viewers
_FOURFOLD = 0.55  # how well side faces must agree before they turn the box
_LOOSE = 1.1  # how much larger than the smallest rectangle one along the side faces may be
_LARGE = 60_000  # px of an instance's region
_SAMPLE = 4_000  # points of one object that are looked at


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
        pixels: M arrays of int64 indices into the flattened image: the usable pixels.

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
    pixels: tuple[np.ndarray, ...]

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
        z = self.depth.reshape(-1)[pixels]
        return np.stack([z * self.rays.x.reshape(-1)[pixels], z * self.rays.y.reshape(-1)[pixels], z], axis=1)


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
    behind = behind_edges(depth, options.jump)
    usable = [_usable(instances, i, depth, behind, options) for i in range(len(instances))]
    seen = [i for i, pixels in enumerate(usable) if len(pixels)]
    stands = find_stands(instances, grid, options.jump)
    levels, parents = mend_hierarchy(instances, stands)
    areas = instances.areas
    scene = Scene(depth, rays, grid, _none())
    boxes = [_box(scene, usable[i], _frame(i, stands, parents, grid.planes)) for i in seen]
    place = np.full(len(instances) + 1, -1)
    place[seen] = np.arange(len(seen))
    counts = np.array([len(usable[i]) for i in seen], np.int64)
    coverage = counts / areas[seen]
    flags = np.array([box.flags for box in boxes], np.uint8)
    flags[(coverage < options.least_coverage) | (counts < _LEAST_POINTS)] |= np.uint8(Flag.FEW_POINTS)
    flags[stands.cut_off[seen]] |= np.uint8(Flag.CUT_OFF)
    flags[stands.occluded[seen]] |= np.uint8(Flag.OCCLUDED)
    flags[stands.is_mixed[seen]] |= np.uint8(Flag.MIXED)
    return Scene(
        depth,
        rays,
        grid,
        Objects(
            index=np.array(seen, np.int64),
            centers=np.array([box.center for box in boxes]).reshape(-1, 3),
            rotations=np.array([box.rotation for box in boxes]).reshape(-1, 3, 3),
            sizes=np.array([box.size for box in boxes]).reshape(-1, 3),
            centroids=np.array([box.centroid for box in boxes]).reshape(-1, 3),
            normals=np.array([box.normal for box in boxes]).reshape(-1, 3),
            coverage=coverage,
            counts=counts,
            flags=flags,
            supports=stands.planes[seen],
            is_support=stands.is_support[seen],
            levels=levels[seen],
            parents=_nearest_seen(parents, place)[seen],
            pixels=tuple(usable[i] for i in seen),
        ),
    )


def _none() -> Objects:
    none, three = np.zeros(0, np.int64), np.zeros((0, 3))
    nine, byte, no = np.zeros((0, 3, 3)), np.zeros(0, np.uint8), np.zeros(0, bool)
    return Objects(none, three, nine, three, three, three, np.zeros(0), none, byte, none, no, byte, none, ())


def _nearest_seen(parents: np.ndarray, place: np.ndarray) -> np.ndarray:
    """(N,) place of each instance's nearest ancestor that has depth, or -1."""
    for _ in range(len(parents)):
        lost = (parents >= 0) & (place[parents] < 0)
        if not lost.any():
            break
        parents = np.where(lost, parents[parents], parents)
    result: np.ndarray = place[parents]
    return result


def _usable(instances: Instances, i: int, depth: np.ndarray, behind: np.ndarray, options: ObjectOptions) -> np.ndarray:
    """Flat indices of the pixels of a mask whose depth is the thing's own."""
    x0, y0, x1, y1 = instances.regions[i].tolist()
    z, mask = depth[y0:y1, x0:x1], instances.masks[i]
    inside = (mask.view(bool) & (z > 0) & (z <= options.max_depth) & ~behind[y0:y1, x0:x1]).view(np.uint8)
    if inside.size > _LARGE:  # a table or a floor, on which specks do not matter
        rows, columns = np.nonzero(inside)
        return (rows + y0) * depth.shape[1] + columns + x0
    core = inside
    if options.erode:
        kernel = np.ones((2 * options.erode + 1,) * 2, np.uint8)
        core = cv2.erode(mask, kernel, borderType=cv2.BORDER_CONSTANT, borderValue=0) & inside
        if not core.any():
            core = inside  # thinner than the rim
    _, pieces, stats, _ = cv2.connectedComponentsWithStats(inside, connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= _LEAST_PIECE * stats[1:, cv2.CC_STAT_AREA].max(initial=0)
    rooted = np.bincount(pieces[core.view(bool)], minlength=len(stats)) > 0
    large[0] = False
    rows, columns = np.nonzero((large & rooted)[pieces])
    return (rows + y0) * depth.shape[1] + columns + x0


@dataclass(frozen=True, eq=False)
class _Frame:
    """The plane that a box is upright on, and whether it reaches down to it."""

    plane: Plane | None
    stands: bool
    is_plane: bool


def _frame(i: int, stands: Stand, parents: np.ndarray, planes: tuple[Plane, ...]) -> _Frame:
    """A part is upright as its whole is, and ends where it ends; a support may itself stand on another one."""
    above = i
    while parents[above] >= 0:
        above = int(parents[above])
    base = int(stands.bases[above])
    if base >= 0:
        return _Frame(planes[base], bool(stands.touches[i]) and stands.bases[i] == base, False)
    plane = int(stands.planes[above])
    return _Frame(planes[plane] if plane >= 0 else None, False, bool(stands.is_support[i]))


@dataclass(frozen=True, eq=False)
class _Box:
    center: np.ndarray
    rotation: np.ndarray
    size: np.ndarray
    centroid: np.ndarray
    normal: np.ndarray
    flags: int


def _box(scene: Scene, pixels: np.ndarray, frame: _Frame) -> _Box:
    pixels = pixels[:: 1 + len(pixels) // _SAMPLE]
    points = scene.points(pixels)
    centroid = points.mean(0, dtype=np.float64)
    normals = _normals(scene, pixels)
    normal = normals.mean(0) if len(normals) else -centroid
    length = np.linalg.norm(normal)
    normal = normal / length if length > 1e-6 else -centroid / np.linalg.norm(centroid)
    pixel = float(centroid[2]) * abs(float(scene.rays.x[0, 1] - scene.rays.x[0, 0]))  # m across a pixel
    if frame.plane is None:
        rotation, low, high = _free_box(points)
        flags = Flag.NO_SUPPORT
    else:
        rotation, low, high = _upright_box(points, normals, frame, pixel)
        flags = Flag(0)
    size = np.maximum(high - low, _LEAST_SIDE)
    return _Box(rotation @ ((low + high) / 2), rotation, size, centroid, normal, int(flags))


def _upright_box(
    points: np.ndarray, normals: np.ndarray, frame: _Frame, pixel: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rotation, and lowest and highest coordinate in it, of the box that stands on the plane."""
    assert frame.plane is not None
    up, ground = frame.plane.normal, frame.plane.distance
    level = _level_axes(up)
    heights = points @ up.astype(np.float32)
    if frame.is_plane:
        bottom, top = quantiles(heights, 0.05, 0.95)
    else:
        bottom, top = quantiles(heights, _TOP, 1 - _TOP)
        bottom = ground if frame.stands else bottom
    flat = points @ level.T.astype(np.float32)  # (n, 2)
    if frame.stands and top - ground > _THIN:
        # Pixels of the support at the mask's rim would widen the footprint.
        above = flat.take(np.flatnonzero(heights > ground + _RIM), axis=0)
        flat = above if len(above) > 3 else flat
    angle = _heading(flat, normals @ level.T, normals @ up) if top - bottom > _THIN else _smallest(flat)
    axis = np.cos(angle) * level[0] + np.sin(angle) * level[1]
    rotation = np.stack([axis, np.cross(up, axis), up], axis=1)
    (low_x, high_x), (low_y, high_y) = (quantiles(side, _TRIM, 1 - _TRIM) for side in _turn(angle) @ flat.T)
    low, high = np.array([low_x, low_y, bottom]), np.array([high_x, high_y, top])
    low[:2] -= pixel / 2  # a pixel's depth is its centre's, the thing ends at its border
    high[:2] += pixel / 2
    if high[1] - low[1] > high[0] - low[0]:  # x is the longer side
        rotation = np.stack([rotation[:, 1], -rotation[:, 0], up], axis=1)
        low, high = np.array([low[1], -high[0], bottom]), np.array([high[1], -low[0], top])
    return rotation, low, high


def _level_axes(up: np.ndarray) -> np.ndarray:
    """(2, 3) two directions at right angles to `up`."""
    first = np.cross(up, np.eye(3)[np.argmin(np.abs(up))])
    first /= np.linalg.norm(first)
    return np.stack([first, np.cross(up, first)])


def _heading(flat: np.ndarray, sideways: np.ndarray, upwards: np.ndarray) -> float:
    """Angle of a box's side in the plane: along its side faces where they agree, else of the smallest rectangle."""
    smallest = _smallest(flat)
    side = np.abs(upwards) < 0.35
    if np.count_nonzero(side) >= max(30, 0.1 * len(side)):
        turned = np.exp(4j * np.arctan2(sideways[side, 1], sideways[side, 0]))
        mean = turned.mean()
        faces = float(np.angle(mean) / 4)
        # Faces that only seem to agree make a much larger box.
        if abs(mean) > _FOURFOLD and _area(flat, faces) < _LOOSE * _area(flat, smallest):
            return faces
    return smallest


def _area(flat: np.ndarray, angle: float) -> float:
    return float(np.prod(np.ptp(flat @ _turn(angle).T, axis=0)))


def _turn(angle: float) -> np.ndarray:
    """(2, 2) that takes plane coordinates to those along a direction and across."""
    return np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]], np.float32)


def _smallest(flat: np.ndarray) -> float:
    hull = cv2.convexHull(flat[_outermost(flat)].astype(np.float32))
    return float(np.radians(cv2.minAreaRect(hull)[2]))


def _outermost(flat: np.ndarray) -> np.ndarray:
    """Indices of the points (n, 2) that are furthest in one of 48 directions: all that a rectangle rests on."""
    angles = np.arange(24) * (np.pi / 24)
    along = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(flat.dtype) @ flat.T  # (24, n)
    return np.unique(np.concatenate([along.argmin(1), along.argmax(1)]))


def _free_box(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Box along the points' own main directions, the shortest towards the camera."""
    _, axes = np.linalg.eigh(np.cov(points.T) if len(points) > 1 else np.eye(3))
    up = axes[:, 0] * (-1 if axes[:, 0] @ points.mean(0) > 0 else 1)
    rotation = np.stack([axes[:, 2], np.cross(up, axes[:, 2]), up], axis=1)
    low, high = np.array([quantiles(side, _TRIM, 1 - _TRIM) for side in (points @ rotation).T]).T
    return rotation, low, high


def _normals(scene: Scene, pixels: np.ndarray, most: int = 800) -> np.ndarray:
    """(n, 3) float64 surface normals, towards the camera, at some of the pixels."""
    height, width = scene.depth.shape
    pixels = pixels[:: 1 + len(pixels) // most]
    reach = 3  # px; the noise of a nearer pair would turn the normal
    rows, columns = pixels // width, pixels % width
    pixels = pixels[(rows >= reach) & (rows < height - reach) & (columns >= reach) & (columns < width - reach)]
    around = [scene.points(pixels + step) for step in (-reach, reach, -reach * width, reach * width)]
    z = scene.depth.reshape(-1)[pixels]
    near = [np.abs(points[:, 2] - z) < 0.05 * z for points in around]
    near_all = near[0] & near[1] & near[2] & near[3]
    (ax, ay, az), (bx, by, bz) = (around[3] - around[2])[near_all].T, (around[1] - around[0])[near_all].T
    normals = np.stack([ay * bz - az * by, az * bx - ax * bz, ax * by - ay * bx], axis=1)  # np.cross is slower
    lengths = np.sqrt(np.square(normals).sum(1))
    result: np.ndarray = (normals[lengths > 0] / lengths[lengths > 0, None]).astype(np.float64)
    return result
