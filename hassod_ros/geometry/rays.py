"""Camera calibration to viewing rays: pixel times depth gives a point."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from hassod_ros.errors import InputError

_MODELS = ("", "plumb_bob", "rational_polynomial", "equidistant")
_OTHER_NAMES = {"Brown Conrady": "plumb_bob"}  # in recordings of librealsense


@dataclass(frozen=True)
class Calibration:
    """A camera's intrinsics, comparable and hashable.

    Attributes:
        size: (H, W) of the images that they belong to, px.
        focal: fx, fy, px.
        center: cx, cy, px; the centre of the first pixel is 0, 0.
        distortion: Coefficients in the order of OpenCV; empty = none.
        model: ROS name of the distortion: plumb_bob, rational_polynomial or equidistant. Without coefficients any.

    Raises:
        InputError: A value makes no camera.

    """

    size: tuple[int, int]
    focal: tuple[float, float]
    center: tuple[float, float]
    distortion: tuple[float, ...] = ()
    model: str = "plumb_bob"
    _distorted: bool = field(init=False, repr=False, compare=False, default=False)

    def __post_init__(self) -> None:
        numbers = (*self.focal, *self.center, *self.distortion)
        if not np.isfinite(numbers).all():
            raise InputError("camera_info holds NaN or infinite numbers; calibrate the camera")
        if min(self.focal) <= 0:
            raise InputError(
                f"camera_info gives a focal length of {self.focal[0]:g} x {self.focal[1]:g}: the camera is not "
                "calibrated; calibrate it, or set the driver's calibration file"
            )
        if min(self.size) < 1:
            raise InputError(
                f"camera_info is of an image of {self.size[1]} x {self.size[0]} pixels; set its width and height"
            )
        if self.model not in _MODELS and any(self.distortion):
            raise InputError(
                f"distortion model {self.model!r} is not known; use {', '.join(_MODELS[1:])}, or rectified images"
            )
        object.__setattr__(self, "_distorted", any(self.distortion))

    @property
    def distorted(self) -> bool:
        """Whether rays are bent."""
        return self._distorted

    def scaled(self, size: tuple[int, int]) -> Calibration:
        """The same camera giving images of another size (H, W).

        Raises:
            InputError: The shapes are so different that the image must have been cropped.

        """
        if size == self.size:
            return self
        y, x = size[0] / self.size[0], size[1] / self.size[1]
        if max(x, y) > 1.02 * min(x, y):
            raise InputError(
                f"camera_info is of {self.size[1]} x {self.size[0]} pixels, the image has {size[1]} x {size[0]}, "
                "which is another shape; connect the camera_info that belongs to the image"
            )
        center = ((self.center[0] + 0.5) * x - 0.5, (self.center[1] + 0.5) * y - 0.5)
        return Calibration(size, (self.focal[0] * x, self.focal[1] * y), center, self.distortion, self.model)

    def project(self, points: np.ndarray) -> np.ndarray:
        """Pixels (N, 2) float32 of points (N, 3) in front of the camera; distortion included."""
        if not self.distorted:
            return np.stack(
                [
                    points[:, 0] / points[:, 2] * self.focal[0] + self.center[0],
                    points[:, 1] / points[:, 2] * self.focal[1] + self.center[1],
                ],
                axis=1,
            ).astype(np.float32)
        zero, camera = np.zeros(3), self._matrix()
        if self.model == "equidistant":
            points = np.ascontiguousarray(points, np.float64)[:, None]
            pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, camera, np.array(self.distortion[:4]))
        else:
            points = np.ascontiguousarray(points, np.float64)
            pixels, _ = cv2.projectPoints(points, zero, zero, camera, np.array(self.distortion))
        result: np.ndarray = pixels.reshape(-1, 2).astype(np.float32)
        return result

    def _matrix(self) -> np.ndarray:
        return np.array([[self.focal[0], 0, self.center[0]], [0, self.focal[1], self.center[1]], [0, 0, 1.0]])


class Rays(NamedTuple):
    """Directions of all pixels; a pixel's point is depth * (x, y, 1).

    Attributes:
        x: (H, W) float32, to the right.
        y: (H, W) float32, down.

    """

    x: np.ndarray
    y: np.ndarray


def make_rays(calibration: Calibration) -> Rays:
    """The undistorted directions of every pixel centre."""
    height, width = calibration.size
    columns, rows = np.arange(width, dtype=np.float64), np.arange(height, dtype=np.float64)
    if not calibration.distorted:
        x = ((columns - calibration.center[0]) / calibration.focal[0]).astype(np.float32)
        y = ((rows - calibration.center[1]) / calibration.focal[1]).astype(np.float32)
        return Rays(np.tile(x, (height, 1)), np.tile(y[:, None], (1, width)))
    pixels = np.stack(np.meshgrid(columns, rows), axis=-1).reshape(-1, 1, 2)
    matrix = calibration._matrix()
    if calibration.model == "equidistant":
        rays = cv2.fisheye.undistortPoints(pixels, matrix, np.array(calibration.distortion[:4]))
    else:
        rays = cv2.undistortPointsIter(  # the default of five steps is 0.1 px off at the border of a wide lens
            pixels,
            matrix,
            np.array(calibration.distortion),
            np.eye(3),
            np.eye(3),
            (cv2.TERM_CRITERIA_COUNT | cv2.TERM_CRITERIA_EPS, 40, 1e-8),
        )
    rays = rays.reshape(height, width, 2).astype(np.float32)
    return Rays(np.ascontiguousarray(rays[..., 0]), np.ascontiguousarray(rays[..., 1]))


class RayCache:
    """The rays of the last few calibrations; making them for a distorted camera takes some 50 ms."""

    def __init__(self, limit: int = 4) -> None:
        self._limit = limit
        self._rays: OrderedDict[Calibration, Rays] = OrderedDict()

    def __call__(self, calibration: Calibration) -> Rays:
        """Rays of a calibration."""
        if calibration not in self._rays:
            self._rays[calibration] = make_rays(calibration)
        self._rays.move_to_end(calibration)
        while len(self._rays) > self._limit:
            self._rays.popitem(last=False)
        return self._rays[calibration]


def calibration_of(
    size: tuple[int, int],
    k: Sequence[float],
    d: Sequence[float],
    model: str,
    *,
    p: Sequence[float] | None = None,
    binning: tuple[int, int] = (1, 1),
    offset: tuple[int, int] = (0, 0),
) -> Calibration:
    """A Calibration of the numbers in a sensor_msgs/CameraInfo.

    Args:
        size: (H, W) of the full picture, px.
        k: 9 numbers, row by row: the camera matrix of the raw picture.
        d: Distortion coefficients.
        model: Their model.
        p: 12 numbers: the projection of the rectified picture; given, it replaces `k` and `d`.
        binning: x, y: pixels of the full picture that one pixel covers; 0 counts as 1.
        offset: x, y of the first pixel where the picture is a cut-out of the full one.

    Raises:
        InputError: The numbers make no camera.

    """
    fx, skew, cx, fy, cy = (p[0], p[1], p[2], p[5], p[6]) if p is not None else (k[0], k[1], k[2], k[4], k[5])
    if skew and np.isfinite(skew):
        raise InputError(f"camera_info has a skew of {skew:g}, which no depth camera has; calibrate it again")
    across, down = max(binning[0], 1), max(binning[1], 1)
    return Calibration(
        (size[0] // down, size[1] // across),
        (fx / across, fy / down),
        ((cx - offset[0] + 0.5) / across - 0.5, (cy - offset[1] + 0.5) / down - 0.5),
        () if p is not None else tuple(d),
        _OTHER_NAMES.get(model, model),
    )
