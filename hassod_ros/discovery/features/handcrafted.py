"""Training-free features: colour and texture, so that everything runs without weights and without torch.

Each patch of 8x8 pixels is described by its mean Lab colour, the strength and direction of its gradients at three
scales (structure tensors: energy, and the direction as a doubled angle), and weakly by its place. Descriptors are
smoothed along regions but not across edges. Random Fourier features (Rahimi and Recht, 2007) of them then have a cosine
near the Gaussian kernel of two descriptors, and a sum of them describes the distribution within a region, which is what
HASSOD's clustering compares. The mean over the image is taken out, so that unlike patches fall below zero.

Likeness alone parts a red sleeve from a white shirt. A second group of channels of equal weight therefore tells what
occurs side by side in this image, see `co_occurrence`: the same Fourier features, without place and smoothing,
projected onto what a patch shares with its surroundings.
"""

from __future__ import annotations

import hashlib

import cv2
import numpy as np

from hassod_ros.discovery.features import co_occurrence
from hassod_ros.discovery.features.base import HANDCRAFTED, check_images
from hassod_ros.discovery.features.joined import even
from hassod_ros.errors import InputError

PATCH = 8
FREQUENCIES = 128
SCALES = (1, 2, 4)
LOOKS = 3 + 3 * len(SCALES)  # channels of a descriptor without its place
COLOUR_WEIGHT = (0.7, 1.6, 1.6)  # lightness counts less: shading is not a border
TEXTURE_WEIGHT = 0.45
POSITION_WEIGHT = 0.35
SMOOTHING_STEPS = 6
EDGE = 0.35  # descriptor distance, in units of the image's own spread, at which smoothing stops
BANDWIDTH = 0.45  # of the kernel, in units of the image's own spread
CENTRING = 0.9  # share of the image's mean that is taken out
CO_OCCURRENCE_BANDWIDTH = 0.7
CO_OCCURRENCE_CHANNELS = 32
THRESHOLDS = (0.6, 0.4, 0.2, 0.0, -0.15, -0.3)  # of merging that suit these features: wholes come together below 0


