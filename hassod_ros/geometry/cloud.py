"""Organised clouds: a point for each pixel, with its colour and the label of the thing that it belongs to."""

from __future__ import annotations

import cv2
import numpy as np

from hassod_ros.geometry.rays import Rays

# As sensor_msgs/PointCloud2 lays it out; `rgb` holds the bits of 0x00RRGGBB, as rviz and PCL read them.
POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("label", "<u4")])


class CloudMaker:
    """Makes clouds of one image size without allocating every part of them again."""

    def __init__(self) -> None:
        self._cloud = np.zeros((0, 0), POINT)
        self._rgb = np.zeros((0, 0, 4), np.uint8)
        self._xyz = np.zeros((3, 0, 0), np.float32)

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
            self._rgb = np.zeros((*depth.shape, 4), np.uint8)
            self._xyz = np.zeros((3, *depth.shape), np.float32)
        x, y, z = self._xyz
        cv2.threshold(depth, 0, np.nan, cv2.THRESH_BINARY_INV, dst=z)  # NaN where there is no depth, else 0
        cv2.add(depth, z, dst=z)
        cv2.multiply(z, rays.x, dst=x)
        cv2.multiply(z, rays.y, dst=y)
        if colors is None:
            self._rgb[:] = 0
        else:  # little-endian 0x00RRGGBB
            from_to = [2, 0, 1, 1, 0, 2] if order == "RGB" else [0, 0, 1, 1, 2, 2]
            cv2.mixChannels([colors], [self._rgb], from_to)
        # One pass over the cloud: five strided ones take several times as long.
        parts = [
            x,
            y,
            z,
            self._rgb.view(np.float32)[..., 0],
            np.asarray(labels, np.uint32).view(np.float32),
        ]
        cv2.merge(parts, self._cloud.view(np.float32).reshape(*depth.shape, len(parts)))
        return self._cloud
