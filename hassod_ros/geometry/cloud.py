"""Organised clouds: a point for each pixel, with its colour and the label of the thing that it belongs to."""

from __future__ import annotations

import numpy as np

from hassod_ros.geometry.rays import Rays

# As sensor_msgs/PointCloud2 lays it out; `rgb` holds the bits of 0x00RRGGBB, as rviz and PCL read them.
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("label", "<u4")])


class CloudMaker:
    """Makes clouds of one image size without allocating every part of them again."""

    def __init__(self) -> None:
        self._cloud = np.zeros((0, 0), POINT)

    def __call__(
        self, depth: np.ndarray, rays: Rays, colors: np.ndarray | None, labels: np.ndarray, order: str = "RGB"
    ) -> np.ndarray:
        """The cloud of a registered depth image.

        Args:
            depth: (H, W) float32 m, 0 = none.
            rays: Of its pixels.
            colors: (H, W, 3) uint8, or None for black.
            labels: (H, W) integers.
            order: RGB or BGR.

        Returns:
            (H, W) of `POINT`; x, y, z are NaN where there is no depth. Overwritten by the next call.

        """
        if self._cloud.shape != depth.shape:
            self._cloud = np.zeros(depth.shape, POINT)
        cloud = self._cloud
        z = np.where(depth > 0, depth, np.float32(np.nan))
        np.multiply(z, rays.x, out=cloud["x"])
        np.multiply(z, rays.y, out=cloud["y"])
        cloud["z"] = z
        if colors is not None:
            blue, red = (2, 0) if order == "RGB" else (0, 2)
            bytes_ = cloud.view(np.uint8).reshape(*cloud.shape, POINT.itemsize)
            for place, channel in ((12, blue), (13, 1), (14, red)):  # little-endian 0x00RRGGBB
                bytes_[..., place] = colors[..., channel]
        cloud["label"] = labels
        return cloud
