"""Rigid transforms over time: a buffer of what /tf and /tf_static say, looked up at a stamp."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict

import numpy as np

from hassod_ros.errors import InputError

_NANO = 1_000_000_000


class TransformError(InputError):
    """A transform is not known (yet); the message says what is missing.

    Attributes:
        early: True where a later message may still bring it.

    """

    def __init__(self, message: str, *, early: bool) -> None:
        super().__init__(message)
        self.early = early


class TransformBuffer:
    """Transforms between frames, each from a child to its parent, interpolated at any stamp of the last seconds.

    Args:
        memory: Seconds that moving transforms are kept.

    Example:
        >>> buffer = TransformBuffer()
        >>> buffer.add("map", "camera", 0, (1.0, 0.0, 0.0), (0.0, 0.0, 0.0, 1.0), fixed=True)
        >>> buffer.find("map", "camera", 5)[:3, 3]
        array([1., 0., 0.])

    """

    def __init__(self, memory: float = 10.0) -> None:
        self._memory = round(memory * _NANO)
        self._parents: dict[str, str] = {}
        self._fixed: dict[str, np.ndarray] = {}
        self._moving: dict[str, list[tuple[int, tuple[float, ...]]]] = defaultdict(list)

    def add(
        self,
        parent: str,
        child: str,
        stamp: int,
        translation: tuple[float, float, float],
        rotation: tuple[float, float, float, float],
        *,
        fixed: bool = False,
    ) -> None:
        """Take in one transform.

        Args:
            parent: Frame that `translation` and `rotation` are given in; a leading slash is dropped.
            child: Frame that they place.
            stamp: Nanoseconds.
            translation: x, y, z in m.
            rotation: Quaternion x, y, z, w; made of length 1.
            fixed: It holds for ever (/tf_static).

        Raises:
            InputError: Not finite, a quaternion of length 0, or a frame below itself.

        """
        parent, child = parent.lstrip("/"), child.lstrip("/")
        values = (*translation, *rotation)
        if not np.isfinite(values).all() or not np.linalg.norm(rotation) > 1e-6:
            raise InputError(f"the transform from {child} to {parent} is not a rigid motion: {values}; fix its sender")
        if not child or parent == child:
            raise InputError(f"a transform puts frame {child!r} below itself; fix its sender")
        if self._parents.get(child, parent) != parent:  # the frame hangs elsewhere now
            self._moving.pop(child, None)
            self._fixed.pop(child, None)
        self._parents[child] = parent
        if fixed:
            self._fixed[child] = matrix(translation, rotation)
            return
        self._fixed.pop(child, None)
        track = self._moving[child]
        if track and stamp < track[-1][0] - self._memory:  # time was set back, as when a bag starts again
            track.clear()
        at = bisect_left(track, (stamp,))
        if at < len(track) and track[at][0] == stamp:
            track[at] = (stamp, values)
        else:
            insort(track, (stamp, values))
        oldest = track[-1][0] - self._memory
        del track[: bisect_left(track, (oldest,))]

    def find(self, target: str, source: str, stamp: int) -> np.ndarray:
        """(4, 4) float64 that takes points of frame `source` to frame `target` at a stamp in nanoseconds.

        Raises:
            TransformError: It is not known at that stamp.

        """
        target, source = target.lstrip("/"), source.lstrip("/")
        if target == source:
            return np.eye(4)
        up_source, up_target = self._line(source), self._line(target)
        common = next((frame for frame in up_source if frame in up_target), None)
        if common is None:
            known = ", ".join(sorted({*self._parents, *self._parents.values()})) or "none"
            raise TransformError(
                f"no transform connects {source} with {target}; frames that are known: {known}", early=True
            )
        result = np.eye(4)
        for frame in up_source[: up_source.index(common)]:
            result = self._at(frame, stamp) @ result
        back = np.eye(4)
        for frame in up_target[: up_target.index(common)]:
            back = self._at(frame, stamp) @ back
        return invert(back) @ result

    def _line(self, frame: str) -> list[str]:
        """The frame and all above it."""
        line = [frame]
        while line[-1] in self._parents:
            parent = self._parents[line[-1]]
            if parent in line:
                raise TransformError(f"the frames {', '.join(line)} form a circle; fix their senders", early=False)
            line.append(parent)
        return line

    def _at(self, child: str, stamp: int) -> np.ndarray:
        if child in self._fixed:
            return self._fixed[child]
        track = self._moving[child]
        after = bisect_left(track, (stamp,))
        if after < len(track) and track[after][0] == stamp:
            return matrix(track[after][1][:3], track[after][1][3:])
        name = f"the transform from {child} to {self._parents[child]}"
        if after == len(track):
            late = (stamp - track[-1][0]) / _NANO
            raise TransformError(f"{name} is {late:.3f} s older than the image; check that it is published", early=True)
        if after == 0:
            raise TransformError(
                f"{name} is known from {(track[0][0] - stamp) / _NANO:.3f} s after the image only", early=False
            )
        (start, before), (end, later) = track[after - 1], track[after]
        share = (stamp - start) / (end - start)
        place = (1 - share) * np.array(before[:3]) + share * np.array(later[:3])
        return matrix(place, slerp(np.array(before[3:]), np.array(later[3:]), share))


def matrix(translation: np.ndarray | tuple[float, ...], rotation: np.ndarray | tuple[float, ...]) -> np.ndarray:
    """(4, 4) of a translation in m and a quaternion x, y, z, w of any length."""
    x, y, z, w = np.asarray(rotation, np.float64) / np.linalg.norm(rotation)
    result = np.eye(4)
    result[:3, :3] = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    result[:3, 3] = translation
    return result


def invert(transform: np.ndarray) -> np.ndarray:
    """Inverse of a rigid (4, 4)."""
    result = np.eye(4)
    result[:3, :3] = transform[:3, :3].T
    result[:3, 3] = -transform[:3, :3].T @ transform[:3, 3]
    return result


def slerp(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    """Quaternion (4,) on the shorter arc from `first` to `second` (Shoemake, SIGGRAPH 1985)."""
    first, second = first / np.linalg.norm(first), second / np.linalg.norm(second)
    cosine = float(first @ second)
    if cosine < 0:
        second, cosine = -second, -cosine
    if cosine > 0.9995:
        result: np.ndarray = (1 - share) * first + share * second
        return result
    angle = np.arccos(cosine)
    mixed: np.ndarray = (np.sin((1 - share) * angle) * first + np.sin(share * angle) * second) / np.sin(angle)
    return mixed


def quaternions(rotations: np.ndarray) -> np.ndarray:
    """(N, 4) x, y, z, w with w >= 0 of rotation matrices (N, 3, 3)."""
    # The largest of the four squares is well conditioned whatever the rotation.
    m = np.asarray(rotations, np.float64).reshape(-1, 3, 3)
    xx, yy, zz = m[:, 0, 0], m[:, 1, 1], m[:, 2, 2]
    squares = np.stack([1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz, 1 + xx + yy + zz], axis=1)
    a, b, c = m[:, 2, 1] - m[:, 1, 2], m[:, 0, 2] - m[:, 2, 0], m[:, 1, 0] - m[:, 0, 1]
    d, e, f = m[:, 0, 1] + m[:, 1, 0], m[:, 0, 2] + m[:, 2, 0], m[:, 1, 2] + m[:, 2, 1]
    columns = np.stack(
        [
            np.stack([squares[:, 0], d, e, a], axis=1),
            np.stack([d, squares[:, 1], f, b], axis=1),
            np.stack([e, f, squares[:, 2], c], axis=1),
            np.stack([a, b, c, squares[:, 3]], axis=1),
        ],
        axis=1,
    )
    result = columns[np.arange(len(m)), squares.argmax(1)]
    result /= np.linalg.norm(result, axis=1, keepdims=True)
    signed: np.ndarray = np.where(result[:, 3:] < 0, -result, result)
    return signed
