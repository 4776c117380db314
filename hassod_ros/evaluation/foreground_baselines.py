"""Foreground of an image from its patch features alone: what HEAP and LightCluster have to be better than.

Each takes (C, h, w) features and gives (h, w) float32, 1 = foreground.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np
from scipy.ndimage import label

from hassod_ros.discovery.lightcluster import cluster
from hassod_ros.discovery.regions import above_otsu, foreground_of, on_the_border, unlike_border, vectors_of
from hassod_ros.evaluation.maskcut import second_eigenvector

_FAINT = 1e-5  # weight of an edge between unlike patches, as in TokenCut
_ALIKE = 0.2  # cosine of like patches, as in TokenCut


def whole_image(features: np.ndarray) -> np.ndarray:
    """Everything is foreground."""
    return np.ones(features.shape[1:], np.float32)


def border_prior(features: np.ndarray) -> np.ndarray:
    """What is unlike the border, see `regions.unlike_border`, above Otsu's threshold."""
    return above_otsu(_unlike(vectors_of(features), features.shape[1:])).reshape(features.shape[1:]).astype(np.float32)


def shared_border_prior(features: np.ndarray) -> np.ndarray:
    """The border prior where near and alike patches share it and bridges are cut, as in HEAP and LightCluster."""
    vectors, grid = vectors_of(features), features.shape[1:]
    return foreground_of(_unlike(vectors, grid), vectors, grid).astype(np.float32)


def principal_component(features: np.ndarray) -> np.ndarray:
    """Otsu on the first principal component; the side that holds more than half of the border is background."""
    grid = (features.shape[1], features.shape[2])
    vectors = vectors_of(features)
    left, _, _ = np.linalg.svd(vectors - vectors.mean(axis=0), full_matrices=False)
    side = above_otsu(left[:, 0]).reshape(grid)
    if side[on_the_border(grid)].mean() > 0.5:
        side = ~side
    return side.astype(np.float32)


def tokencut(features: np.ndarray) -> np.ndarray:
    """The object of one normalised cut: Wang et al., "Self-supervised transformers for unsupervised object discovery
    using normalized cut", CVPR 2022, section 3.

    Patches are alike above a cosine of 0.2. The second eigenvector is split at its mean; the side of its largest
    absolute entry is foreground, of it the connected part around that entry.
    """
    grid = (features.shape[1], features.shape[2])
    vectors = vectors_of(features)
    weights = np.where(vectors @ vectors.T > _ALIKE, np.float32(1), np.float32(_FAINT))
    vector = second_eigenvector(weights).reshape(grid)
    side = vector > vector.mean()
    seed = np.unravel_index(np.abs(vector).argmax(), grid)
    if not side[seed]:
        side = ~side
    parts, _ = label(side)
    return np.asarray(parts == parts[seed], np.float32)


def _unlike(vectors: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    return unlike_border(vectors, on_the_border((grid[0], grid[1])).ravel())


BASELINES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = {
    "whole": whole_image,
    "border": border_prior,
    "border_shared": shared_border_prior,
    "otsu": principal_component,
    "tokencut": tokencut,
}


def plain_kmeans(samples: Iterable[np.ndarray], clusters: int, *, most_images: int = 1024, seed: int = 0) -> np.ndarray:
    """(clusters, C) centres of patches of (C, h, w) samples: classes without any notion of foreground."""
    vectors = [vectors_of(sample.astype(np.float32)) for _, sample in zip(range(most_images), samples, strict=False)]
    return cluster(np.concatenate(vectors), clusters, seed)
