"""Frame: one picture of a recording, a video or a folder, with what was recorded beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

Say = Callable[[str], object]


class CameraInfo(NamedTuple):
    """Intrinsics, as sensor_msgs/CameraInfo has them.

    Attributes:
        size: (H, W) in pixels.
        k: (9,) camera matrix, row by row.
        d: Distortion coefficients.
        distortion_model: Name, such as plumb_bob.
        r: (9,) rectification.
        p: (12,) projection.
        frame_id: Of the header.

    """

    size: tuple[int, int]
    k: tuple[float, ...]
    d: tuple[float, ...]
    distortion_model: str
    r: tuple[float, ...]
    p: tuple[float, ...]
    frame_id: str


@dataclass(frozen=True, eq=False)
class Frame:
    """One picture of a camera.

    Attributes:
        camera: Topic without `/compressed`, or file name of a video.
        stamp: When it was taken, ns.
        pixels: (H, W, 3) uint8 RGB.
        encoded: The recorded bytes where they are a JPEG file; None otherwise.
        frame_id: Of the header.
        info: The camera's intrinsics, where they were recorded before it.
        depth: (H', W') float32 in metres, NaN where there is none; None without a depth image of this time.
        depth_info: The depth camera's intrinsics.

    """

    camera: str
    stamp: int
    pixels: np.ndarray
    encoded: bytes | None = None
    frame_id: str = ""
    info: CameraInfo | None = None
    depth: np.ndarray | None = None
    depth_info: CameraInfo | None = None
