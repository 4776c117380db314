"""Depth images onto the pixels of another camera."""

from __future__ import annotations

import cv2
import numpy as np

from hassod_ros.geometry.rays import Calibration, Rays

_SPLAT = 2  # px; a depth pixel covers this much more where the colour image is finer


def same_place(depth: np.ndarray, camera: Calibration, image: Calibration, rays: Rays) -> np.ndarray:
    """Depth of each pixel of an image that was taken from the same place, with other intrinsics or of another size.

    Args:
        depth: (h, w) float32 m, 0 = none.
        camera: Of the depth image, `camera.size` (h, w).
        image: Of the image, `image.size` (H, W).
        rays: Of the image.

    Returns:
        (H, W) float32 m; 0 where the depth image does not reach.

    """
    if camera == image:
        return depth
    points = np.stack([rays.x.ravel(), rays.y.ravel(), np.ones(rays.x.size, np.float32)], axis=1)
    pixels = camera.project(points).reshape(*rays.x.shape, 2)
    # Nearest: a mean of two depths would be a point in the air between two things.
    return cv2.remap(depth, pixels[..., 0], pixels[..., 1], cv2.INTER_NEAREST, borderMode=cv2.BORDER_CONSTANT)


def reproject(depth: np.ndarray, rays: Rays, image: Calibration, transform: np.ndarray) -> np.ndarray:
    """Depth as another camera would see it.

    Args:
        depth: (h, w) float32 m, 0 = none.
        rays: Of the depth image.
        image: The other camera, of (H, W) pixels.
        transform: (4, 4) from the depth camera's frame to the other's.

    Returns:
        (H, W) float32 m along the other camera's axis; the nearest point wins; 0 = none.

    """
    z = depth.ravel()
    seen = np.flatnonzero(z)
    z = z.take(seen)
    points = np.stack([z * rays.x.ravel().take(seen), z * rays.y.ravel().take(seen), z], axis=1)
    points = points @ transform[:3, :3].T.astype(np.float32) + transform[:3, 3].astype(np.float32)
    points = points.take(np.flatnonzero(points[:, 2] > 1e-3), axis=0)
    pixels = np.rint(image.project(points)).astype(np.int64)
    height, width = image.size
    inside = np.flatnonzero(((pixels >= 0) & (pixels < (width, height))).all(1))
    order = inside[np.argsort(-points[inside, 2], kind="stable")]  # the last one written is the nearest
    result = np.zeros(image.size, np.float32)
    result[pixels[order, 1], pixels[order, 0]] = points[order, 2]
    # Pixels between the points, where the image is finer or nearer: the nearest depth around them.
    scale = max(1, round(height / depth.shape[0] * _SPLAT))
    kernel = np.ones((scale + 1, scale + 1), np.uint8)
    around = cv2.erode(np.where(result > 0, result, np.float32(np.inf)), kernel)
    closed = cv2.erode(cv2.dilate((result > 0).astype(np.uint8), kernel), kernel)
    return np.where((result == 0) & (closed > 0) & np.isfinite(around), around, result)
