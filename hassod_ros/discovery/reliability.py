"""How far groups of patches are to be believed: by what they explain of how unlike the border the patches are.

The share r of the variance that lies between groups (Fisher's analysis of variance; the intraclass correlation). As in
empirical Bayes estimates (Efron and Morris, "Data analysis using Stein's estimator and its generalizations", JASA 1975)
a patch gets r of what its groups say and 1 - r of what it says itself: groups that explain nothing have no say.
"""

from __future__ import annotations

import numpy as np


def explained(own: np.ndarray, assignment: np.ndarray, known: np.ndarray | float = 0.0, patches: float = 0.0) -> float:
    """Share of the variance of `own` that the groups' means explain, in [0, 1]; 0 where `own` has none.

    >>> in_two = np.array([[1, 0], [1, 0], [0, 1], [0, 1]])
    >>> explained(np.array([1.0, 3, -3, -1]), in_two)  # the means are 2 and -2
    0.8
    >>> explained(np.array([1.0, 3, -3, -1]), np.full((4, 2), 0.5))
    0.0

    Args:
        own: (n,) how unlike the border each patch of an image is, see `regions.unlike_border`.
        assignment: (n, K), share of each patch in each group; adds up to 1 over K. Where groups hardly differ, each
            patch has a share in all, and they explain little.
        known: (K,) means that are known before.
        patches: How many patches these count as.

    """
    sizes = assignment.sum(axis=0) + patches
    means = (own @ assignment + patches * known) / np.maximum(sizes, 1e-6)
    total = float(own.var())
    return min(float((assignment @ means).var()) / total, 1.0) if total > 0 else 0.0
