"""Boxes and cylinders on a table, ray cast to depth and masks: scenes whose truth is known exactly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.geometry.rays import Calibration, Rays, make_rays
from hassod_ros.instances import Instances

CALIBRATION = Calibration((480, 640), (600.0, 600.0), (319.5, 239.5))


@dataclass(frozen=True)
class Solid:
    """A box or an upright cylinder.

    Attributes:
        size: Lengths along its own axes, m; of a cylinder diameter, diameter, height.
        position: Middle of its foot in the world, m; the table is at z = 0.
        yaw: Turn about the world's z, radians.
        round: A cylinder.

    """

    size: tuple[float, float, float]
    position: tuple[float, float, float]
    yaw: float = 0.0
    round: bool = False

    @property
    def pose(self) -> np.ndarray:
        """(4, 4) from the solid's frame, whose origin is the middle of the solid, to the world."""
        c, s = np.cos(self.yaw), np.sin(self.yaw)
        x, y, z = self.position
        return np.array([[c, -s, 0, x], [s, c, 0, y], [0, 0, 1, z + self.size[2] / 2], [0, 0, 0, 1.0]])


@dataclass(frozen=True, eq=False)
class Rendered:
    """A scene as a camera sees it.

    Attributes:
        depth: (H, W) float32 m, 0 where nothing is hit.
        ids: (H, W) int16: 0 nothing, 1 table, 2 floor, 3 + i solid i.
        rays: Of the pixels.
        camera: (4, 4) from the camera's optical frame to the world.
        solids: The truth.

    """

    depth: np.ndarray
    ids: np.ndarray
    rays: Rays
    camera: np.ndarray
    solids: tuple[Solid, ...]

    def truth(self, i: int) -> np.ndarray:
        """(4, 4) from solid i's frame to the camera's."""
        result: np.ndarray = np.linalg.inv(self.camera) @ self.solids[i].pose
        return result

    def visible(self) -> list[int]:
        """The solids of which enough is seen to have a mask."""
        return [i for i in range(len(self.solids)) if np.count_nonzero(self.ids == 3 + i) > 50]

    def instances(self, *, table: bool = False) -> Instances:
        """Exact masks of the visible solids; before them the table's where asked for, with them as its parts."""
        masks = [self.ids == 3 + i for i in self.visible()]
        if not table:
            return Instances.from_dense(np.array(masks), image_size=self.ids.shape)
        masks = [np.isin(self.ids, [1, *(3 + i for i in self.visible())]), *masks]
        n = len(masks)
        return Instances.from_dense(
            np.array(masks),
            image_size=self.ids.shape,
            levels=np.array([0] + [1] * (n - 1)),
            parents=np.array([-1] + [0] * (n - 1)),
        )


def look_at(eye: Sequence[float], target: Sequence[float] = (0, 0, 0), roll: float = 0.0) -> np.ndarray:
    """(4, 4) from the optical frame of a camera at `eye` that looks at `target` to the world."""
    forward = np.subtract(target, eye).astype(float)
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0, 0, 1.0]) if abs(forward[2]) < 0.999 else np.array([1.0, 0, 0])
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    c, s = np.cos(roll), np.sin(roll)
    pose = np.eye(4)
    pose[:3, :3] = np.stack([c * right + s * down, c * down - s * right, forward], axis=1)
    pose[:3, 3] = eye
    return pose


def render(
    solids: Sequence[Solid],
    camera: np.ndarray,
    calibration: Calibration = CALIBRATION,
    *,
    table: tuple[float, float] | None = (1.2, 0.8),
    floor: float = -0.7,
) -> Rendered:
    """Cast a ray through every pixel centre.

    Args:
        solids: What stands in the scene.
        camera: (4, 4) from its optical frame to the world.
        calibration: Its lens.
        table: Lengths of the table along the world's x and y, m; None = no table.
        floor: Height of the floor, m.

    """
    rays = make_rays(calibration)
    directions = np.stack([rays.x, rays.y, np.ones_like(rays.x)], axis=-1).astype(np.float64) @ camera[:3, :3].T
    eye = camera[:3, 3]
    nearest = np.full(rays.x.shape, np.inf)
    ids = np.zeros(rays.x.shape, np.int16)

    def hit(distance: np.ndarray, name: int, window: tuple[slice, slice] = np.s_[:, :]) -> None:
        closer = (distance > 1e-6) & (distance < nearest[window])
        nearest[window][closer] = distance[closer]
        ids[window][closer] = name

    with np.errstate(divide="ignore", invalid="ignore"):
        hit((floor - eye[2]) / directions[..., 2], 2)
        if table is not None:
            distance = -eye[2] / directions[..., 2]
            at = eye[:2] + distance[..., None] * directions[..., :2]
            hit(np.where((np.abs(at) <= np.array(table) / 2).all(-1), distance, np.inf), 1)
        for i, solid in enumerate(solids):
            inverse = np.linalg.inv(solid.pose)
            window = _window(solid, camera, calibration)
            local, start = directions[window] @ inverse[:3, :3].T, inverse[:3, :3] @ eye + inverse[:3, 3]
            hit(_cylinder(start, local, solid) if solid.round else _box(start, local, solid), 3 + i, window)
    depth = np.where(np.isfinite(nearest), nearest, 0).astype(np.float32)
    return Rendered(depth, ids, rays, camera, tuple(solids))


