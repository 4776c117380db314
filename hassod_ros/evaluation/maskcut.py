"""MaskCut: objects by repeated normalised cuts of patch features, the labels that CutLER learns from.

Wang, Girdhar, Yu, Misra, "Cut and Learn for Unsupervised Object Detection and Instance Segmentation", CVPR 2023,
section 3.2; the single cut is TokenCut's (Wang et al., CVPR 2022). Written from the papers as a baseline.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.ndimage import binary_fill_holes, label
from scipy.sparse.linalg import LinearOperator, eigsh

from hassod_ros.discovery.crf import refine
from hassod_ros.discovery.features.base import Features
from hassod_ros.instances import Instances

_FAINT = 1e-5  # weight of an edge between unlike patches: keeps the graph connected
_AGREE = 0.5  # IoU of a mask before and after the CRF, below which it is dropped


def maskcut(
    image: np.ndarray,
    features: Features,
    *,
    side: int = 480,
    cuts: int = 3,
    tau: float = 0.15,
    crf: bool = True,
) -> Instances:
    """At most `cuts` objects of an image, the first found first.

    Args:
        image: (H, W, 3) uint8 RGB.
        features: Patch features, such as the keys of a self-supervised ViT.
        side: The image is stretched to a square of this many pixels.
        cuts: Objects to look for (CutLER: 3).
        tau: Patches are alike above this cosine similarity (CutLER: 0.15).
        crf: Fit each mask to the image by a dense CRF of two labels; a mask that changes beyond recognition is dropped.

    """
    size = (image.shape[0], image.shape[1])
    side -= side % features.patch_size
    grid = features(cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA)[None])[0]
    patches = cut_patches(grid, cuts=cuts, tau=tau)
    masks = [
        cv2.resize(mask.astype(np.uint8), size[::-1], interpolation=cv2.INTER_NEAREST).astype(bool) for mask in patches
    ]
    if crf and masks:
        masks = _refine(image, masks)
    masks = [mask for mask in masks if mask.any()]
    if not masks:
        return Instances.empty(size)
    scores = 1 - np.arange(len(masks), dtype=np.float32) / max(cuts, 1)
    return Instances.from_dense(np.stack(masks), image_size=size, scores=scores)


def _refine(image: np.ndarray, masks: list[np.ndarray]) -> list[np.ndarray]:
    """Masks after the CRF, holes filled; without those that the CRF has changed beyond recognition."""
    sure = np.float32(1 / (1 + np.exp(-1)))  # CutLER takes the mask's values for logits
    inside = [np.where(mask, sure, 1 - sure) for mask in masks]
    groups = refine(image, [np.stack([1 - p, p]) for p in inside])
    kept = []
    for before, (background, foreground) in zip(masks, groups, strict=True):
        after = binary_fill_holes(foreground > background)
        if (before & after).sum() >= _AGREE * (before | after).sum():
            kept.append(after)
    return kept


def cut_patches(features: np.ndarray, *, cuts: int = 3, tau: float = 0.15) -> list[np.ndarray]:
    """Foregrounds of repeated normalised cuts; the patches of one are taken out before the next.

    Args:
        features: (C, h, w) float32.
        cuts: How many at most.
        tau: Least cosine similarity of like patches.

    Returns:
        (h, w) bool masks; fewer than `cuts` where nothing is left to cut.

    """
    channels, height, width = features.shape
    vectors = features.reshape(channels, -1).T.astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    free = np.ones((height, width), bool)
    found = []
    for _ in range(cuts):
        # A patch that is taken has no likeness to anything, itself included: only faint edges.
        taken = vectors * free.reshape(-1, 1)
        weights = np.where(taken @ taken.T > tau, np.float32(1), np.float32(_FAINT))
        foreground = _foreground(second_eigenvector(weights).reshape(height, width)) & free
        if not foreground.any():
            break
        found.append(foreground)
        free &= ~foreground
    return found


def second_eigenvector(weights: np.ndarray) -> np.ndarray:
    """Second smallest solution x of (D - W) x = lambda D x, D the row sums of the symmetric (N, N) weights."""
    degree = weights.sum(axis=1, dtype=np.float64)
    scale = (1 / np.sqrt(degree)).astype(np.float32)
    # The same vectors, of the largest eigenvalues of D^-1/2 W D^-1/2: Lanczos finds those quickly. Its largest, known
    # beforehand, is moved away.
    first = np.sqrt(degree / degree.sum()).astype(np.float32)

    def multiply(x: np.ndarray) -> np.ndarray:
        x = x.ravel().astype(np.float32)
        return scale * (weights @ (scale * x)) - 2 * first * (first @ x)

    operator = LinearOperator(weights.shape, matvec=multiply, dtype=np.float32)
    start = np.linspace(-1, 1, len(weights), dtype=np.float32)  # fixed: the same image gives the same masks
    _, vectors = eigsh(operator, k=1, which="LA", v0=start, tol=1e-4, maxiter=1000)
    return vectors[:, 0].astype(np.float64) * scale


def _foreground(vector: np.ndarray) -> np.ndarray:
    """The connected part, around the strongest entry, of that half of an (h, w) eigenvector which is an object.

    The strongest entry belongs to the object, unless that half holds two or more corners of the image and so is
    background.
    """
    above = vector > vector.mean()
    seed = np.unravel_index(np.abs(vector).argmax(), vector.shape)
    if not above[seed]:
        above, vector = ~above, -vector
    if above[[0, 0, -1, -1], [0, -1, 0, -1]].sum() >= 2:
        above, vector = ~above, -vector
        seed = np.unravel_index(vector.argmax(), vector.shape)
    parts, _ = label(above)
    return (parts == parts[seed]) & above
