"""Two-finger grasps from one view: antipodal, reachable from above or from the camera's side, free of what was seen.

A grasp is antipodal when the line between its contacts lies inside both friction cones (Nguyen, IJRR 1988). The contact
edges are read off the outline that the things between the fingers have along the approach direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hassod_ros.geometry.objects import Flag, Scene
from hassod_ros.geometry.planes import CELL

_ANGLES = 8  # closing directions over half a turn
_PLACES = 5  # positions of the fingers along a thing
_FRICTION = np.arctan(0.5)  # half angle of the cone: rubber on most things
_RIM = 0.004  # m beyond a contact that still belongs to the thing's own outline
_LEAST_HOLD = 0.006  # m of the thing between the fingers
_MOST_ROOM = 0.05  # m; more clearance is worth no more
_THING_POINTS, _SCENE_POINTS = 400, 400
_LEAST_POINTS = 12
_SUPPORT_NOISE = 0.006  # m above the support
_FAR = np.float32(np.inf)


@dataclass(frozen=True)
class Gripper:
    """A parallel gripper.

    Attributes:
        opening: Widest distance of the fingers, m; 0 = no gripper.
        thickness: Of a finger along the closing direction, m.
        width: Of a finger at right angles to it, m.
        length: How far the fingers reach around a thing, m.
        margin: Least distance to the support and to anything that is not held, m.

    """

    opening: float = 0.085
    thickness: float = 0.012
    width: float = 0.02
    length: float = 0.04
    margin: float = 0.004


@dataclass(frozen=True, eq=False)
class Grasp:
    """One way to take hold of a thing.

    Attributes:
        pose: (4, 4) in the camera's frame: origin midway between the contacts, z approach, y closing direction.
        width: Distance of the contacts, m.
        clearance: Free room beside and below the fingers, m, at most 0.05.
        score: In [0, 1].
        reach: How far the finger tips are beyond the origin, m.

    """

    pose: np.ndarray
    width: float
    clearance: float
    score: float
    reach: float


def find_grasps(scene: Scene, i: int, gripper: Gripper | None = None, most: int = 3) -> list[Grasp]:
    """Grasps of object i, best first; none for supports and where it has too few points or no support.

    Args:
        scene: From `locate`.
        i: Place among its objects.
        gripper: Default: `Gripper()`.
        most: Most grasps returned; they differ in direction or by more than a finger's width.

    """
    gripper = gripper or Gripper()
    objects = scene.objects
    plane = objects.supports[_root(objects.parents, i)]
    unusable = objects.is_support[i] or objects.flags[i] & Flag.FEW_POINTS or objects.counts[i] < _LEAST_POINTS
    if plane < 0 or unusable or not gripper.opening:
        return []
    ground = scene.grid.planes[plane]
    pixels = scene.pixels(i)
    thing = scene.points(pixels[:: 1 + len(pixels) // _THING_POINTS])
    reach = gripper.opening / 2 + gripper.thickness + _MOST_ROOM
    around = _around(scene, thing, reach)
    # The support is a plane to keep clear of; its own points are noise around it.
    around = np.concatenate([around[ground.heights(around) > _SUPPORT_NOISE], thing])
    coarse = around[:: 1 + len(around) // _SCENE_POINTS]
    found: list[Grasp] = []
    up, axis = ground.normal, objects.rotations[i][:, 0]
    view = objects.centroids[i] / np.linalg.norm(objects.centroids[i])
    away = view - (view @ up) * up  # level, away from the camera
    frames = [np.stack([axis, np.cross(up, axis), up], axis=1)]
    if np.linalg.norm(away) > 0.3:  # a camera straight above sees no side
        away /= np.linalg.norm(away)
        frames.append(np.stack([up, np.cross(-away, up), -away], axis=1))
    for frame in frames:
        found += _along(thing, coarse, frame, up, float(ground.distance), gripper)
    found.sort(key=lambda grasp: -grasp.score)
    kept: list[Grasp] = []
    for grasp in found:
        if len(kept) == most:
            break
        if all(_differ(grasp, other, gripper.width) for other in kept) and _free(grasp, around, gripper):
            kept.append(grasp)
    return kept


def _free(grasp: Grasp, around: np.ndarray, gripper: Gripper) -> bool:
    """Whether no point lies in the way of the open fingers, looked at without gaps."""
    turn, origin = grasp.pose[:3, :3].astype(np.float32), grasp.pose[:3, 3].astype(np.float32)
    local = np.abs(around @ turn - origin @ turn)
    beside = (local[:, 0] < gripper.width / 2) & (local[:, 1] > grasp.width / 2 + _RIM)
    beside &= (local[:, 1] < grasp.width / 2 + _RIM + gripper.thickness) & (
        (around - origin) @ turn[:, 2] < grasp.reach
    )
    return not beside.any()


def _root(parents: np.ndarray, i: int) -> int:
    while parents[i] >= 0:
        i = int(parents[i])
    return i


def _around(scene: Scene, thing: np.ndarray, reach: float) -> np.ndarray:
    """(m, 3) points of the scene within reach of a thing, its own among them."""
    grid = scene.grid
    z = float(thing[:, 2].min())
    spread = reach / z / (CELL * abs(float(scene.rays.x[0, 1] - scene.rays.x[0, 0])))  # cells
    columns = (thing[:, 0] / thing[:, 2], scene.rays.x[0, CELL // 2 :: CELL])
    rows = (thing[:, 1] / thing[:, 2], scene.rays.y[CELL // 2 :: CELL, 0])
    window = []
    for values, axis in (rows, columns):
        first, last = np.searchsorted(axis, [values.min(), values.max()])
        window.append(slice(max(int(first - spread), 0), int(last + spread) + 1))
    points = grid.points[window[0], window[1]]
    points = points[grid.valid[window[0], window[1]]]
    low, high = thing.min(0) - reach, thing.max(0) + reach
    near: np.ndarray = points[((points > low) & (points < high)).all(1)]
    return near


def _along(
    thing: np.ndarray, around: np.ndarray, frame: np.ndarray, up: np.ndarray, ground: float, gripper: Gripper
) -> list[Grasp]:
    """The best grasp of each closing direction, coming in against the frame's z.

    Args:
        thing: (n, 3) its points.
        around: (m, 3) all points near it.
        frame: (3, 3) columns x, y at right angles to the approach, z against it.
        up: (3,) normal of the support.
        ground: Its distance.
        gripper: What closes.

    """
    thing, around = thing @ frame.astype(np.float32), around @ frame.astype(np.float32)
    upright = up @ frame  # the support's normal in the frame
    top = np.partition(thing[:, 2], -3)[-3]
    tip = top - gripper.length
    if upright[2] > 0.5:  # from above the support ends the fingers' way
        tip = max(tip, ground + gripper.margin)
    held = thing[thing[:, 2] > tip]
    if top - tip < _LEAST_HOLD or len(held) < _LEAST_POINTS:
        return []
    around = around[around[:, 2] > tip - gripper.margin]
    turns = np.arange(_ANGLES) * np.pi / _ANGLES
    along = np.stack([np.cos(turns), np.sin(turns)]).astype(np.float32)  # (2, K) finger's flat side
    across = np.stack([-np.sin(turns), np.cos(turns)]).astype(np.float32)  # (2, K) closing direction
    u, v = (held[:, :2] @ along).T, (held[:, :2] @ across).T  # (K, n)
    third = gripper.width / 3
    low, high = u.min(1), u.max(1)
    steps = np.linspace(0, 1, _PLACES + 2, dtype=np.float32)[1:-1]
    places = low[:, None] + (high - low)[:, None] * steps  # (K, J)
    # Outline of what is between the fingers, in the thirds of their width.
    offsets = u[:, None] - places[..., None]  # (K, J, n)
    left, right, counts = [], [], []
    for part in (-1, 0, 1):
        inside = np.abs(offsets - part * third) <= third / 2
        left.append(np.where(inside, v[:, None], _FAR).min(2))
        right.append(np.where(inside, v[:, None], -_FAR).max(2))
        counts.append(np.count_nonzero(inside, axis=2))
    starts, ends = np.stack(left), np.stack(right)  # (3, K, J)
    start, end = starts.min(0), ends.max(0)
    possible = (np.stack(counts) >= 1).all(0)
    with np.errstate(invalid="ignore"):
        width = end - start
    possible &= width <= gripper.opening - 2 * gripper.margin
    if not possible.any():
        return []
    with np.errstate(invalid="ignore"):  # where nothing is between the fingers
        slopes = np.arctan(np.abs([starts[2] - starts[0], ends[2] - ends[0]]) / (2 * third)).max(0)
    possible &= slopes < _FRICTION
    # Room beyond the fingers to whatever else is there.
    u_all, v_all = (around[:, :2] @ along).T, (around[:, :2] @ across).T  # (K, m)
    beside = np.abs(u_all[:, None] - places[..., None]) <= gripper.width / 2 + gripper.margin  # (K, J, m)
    after = np.where(beside & (v_all[:, None] > end[..., None] + _RIM), v_all[:, None], _FAR).min(2) - end
    before = start - np.where(beside & (v_all[:, None] < start[..., None] - _RIM), v_all[:, None], -_FAR).max(2)
    room = np.minimum(after, before) - gripper.thickness
    # The lowest corner of both fingers above the support.
    rise_u, rise_v = upright[:2] @ along, upright[:2] @ across  # (K,)
    lowest = places * rise_u[:, None] - np.abs(rise_u)[:, None] * gripper.width / 2 + upright[2] * tip
    ends_v = (end + gripper.thickness, start - gripper.thickness)
    lowest = lowest + np.minimum(ends_v[0] * rise_v[:, None], ends_v[1] * rise_v[:, None])
    clearance = np.minimum(np.minimum(room, lowest - ground), _MOST_ROOM)
    possible &= (clearance >= gripper.margin - 1e-9) & np.isfinite(width)
    if not possible.any():
        return []
    center = thing[:, :2].mean(0)
    middle = np.add(start, end, out=np.zeros_like(start), where=possible) / 2
    offset = np.hypot(places - (center @ along)[:, None], middle - (center @ across)[:, None])
    reach = max(float(np.hypot(*(thing[:, :2].max(0) - thing[:, :2].min(0)))) / 2, 1e-3)
    hold = min(1.0, (top - tip) / (gripper.length / 2))
    score = (
        hold
        * np.sqrt(np.clip(1 - slopes / _FRICTION, 0, 1))
        * np.clip(1 - offset / reach, 0.05, 1)
        * np.clip(clearance / 0.02, 0.05, 1) ** 0.5
        * np.clip(1.2 - width / gripper.opening, 0.05, 1) ** 0.5
    )
    score = np.where(possible, score, -1)
    grasps = []
    for k, j in enumerate(score.argmax(1).tolist()):
        if score[k, j] < 0:
            continue
        held_here = np.abs(u[k] - places[k, j]) <= gripper.width / 2
        pose = np.eye(4)
        pose[:3, 1] = frame[:, :2] @ across[:, k]
        pose[:3, 2] = -frame[:, 2]
        pose[:3, 0] = np.cross(pose[:3, 1], pose[:3, 2])
        depth = (held[held_here, 2].max() + tip) / 2
        pose[:3, 3] = frame @ [*(places[k, j] * along[:, k] + middle[k, j] * across[:, k]), depth]
        grasps.append(
            Grasp(pose, float(width[k, j]), float(clearance[k, j]), float(min(score[k, j], 1)), float(depth - tip))
        )
    return grasps


def _differ(grasp: Grasp, other: Grasp, distance: float) -> bool:
    far = np.linalg.norm(grasp.pose[:3, 3] - other.pose[:3, 3]) > distance
    turned = abs(grasp.pose[:3, 1] @ other.pose[:3, 1]) < np.cos(np.radians(25))
    return bool(far or turned or grasp.pose[:3, 2] @ other.pose[:3, 2] < 0.7)