class HandcraftedFeatures:
    """Colour and texture features of 8x8 patches; see `Features`. Equal images give equal features."""

    name = HANDCRAFTED
    patch_size = PATCH
    dim = 2 * FREQUENCIES + CO_OCCURRENCE_CHANNELS

    def __init__(self) -> None:
        self._frequencies = _orthogonal_gaussian(LOOKS + 2, FREQUENCIES, seed=0)
        settings: tuple[object, ...] = (SCALES, COLOUR_WEIGHT, TEXTURE_WEIGHT, POSITION_WEIGHT, SMOOTHING_STEPS, EDGE)
        settings += (BANDWIDTH, CENTRING, CO_OCCURRENCE_BANDWIDTH, CO_OCCURRENCE_CHANNELS)
        settings += (co_occurrence.RADIUS, co_occurrence.RIDGE)
        self.weights_sha256 = hashlib.sha256(self._frequencies.tobytes() + repr(settings).encode()).hexdigest()

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, 288, H / 8, W / 8) float32; see `Features`."""
        check_images(images, PATCH)
        descriptors = [describe(image) for image in images]
        alike = np.stack([self._alike(one) for one in descriptors])
        together = np.stack([self._together(one) for one in descriptors])
        features = np.concatenate([even(alike), even(together)], axis=1)
        if not np.isfinite(features).all():
            raise InputError("handcrafted features are not finite; the image or OpenCV's build is broken")
        return features

    def _alike(self, descriptors: np.ndarray) -> np.ndarray:
        """(h, w, D) -> (256, h, w): the cosine of two patches tells how alike they are."""
        waves = self._waves(_smooth_regions(descriptors), BANDWIDTH * _spread(descriptors))
        waves -= CENTRING * waves.mean(axis=(0, 1))
        return waves.transpose(2, 0, 1)

    def _together(self, descriptors: np.ndarray) -> np.ndarray:
        """(h, w, D) -> (32, h, w): the cosine of two patches tells how often their likes are neighbours."""
        looks = descriptors.copy()
        looks[..., -2:] = 0  # all but the place
        waves = self._waves(looks, CO_OCCURRENCE_BANDWIDTH * _spread(looks))
        return co_occurrence.co_occurrence(waves, CO_OCCURRENCE_CHANNELS).transpose(2, 0, 1)

    def _waves(self, descriptors: np.ndarray, bandwidth: float) -> np.ndarray:
        """(h, w, D) -> (h, w, 256) random Fourier features."""
        phases = descriptors @ (self._frequencies / np.float32(max(bandwidth, 1e-3)))
        return np.concatenate([np.cos(phases), np.sin(phases)], axis=2) * np.float32(FREQUENCIES**-0.5)


def _spread(descriptors: np.ndarray) -> float:
    """Standard deviation of (h, w, D) descriptors over the image, all channels together."""
    return float(np.sqrt(descriptors.var(axis=(0, 1)).sum()))


def describe(image: np.ndarray) -> np.ndarray:
    """Colour, texture and place of every patch.

    Args:
        image: (H, W, 3) uint8 RGB, sides multiples of 8.

    Returns:
        (h, w, 14) float32 with h = H / 8: Lab colour, three texture channels per scale, x and y. Units are such that
        about 1 is a clear difference.

    """
    height, width = image.shape[0] // PATCH, image.shape[1] // PATCH
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2Lab)
    channels = [cv2.resize(lab, (width, height), interpolation=cv2.INTER_AREA).astype(np.float32) / 32 * COLOUR_WEIGHT]
    light = np.ascontiguousarray(lab[..., 0])
    for scale in SCALES:
        small = cv2.resize(light, (width * PATCH // scale, height * PATCH // scale), interpolation=cv2.INTER_AREA)
        dx = cv2.Sobel(small, cv2.CV_32F, 1, 0, scale=1 / 128)
        dy = cv2.Sobel(small, cv2.CV_32F, 0, 1, scale=1 / 128)
        tensor = cv2.merge([dx * dx + dy * dy, dx * dx - dy * dy, 2 * dx * dy])
        tensor = cv2.GaussianBlur(cv2.resize(tensor, (width, height), interpolation=cv2.INTER_AREA), (3, 3), 0)
        # Roots, so that one strong edge does not outweigh a texture; the direction keeps its share of the energy.
        energy = np.maximum(tensor[..., :1], 1e-8)
        channels.append(np.concatenate([energy**0.25 * 2, tensor[..., 1:] / energy**0.75], axis=2) * TEXTURE_WEIGHT)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    place = np.stack([x / width, y / height], axis=2)
    channels.append(place * (2 * POSITION_WEIGHT))
    return np.concatenate(channels, axis=2, dtype=np.float32)


def describe_regions(image: np.ndarray) -> np.ndarray:
    """What `describe` says, smoothed along regions but not across edges: same arguments, same channels."""
    return _smooth_regions(describe(image))


def _smooth_regions(descriptors: np.ndarray) -> np.ndarray:
    return _smooth(descriptors, EDGE * _spread(descriptors), SMOOTHING_STEPS)


def _smooth(descriptors: np.ndarray, edge: float, steps: int) -> np.ndarray:
    """Average (h, w, D) descriptors with their four neighbours, weighted by likeness: edges wider than `edge` stay."""
    if edge <= 0:
        return descriptors
    for _ in range(steps):
        total, weights = descriptors.copy(), np.ones((*descriptors.shape[:2], 1), np.float32)
        for axis in (0, 1):
            difference = np.diff(descriptors, axis=axis)
            weight = np.exp(-np.square(difference).sum(2, keepdims=True) / (2 * edge * edge))
            low = (slice(None, -1),) if axis == 0 else (slice(None), slice(None, -1))
            high = (slice(1, None),) if axis == 0 else (slice(None), slice(1, None))
            weights[low] += weight
            weights[high] += weight
            total[low] += weight * descriptors[high]
            total[high] += weight * descriptors[low]
        descriptors = total / weights
    return descriptors


def _orthogonal_gaussian(rows: int, columns: int, seed: int) -> np.ndarray:
    """(rows, columns) float32 Gaussian frequencies, orthogonal in blocks: nearer the kernel (Yu et al., 2016)."""
    rng = np.random.default_rng(seed)
    blocks = []
    for _ in range(-(-columns // rows)):
        directions, _ = np.linalg.qr(rng.standard_normal((rows, rows)))
        lengths = np.linalg.norm(rng.standard_normal((rows, rows)), axis=0)
        blocks.append(directions * lengths)
    return np.concatenate(blocks, axis=1)[:, :columns].astype(np.float32)
