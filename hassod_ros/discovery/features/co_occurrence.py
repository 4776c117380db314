"""What occurs side by side belongs together: a projection learned from the neighbourhoods of a single image.

Within an object unlike materials keep meeting, across its border they meet by chance (Isola et al., 2014 and 2015). The
projection is that whose values agree most between a patch and its neighbourhood: the generalised eigenvectors of the
covariance between the two against the covariance of patches. That is linear slow feature analysis (Wiskott and
Sejnowski, 2002) over space instead of time, and the closed form of spectral contrastive learning (HaoChen et al., 2021)
for linear features. Nothing is kept from one image to the next.
"""

from __future__ import annotations

import cv2
import numpy as np
from scipy.linalg import eigh

RADIUS = 2.5  # standard deviation of a patch's neighbourhood, patches
_MOST_CHANNELS = 128  # of an array that OpenCV 5 filters; OpenCV 4 took 512
RIDGE = 0.2  # of the patches' mean variance: keeps directions out that are rare rather than steady


def co_occurrence(features: np.ndarray, dim: int) -> np.ndarray:
    """Project patch features onto what agrees best with its surroundings.

    Args:
        features: (h, w, C) float32 of one image.
        dim: Directions to keep, at most C.

    Returns:
        (h, w, dim) float32 with a mean of 0, the steadiest direction last. Each is weighted by its agreement: about 1
        where it is constant over regions, 0 where neighbours agree no better than by chance. Zeros where all patches
        are equal.

    """
    height, width, channels = features.shape
    centred = features - features.mean(axis=(0, 1))
    parts = np.array_split(centred, -(-channels // _MOST_CHANNELS), axis=2)
    blurred = [cv2.GaussianBlur(part, (0, 0), RADIUS, borderType=cv2.BORDER_REPLICATE) for part in parts]
    around = np.concatenate([part.reshape(height, width, -1) for part in blurred], axis=2)  # cv2 drops a lone channel
    patches, around = centred.reshape(-1, channels), around.reshape(-1, channels)
    within = (patches.T @ patches).astype(np.float64) / len(patches)
    between = (patches.T @ around).astype(np.float64) / len(patches)
    variance = np.trace(within) / channels
    if variance < 1e-12:
        return np.zeros((height, width, dim), np.float32)
    agreement, directions = eigh(
        (between + between.T) / 2,
        within + RIDGE * variance * np.eye(channels),
        subset_by_index=(channels - dim, channels - 1),
        check_finite=False,
    )
    weighted = directions * np.maximum(agreement, 0)
    return (patches @ weighted.astype(np.float32)).reshape(height, width, dim)