def _window(solid: Solid, camera: np.ndarray, calibration: Calibration) -> tuple[slice, slice]:
    """Rows and columns that the solid can cover."""
    signs = np.array([(x, y, z, 0) for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)]) / 2
    corners = np.linalg.inv(camera) @ solid.pose @ (signs * [*solid.size, 0] + [0, 0, 0, 1]).T
    if (corners[2] < 0.05).any() or calibration.distorted:
        return np.s_[:, :]
    pixels = calibration.project(corners[:3].T)
    (left, top), (right, bottom) = np.floor(pixels.min(0)).astype(int), np.ceil(pixels.max(0)).astype(int)
    return slice(max(top, 0), max(bottom + 1, 0)), slice(max(left, 0), max(right + 1, 0))


def _box(start: np.ndarray, rays: np.ndarray, solid: Solid) -> np.ndarray:
    half = np.array(solid.size) / 2
    first, second = (-half - start) / rays, (half - start) / rays
    enter, leave = np.minimum(first, second).max(-1), np.maximum(first, second).min(-1)
    return np.where((enter <= leave) & (leave > 0), enter, np.inf)


def _cylinder(start: np.ndarray, rays: np.ndarray, solid: Solid) -> np.ndarray:
    radius, half = solid.size[0] / 2, solid.size[2] / 2
    a = np.square(rays[..., :2]).sum(-1)
    b = rays[..., :2] @ start[:2]
    root = np.sqrt(b**2 - a * (start[:2] @ start[:2] - radius**2))  # NaN where the ray misses
    side = (-b - root) / a
    side = np.where(np.abs(start[2] + side * rays[..., 2]) <= half, side, np.inf)
    cap = (half - start[2]) / rays[..., 2]
    at = start[:2] + cap[..., None] * rays[..., :2]
    cap = np.where(np.square(at).sum(-1) <= radius**2, cap, np.inf)
    return np.fmin(side, cap)


def structured_light(depth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A depth image as a PrimeSense camera would give it.

    Disparity with noise of 1/6 px, smoothed over the camera's window and rounded to 1/8 px (Khoshelham and Elberink,
    Sensors 2012), edges shifted by up to a pixel, and no depth at grazing edges (Nguyen et al., 3DIMPVT 2012).

    Args:
        depth: (H, W) float32 metres, 0 = none.
        rng: Source of chance.

    Returns:
        (H, W) float32 metres.

    """
    height, width = depth.shape
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    shift = [cv2.GaussianBlur(rng.normal(0, 1.5, depth.shape).astype(np.float32), (0, 0), 1.0) for _ in range(2)]
    seen = cv2.remap(depth, columns + shift[0], rows + shift[1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_REPLICATE)
    base = 0.075 * 575.0  # baseline times focal length, m px
    disparity = base / np.maximum(seen, 1e-3)
    disparity = disparity + cv2.GaussianBlur(rng.normal(0, 1 / 6, depth.shape).astype(np.float32), (0, 0), 0.8)
    noisy = base / (np.round(disparity * 8) / 8)
    edge = cv2.dilate(seen, np.ones((3, 3))) - cv2.erode(seen, np.ones((3, 3))) > 0.05 * seen
    lost = edge & (rng.random(depth.shape) < 0.5)
    return np.where((seen > 0) & ~lost, noisy, 0).astype(np.float32)


def random_scene(rng: np.random.Generator, count: int = 6) -> Rendered:
    """Boxes and cylinders without contact between them on a table, seen from a random side."""
    solids: list[Solid] = []
    for _ in range(1000):
        if len(solids) == count:
            break
        round_ = bool(rng.random() < 0.4)
        size = rng.uniform(0.04, 0.12, 3)
        if round_:
            size[1] = size[0]
        place = rng.uniform([-0.28, -0.18], [0.28, 0.18])
        reach = np.hypot(size[0], size[1]) / 2
        others = [(np.hypot(*(place - solid.position[:2])), np.hypot(*solid.size[:2]) / 2) for solid in solids]
        if all(distance > reach + other + 0.03 for distance, other in others):
            x, y, z = (float(side) for side in size)
            solids.append(
                Solid((x, y, z), (float(place[0]), float(place[1]), 0.0), float(rng.uniform(0, np.pi)), round_)
            )
    azimuth, height = rng.uniform(0, 2 * np.pi), rng.uniform(0.45, 0.8)
    eye = (0.65 * np.cos(azimuth), 0.65 * np.sin(azimuth), height)
    return render(solids, look_at(eye, roll=float(rng.uniform(-0.2, 0.2))))
