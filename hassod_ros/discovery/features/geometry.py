"""Depth as features: surface normal, height over the largest plane, and position of every patch.

Things and table tops of one colour are told apart. They belong to one picture, since the extractor of the others sees
pixels only: join them anew for each picture with depth (`with_depth`).
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from hassod_ros.discovery.features.base import Features, check_images
from hassod_ros.discovery.features.joined import JoinedFeatures
from hassod_ros.errors import InputError
from hassod_ros.geometry.planes import make_grid
from hassod_ros.geometry.rays import Rays

_HEIGHT_PERIOD = 0.4  # m over which the angle that stands for a height goes once round
_POSITION_PERIOD = 1.2  # m, of a position
_CLEAR = np.float32(0.02)  # m: a patch of less is flat on the plane


class GeometryFeatures:
    """Features of one depth image; see `Features`.

    Channels: the normal, then cosine and sine of height and of the position's three coordinates. Each is centred over
    the image, so that unlike patches have negative cosines, as those of the handcrafted features.

    Args:
        depth: (H, W) float32 metres of the picture, 0 = none.
        rays: Of its pixels.
        patch_size: Side of a patch in pixels of the prepared picture.

    Raises:
        InputError: There is no depth.

    """

    dim = 11

    def __init__(self, depth: np.ndarray, rays: Rays, patch_size: int) -> None:
        if not (depth > 0).any():
            raise InputError("the depth image holds no valid pixel; check the depth camera")
        self.name = "geometry"
        self.patch_size = patch_size
        self.weights_sha256 = hashlib.sha256(b"geometry 1").hexdigest()
        self._depth, self._rays = depth, rays
        planes = make_grid(depth, rays).planes
        self._plane = planes[0] if planes else None

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(1, H', W', 3) uint8, the picture at any size -> (1, C, h, w) float32."""
        check_images(images, self.patch_size)
        if len(images) != 1:
            raise InputError(f"geometry features are of one picture, got {len(images)}")
        size = (images.shape[2] // self.patch_size, images.shape[1] // self.patch_size)
        points = self._points(size)  # (h, w, 3)
        height = np.zeros(points.shape[:2], np.float32)
        if self._plane is not None:
            height = np.maximum(self._plane.heights(points), 0)
            height[height < _CLEAR] = 0
        channels = [_normals(points), *_circle(height[..., None], _HEIGHT_PERIOD), *_circle(points, _POSITION_PERIOD)]
        features = np.concatenate(channels, axis=2)
        features -= features.mean((0, 1))
        return np.ascontiguousarray(features.transpose(2, 0, 1)[None], np.float32)

    def _points(self, size: tuple[int, int]) -> np.ndarray:
        """(h, w, 3) mean point of each patch; patches without depth get the nearest one's."""
        z = self._depth
        seen = (z > 0).astype(np.float32)
        sums = np.stack([z * self._rays.x, z * self._rays.y, z, seen], axis=2)
        sums = cv2.resize(sums, size, interpolation=cv2.INTER_AREA)
        share = sums[..., 3]
        empty = (share < 0.2).astype(np.uint8)
        points: np.ndarray = sums[..., :3] / np.maximum(share, np.float32(1e-6))[..., None]
        if empty.any() and not empty.all():
            _, nearest = cv2.distanceTransformWithLabels(empty, cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL)
            table = np.zeros((nearest.max() + 1, 3), np.float32)
            table[nearest[empty == 0]] = points[empty == 0]
            points = table[nearest]
        return points


def with_depth(features: Features, depth: np.ndarray, rays: Rays) -> JoinedFeatures:
    """An extractor for one picture: other features and its geometry, each of the same weight.

    Args:
        features: Any other extractor.
        depth: (H, W) float32 metres of the picture, 0 = none.
        rays: Of its pixels.

    Example:
        >>> discover(image, with_depth(load_features("handcrafted"), depth, rays))  # doctest: +SKIP

    """
    return JoinedFeatures([features, GeometryFeatures(depth, rays, features.patch_size)])


def _circle(values: np.ndarray, period: float) -> tuple[np.ndarray, np.ndarray]:
    """(h, w, C) as points on a circle, whose cosine says how near two of them are."""
    angle = values * np.float32(2 * np.pi / period)
    return np.cos(angle), np.sin(angle)


def _normals(points: np.ndarray) -> np.ndarray:
    """(h, w, 3) of length 1, towards the camera; 0 where neighbours lie at one point."""
    padded = np.pad(points, ((1, 1), (1, 1), (0, 0)), mode="edge")
    across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    normals = np.cross(down, across)
    lengths = np.linalg.norm(normals, axis=2, keepdims=True)
    result: np.ndarray = normals / np.maximum(lengths, 1e-12)
    return result.astype(np.float32)
