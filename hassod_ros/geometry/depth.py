"""Depth images in metres: units by encoding, what is valid, and where the depth jumps."""

from __future__ import annotations

import cv2
import numpy as np

from hassod_ros.errors import InputError

# Metres per unit (REP 118): integers are millimetres, floating point is metres.
UNITS = {"16uc1": 1e-3, "mono16": 1e-3, "32fc1": 1.0, "64fc1": 1.0}
_FAR = 1e6  # m, further than anything
_DOUBT_STEP = 8  # px between those that are looked at
_PLAUSIBLE = (0.05, 20.0)  # m, of the median; depth cameras see nothing nearer or further


def to_metres(pixels: np.ndarray, encoding: str, scale: float = 0.0) -> np.ndarray:
    """Depth in metres; 0 where there is none (0, negative, NaN or infinite in the input).

    Args:
        pixels: (H, W) depth of any numeric dtype and byte order, along the optical axis.
        encoding: ROS name of the layout: 16UC1 or mono16, 32FC1, 64FC1.
        scale: Metres per unit, instead of the encoding's.

    Returns:
        (H, W) float32, finite, >= 0.

    Raises:
        InputError: The encoding is not one of a depth image.

    Example:
        >>> to_metres(np.array([[0, 1500]], np.uint16), "16UC1")
        array([[0. , 1.5]], dtype=float32)

    """
    if encoding.lower() not in UNITS:
        raise InputError(
            f"encoding {encoding!r} is not a depth image; connect `depth` to one of {', '.join(sorted(UNITS))}"
        )
    unit = np.float32(scale or UNITS[encoding.lower()])
    if pixels.dtype.kind in "iu":
        depth: np.ndarray = pixels.astype(np.float32) * unit
        return np.maximum(depth, 0, out=depth) if pixels.dtype.kind == "i" else depth
    with np.errstate(invalid="ignore", over="ignore"):
        depth = pixels.astype(np.float32) * unit
        depth[~((depth > 0) & (depth < np.inf))] = 0  # written so that NaN fails too
    return depth


def doubt(depth: np.ndarray) -> str:
    """A sentence where these metres are not believable, "" where they are.

    Args:
        depth: (H, W) float32 metres, 0 = none.

    """
    sample = depth[::_DOUBT_STEP, ::_DOUBT_STEP]
    sample = sample[sample > 0]
    if not len(sample):
        sample = depth[depth > 0]
    if not len(sample):
        return "the depth image holds no valid pixel; check the depth camera"
    median = float(quantiles(sample, 0.5)[0])
    if _PLAUSIBLE[0] <= median <= _PLAUSIBLE[1]:
        return ""
    return (
        f"the median depth is {median:.4g} m, outside {_PLAUSIBLE[0]:g} to {_PLAUSIBLE[1]:g} m; "
        "set depth_scale to the metres per unit of the depth image"
    )


def usable_depth(depth: np.ndarray, jump: float, max_depth: float = np.inf) -> np.ndarray:
    """Pixels with depth that is their own: not the ones just behind a depth edge, which may be mixed of both sides.

    The foreground's last pixels are kept, the background's first ones are not.

    Args:
        depth: (H, W) float32 metres, 0 = none.
        jump: Share of its depth by which a pixel behind an edge is further than one of its eight neighbours.
        max_depth: Further pixels are left out, m.

    Returns:
        (H, W) uint8, 0 or 1.

    """
    known = (depth > 0) & (depth <= max_depth)
    distance = cv2.copyTo(depth, known.view(np.uint8), np.full(depth.shape, _FAR, np.float32))
    nearest = cv2.erode(distance, np.ones((3, 3), np.uint8))
    known &= nearest >= np.multiply(distance, np.float32(1 - jump), out=distance)
    return known.view(np.uint8)


def noise(depth: np.ndarray | float) -> np.ndarray:
    """Deviation from a plane, in m, that a depth camera's own noise explains at this depth in m.

    Twice to three times the axial noise that Nguyen, Izadi and Lovell (3DIMPVT 2012) measured for the Kinect.
    """
    return 0.004 + 0.004 * np.square(depth)


def quantiles(values: np.ndarray, *shares: float) -> np.ndarray:
    """(Q, ...) the values below which these Q shares (0 to 1) of (..., n) lie.

    Not interpolated, and sorted: NumPy sorts with vector instructions, and takes several times as long to partition.
    """
    places = [round(share * (values.shape[-1] - 1)) for share in shares]
    return np.moveaxis(np.sort(values, axis=-1)[..., places], -1, 0)
