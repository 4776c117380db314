"""Near and alike patches share a score: a random walk with restart on the patch grid.

As in Zhou, Bousquet, Lal, Weston, Schoelkopf, "Learning with local and global consistency" (NIPS 2003), for saliency
Yang, Zhang, Lu, Ruan, Yang, "Saliency detection via graph-based manifold ranking" (CVPR 2013). A walker steps to near
patches, the more often the more alike they are, and goes back to where it began now and then; a patch gets the mean
score of where its walker is. What is noisy in single patches goes, edges between unlike patches stay.
"""

from __future__ import annotations

import numpy as np

_NEAR = 2  # patches that a step reaches, along both axes
_TEMPERATURE = 0.1  # of likeness by cosine
_BACK = 0.05  # share of the steps that go back to where the walker began
_STEPS = 30  # more change nothing that is seen

_Window = tuple[slice, slice]


def walked(scores: np.ndarray, vectors: np.ndarray, grid: tuple[int, ...]) -> np.ndarray:
    """(n,) float32 scores of patches, each the mean of near and alike ones.

    Args:
        scores: (h w,) of the patches, row by row.
        vectors: (h w, C) float32 of the same patches, of length 1.
        grid: (h, w).

    """
    own = np.asarray(scores, np.float64).reshape(grid)  # equal scores shall stay equal
    steps = _steps(np.ascontiguousarray(vectors).reshape(*grid, -1))
    total = np.ones_like(own)  # to itself a patch has likeness 1
    for here, there, likeness in steps:
        total[here] += likeness
        total[there] += likeness
    found = own
    for _ in range(_STEPS):
        gathered = found.copy()
        for here, there, likeness in steps:
            gathered[here] += likeness * found[there]
            gathered[there] += likeness * found[here]
        found = _BACK * own + (1 - _BACK) * gathered / total
    return found.ravel().astype(np.float32)


def _steps(vectors: np.ndarray) -> list[tuple[_Window, _Window, np.ndarray]]:
    """Pairs of windows of (h, w, C) so far apart, and the likeness of each such pair of patches; every pair once."""
    height, width = vectors.shape[:2]
    found = []
    for down in range(min(_NEAR, height - 1) + 1):
        for right in range(-min(_NEAR, width - 1), min(_NEAR, width - 1) + 1):
            if (down, right) <= (0, 0):
                continue
            here = slice(0, height - down), slice(max(0, -right), width - max(0, right))
            there = slice(down, height), slice(max(0, right), width - max(0, -right))
            cosine = np.einsum("yxc,yxc->yx", vectors[here], vectors[there])
            found.append((here, there, np.exp((cosine.astype(np.float64) - 1) / _TEMPERATURE)))
    return found
