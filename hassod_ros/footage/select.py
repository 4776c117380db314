"""Which frames of hours of video are worth labelling: new ones, sharp ones, well exposed ones, evenly from all cameras.

Novelty is farthest-point selection on thumbnails (Gonzalez, Clustering to minimize the maximum intercluster distance,
1985; first as a cover in one pass, then down to the quota). Sharpness is compared with the neighbours in time of the
same view, direction by direction: motion blur leaves the edges along its direction as they were.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

_THUMBNAIL = 16  # pixels a side
_WORK_WIDTH = 320  # px at which sharpness is measured: up to twice that
_SAME_VIEW = 0.2  # correlation of thumbnails
_SAME = 5e-4  # 1 - correlation: more than noise and compression make, about what one pixel of 640 further makes
_LEAST_NEIGHBOURS = 3
_CHUNK = 4096  # frames that are compared at once
KEPT, REPEATS = "kept", "repeats"


@dataclass(frozen=True)
class SelectConfig:
    """What to keep."""

    novelty: float = 0.03  # 1 - correlation of thumbnails from which a frame is new; 0 keeps all
    sharpness: float = 0.6  # least share of the sharpness of its neighbours in time; 0 keeps all
    neighbours: int = 7  # frames before and after that it is compared with
    dark: float = 0.7  # greatest share of pixels below 16
    bright: float = 0.5  # greatest share of pixels above 250
    count: int = 500  # most frames of all cameras together


class Measure(NamedTuple):
    """What is measured of a frame.

    Attributes:
        signature: (256,) float32, a grey thumbnail without its mean, of length 1; zeros where it is blank.
        sharpness: (4,) float32, mean squared second difference along 0, 45, 90 and 135 degrees.
        dark: Share of pixels below 16.
        bright: Share of pixels above 250.

    """

    signature: np.ndarray
    sharpness: np.ndarray
    dark: float
    bright: float


def measure(pixels: np.ndarray) -> Measure:
    """Measure (H, W, 3) uint8 RGB."""
    grey = _grey(pixels)
    small = cv2.resize(_halved(grey, 2 * _THUMBNAIL), (_THUMBNAIL, _THUMBNAIL), interpolation=cv2.INTER_AREA)
    thumbnail = small.astype(np.float32).ravel()
    thumbnail -= thumbnail.mean()
    length = float(np.linalg.norm(thumbnail))
    histogram = cv2.calcHist([grey], [0], None, [256], [0, 256]).ravel() / grey.size
    return Measure(
        thumbnail / length if length > _THUMBNAIL else np.zeros_like(thumbnail),  # 1 grey value of deviation
        _sharpness(grey),
        float(histogram[:16].sum()),
        float(histogram[251:].sum()),
    )


def _grey(pixels: np.ndarray) -> np.ndarray:
    """(h, w) uint8, halved to `_WORK_WIDTH` or up to twice that; of large pictures every second row stays unread."""
    wide = pixels.shape[1] >= 4 * _WORK_WIDTH and pixels.shape[0] >= 4
    grey = cv2.cvtColor(pixels[:: 1 + wide], cv2.COLOR_RGB2GRAY)
    if wide:
        rows, columns = grey.shape
        grey = cv2.resize(grey, (columns // 2, rows // 2), interpolation=cv2.INTER_AREA)
        grey = cv2.resize(grey, (columns // 4, rows // 2), interpolation=cv2.INTER_LINEAR)  # means of two columns
    return _halved(grey, _WORK_WIDTH)


def _halved(grey: np.ndarray, least: int) -> np.ndarray:
    """Halved as long as it is at least twice as large: fast, and equal for equal sizes."""
    while grey.shape[1] >= 2 * least and grey.shape[0] > 1:
        grey = cv2.resize(grey, (grey.shape[1] // 2, grey.shape[0] // 2), interpolation=cv2.INTER_AREA)
    return grey


def _sharpness(grey: np.ndarray) -> np.ndarray:
    if min(grey.shape) < 3:
        return np.zeros(4, np.float32)
    middle = grey[1:-1, 1:-1]
    rows, columns = grey.shape
    energies = []
    for y, x in ((0, 1), (1, 1), (1, 0), (1, -1)):
        first = grey[1 + y : rows - 1 + y, 1 + x : columns - 1 + x]
        second = grey[1 - y : rows - 1 - y, 1 - x : columns - 1 - x]
        curve = cv2.addWeighted(first, 0.5, second, 0.5, 0)
        energies.append(cv2.norm(curve, middle, cv2.NORM_L2SQR) / middle.size)
    return np.array(energies, np.float32)


def flaws(
    cameras: Sequence[str],
    signatures: np.ndarray,
    sharpness: np.ndarray,
    dark: np.ndarray,
    bright: np.ndarray,
    config: SelectConfig,
) -> list[str]:
    """What is wrong with each frame.

    Args:
        cameras: N names; the frames of a camera are in their order in time.
        signatures: (N, 256) float32.
        sharpness: (N, 4) float32.
        dark: (N,) share of dark pixels.
        bright: (N,) share of bright pixels.
        config: Limits.

    Returns:
        N times "dark", "bright", "blank", "blurred" or "".

    """
    found = np.full(len(cameras), "", object)
    for index in _by_camera(cameras).values():
        found[index[_blurred(signatures[index], sharpness[index], config)]] = "blurred"
    found[~signatures.any(axis=1)] = "blank"
    found[bright > config.bright] = "bright"
    found[dark > config.dark] = "dark"
    return found.tolist()


def choose(cameras: Sequence[str], signatures: np.ndarray, config: SelectConfig) -> list[str]:
    """Which frames show something new, at most `config.count`, evenly from all cameras.

    Args:
        cameras: N names; the frames of a camera are in their order in time.
        signatures: (N, 256) float32.
        config: What to keep.

    Returns:
        N times `KEPT`, "repeats" or "quota".

    """
    reasons = np.full(len(cameras), REPEATS, object)
    new = {camera: index[cover(signatures[index], config.novelty)] for camera, index in _by_camera(cameras).items()}
    for camera, allowed in share({camera: len(index) for camera, index in new.items()}, config.count).items():
        reasons[new[camera]] = "quota"
        reasons[new[camera][farthest(signatures[new[camera]], allowed)]] = KEPT
    return reasons.tolist()


def _by_camera(cameras: Sequence[str]) -> dict[str, np.ndarray]:
    names = np.array(cameras, object)
    return {camera: np.flatnonzero(names == camera) for camera in dict.fromkeys(cameras)}


def _blurred(signatures: np.ndarray, sharpness: np.ndarray, config: SelectConfig) -> np.ndarray:
    """(N,) bool: softer in some direction than the neighbours in time that show the same."""
    count, reach = len(signatures), config.neighbours
    if not config.sharpness or not count:
        return np.zeros(count, bool)
    here = np.arange(count)
    values = np.full((2 * reach, count, 4), -1, np.float32)
    for row, shift in enumerate([*range(-reach, 0), *range(1, reach + 1)]):
        other = np.clip(here + shift, 0, count - 1)
        same = (other == here + shift) & ((signatures * signatures[other]).sum(axis=1) > _SAME_VIEW)
        values[row, same] = sharpness[other[same]]
    compared = (values[..., 0] >= 0).sum(axis=0)  # (N,)
    order = np.sort(values, axis=0)  # what is not compared comes first
    upper = order[2 * reach - 1 - compared // 4, here]  # (N, 4) upper quartile: several frames may be blurred together
    return (compared >= _LEAST_NEIGHBOURS) & (sharpness < config.sharpness * upper).any(axis=1)


def cover(signatures: np.ndarray, distance: float) -> np.ndarray:
    """Indices of the frames that, in their order, were no nearer than `distance` to any kept before."""
    kept = np.empty_like(signatures)
    chosen: list[int] = []
    for i, signature in enumerate(signatures):
        if not chosen or 1 - float((kept[: len(chosen)] @ signature).max()) >= distance:
            kept[len(chosen)] = signature
            chosen.append(i)
    return np.array(chosen, int)


def seen(signatures: np.ndarray, others: np.ndarray) -> np.ndarray:
    """(N,) bool: which frames show nothing else than one of the others, but for noise.

    Args:
        signatures: (N, 256) float32.
        others: (M, 256) float32.

    """
    found = np.zeros(len(signatures), bool)
    if len(others):
        for start in range(0, len(signatures), _CHUNK):
            part = slice(start, start + _CHUNK)
            found[part] = (signatures[part] @ others.T).max(axis=1) > 1 - _SAME
    return found


def farthest(signatures: np.ndarray, count: int) -> np.ndarray:
    """Indices, ascending, of `count` frames, each the farthest from those chosen before; begins with the first."""
    if count >= len(signatures):
        return np.arange(len(signatures))
    chosen = [0][:count]
    nearest = 1 - signatures @ signatures[0]
    while len(chosen) < count:
        nearest[chosen[-1]] = -np.inf
        chosen.append(int(nearest.argmax()))
        nearest = np.minimum(nearest, 1 - signatures @ signatures[chosen[-1]])
    return np.sort(np.array(chosen, int))


def share(wanted: dict[str, int], total: int) -> dict[str, int]:
    """Split `total` evenly; what one does not need, the others get.

    Example:
        >>> share({"front": 100, "rear": 2, "left": 100}, 12)
        {'front': 5, 'rear': 2, 'left': 5}

    """
    given = dict.fromkeys(wanted, 0)
    while left := min(total, sum(wanted.values())) - sum(given.values()):
        short = [name for name in wanted if given[name] < wanted[name]]
        for name in short[:left]:
            given[name] += min(max(1, left // len(short)), wanted[name] - given[name])
    return given
