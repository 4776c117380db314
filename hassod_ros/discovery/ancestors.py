"""Which masks may be parents: what is probably scene has no parts, and a whole is about as likely as its parts.

Among hundreds of masks of a picture there is always one that contains another by chance: a wall with all that hangs on
it. Coverage alone (HASSOD, section 3.2) makes that the whole of everything. All of this is ours.
"""

from __future__ import annotations

import numpy as np

from hassod_ros.discovery.filters import Masks
from hassod_ros.masks import mask_areas

_LARGEST = 0.7  # share of the picture; what is larger is scene
_LEAST = 0.05  # share of the picture; what is smaller is no scene, wherever it lies
_BORDER = (
    1.3  # pixels along the picture's border beside the root of the area; a square at one side has 1, in a corner 2
)
_LIKELY = 0.7  # a parent's score beside its child's


def possible_parents(masks: Masks, size: tuple[int, int]) -> np.ndarray:
    """(N, N) bool, whether each mask (row) may have each other (column) as parent, if that covers it.

    Args:
        masks: N masks with the scores of `rank.ranked`.
        size: Height and width of the picture, px.

    """
    height, width = size
    areas = mask_areas(masks.crops)
    scene = areas > _LARGEST * height * width
    for n in np.flatnonzero(~scene & (areas > _LEAST * height * width)).tolist():
        (x0, y0, x1, y1), mask = masks.regions[n].tolist(), masks.crops[n]
        ends = ((y0 == 0, mask[0]), (y1 == height, mask[-1]), (x0 == 0, mask[:, 0]), (x1 == width, mask[:, -1]))
        scene[n] = sum(np.count_nonzero(line) for there, line in ends if there) > _BORDER * areas[n] ** 0.5
    return ~scene[None] & (masks.scores[None] >= _LIKELY * masks.scores[:, None])
