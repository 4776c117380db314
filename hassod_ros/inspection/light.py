"""Light that differs from the reference's: a gain and an offset for each colour, each a plane over the picture."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

_GRID = 32  # cells of the longer side that the planes are fitted on
_ROUNDS = 6  # of reweighting
_SOFT = 8.0  # grey levels beyond which a cell counts less (Huber): it holds something else
_TIED = 0.02  # how firmly gains are tied to 1 and slopes to 0, as a share of the cells


@dataclass(frozen=True)
class Light:
    """What lights a picture like the reference.

    Attributes:
        gain: (3, 3) float32, for each colour the plane c + x u + y v of the factor; u and v run from -1 to 1.
        offset: (3, 3) float32, likewise in grey levels.
        change: Mean change of grey levels that it makes, of the range of 255, in percent.

    """

    gain: np.ndarray
    offset: np.ndarray
    change: float

    def apply(self, picture: np.ndarray) -> np.ndarray:
        """The (H, W, 3) uint8 picture under the reference's light."""
        height, width = picture.shape[:2]
        down = np.stack([np.ones(height, np.float32), np.linspace(-1, 1, height, dtype=np.float32)], axis=1)
        u = np.linspace(-1, 1, width, dtype=np.float32)
        factor, added = (
            (down @ np.stack([c + np.outer(u, x), np.tile(y, (width, 1))]).reshape(2, -1)).reshape(picture.shape)
            for c, x, y in (self.gain.T, self.offset.T)
        )
        # rounded and cut off at 0 and 255
        return np.asarray(cv2.add(cv2.multiply(picture, factor, dtype=cv2.CV_32F), added, dtype=cv2.CV_8U))


def match_light(picture: np.ndarray, reference: np.ndarray, valid: np.ndarray) -> Light:
    """The light that makes `picture` look like `reference`, by robust least squares on a coarse grid.

    Args:
        picture: (H, W, 3) uint8 RGB, laid over the reference.
        reference: (H, W, 3) uint8 RGB.
        valid: (H, W) uint8, not 0 where both show the part.

    """
    height, width = valid.shape
    scale = _GRID / max(height, width)
    size = (max(2, round(width * scale)), max(2, round(height * scale)))
    a = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    b = cv2.resize(reference, size, interpolation=cv2.INTER_AREA).astype(np.float32)
    use = cv2.resize(valid, size, interpolation=cv2.INTER_AREA).ravel() > 250
    v, u = (axis.ravel()[use] for axis in np.mgrid[-1 : 1 : size[1] * 1j, -1 : 1 : size[0] * 1j])
    gain = np.tile(np.array([1, 0, 0], np.float32), (3, 1))
    offset = np.zeros((3, 3), np.float32)
    if np.count_nonzero(use) < 12:
        return Light(gain, offset, 0.0)
    x, y = (each.reshape(-1, 3)[use].T.astype(np.float64) for each in (a, b))  # (3, N)
    ones = np.ones_like(x)
    columns = np.stack([ones, ones * u, ones * v, x / 64, u * x / 64, v * x / 64], axis=1)  # (3, 6, N)
    tie = np.diag([0.05, 1, 1, 1, 4, 4]) * _TIED * x.shape[1]
    wanted = tie @ np.array([0, 0, 0, 64, 0, 0], np.float64)
    weights = np.ones_like(x)
    for _ in range(_ROUNDS):
        weighted = columns * weights[:, None]
        solution = np.linalg.solve(
            weighted @ columns.transpose(0, 2, 1) + tie, (weighted @ y[..., None]) + wanted[:, None]
        )[..., 0]
        error = np.abs(np.einsum("cin,ci->cn", columns, solution) - y)
        weights = np.minimum(1, _SOFT / np.maximum(error, 1e-6)) ** 2
    offset, gain = solution[:, :3].astype(np.float32), (solution[:, 3:] / 64).astype(np.float32)
    light = Light(gain, offset, 0.0)
    small = cv2.resize(picture, size)
    return Light(gain, offset, float(cv2.absdiff(light.apply(small), small).mean()) / 2.55)
