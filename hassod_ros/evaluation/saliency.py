"""How good are foreground maps: the measures of salient object detection, each map against one mask.

* F-beta: Achanta et al., "Frequency-tuned salient region detection", CVPR 2009; beta^2 = 0.3. The largest over 256
  thresholds of the curve that is averaged over the images.
* IoU and pixel accuracy at the threshold 0.5, as TokenCut and FOUND report them.
* MAE: Perazzi et al., "Saliency filters", CVPR 2012.
* S-measure: Fan et al., "Structure-measure", ICCV 2017; alpha = 0.5.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hassod_ros.errors import InputError

BETA2 = 0.3
LEVELS = 256  # thresholds of the F-beta curve
COLUMNS = ("maxF", "IoU", "accuracy", "MAE", "S")
_ALPHA = 0.5  # weight of objects against regions in the S-measure
_TINY = np.finfo(np.float64).eps


def score_map(found: np.ndarray, truth: np.ndarray) -> dict[str, Any]:
    """The measures of one image.

    Args:
        found: (H, W) float, foreground in [0, 1].
        truth: (H, W) bool.

    Returns:
        `IoU`, `accuracy`, `MAE`, `S` as floats and `F`, the (256,) float64 curve over the thresholds 0/255 to 255/255
        (a pixel is foreground where the map, in steps of 1/255, reaches the threshold).

    Raises:
        InputError: The sizes differ, or the map is not finite or outside [0, 1].

    """
    if found.shape != truth.shape or found.ndim != 2:
        raise InputError(
            f"a foreground map of {found.shape} does not fit a mask of {truth.shape}; give maps and masks "
            "of the same pictures at the same size"
        )
    if not np.isfinite(found).all() or found.min(initial=0) < 0 or found.max(initial=0) > 1:
        raise InputError("a foreground map must hold values from 0 to 1; write it as an 8-bit grey picture")
    found, truth = found.astype(np.float64), truth.astype(bool)
    binary = found >= 0.5
    union = np.count_nonzero(binary | truth)
    return {
        "F": f_curve(found, truth),
        "IoU": np.count_nonzero(binary & truth) / union if union else 1.0,
        "accuracy": float((binary == truth).mean()),
        "MAE": float(np.abs(found - truth).mean()),
        "S": s_measure(found, truth),
    }


def score_maps(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """`mean_scores` of `score_map` of each map and mask; errors as there."""
    return mean_scores([score_map(found, truth) for found, truth in pairs])


def mean_scores(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Means over images of `score_map`, with `maxF` of the mean curve and the `IoU std` over the images.

    Raises:
        InputError: There is no image.

    """
    if not rows:
        raise InputError("there is no image to score; check the folder of maps")
    means = {name: float(np.mean([row[name] for row in rows])) for name in COLUMNS if name in rows[0]}
    curve = np.mean([row["F"] for row in rows], axis=0)
    return {"maxF": float(curve.max()), **means, "IoU std": float(np.std([row["IoU"] for row in rows]))}


def f_curve(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(256,) F-beta at the thresholds 0/255 to 255/255; 0 where nothing is hit."""
    steps = (np.clip(found, 0, 1) * (LEVELS - 1)).astype(np.uint8)
    hits = np.bincount(steps[truth], minlength=LEVELS)[::-1].cumsum()[::-1].astype(np.float64)
    chosen = np.bincount(steps.ravel(), minlength=LEVELS)[::-1].cumsum()[::-1]
    precision, recall = hits / np.maximum(chosen, 1), hits / max(int(np.count_nonzero(truth)), 1)
    weighted = BETA2 * precision + recall
    return np.where(weighted > 0, (1 + BETA2) * precision * recall / np.where(weighted > 0, weighted, 1), 0.0)


def s_measure(found: np.ndarray, truth: np.ndarray) -> float:
    """Structure: half how evenly object and background are met, half the likeness of four quarters (SSIM)."""
    share = truth.mean()
    if share in (0.0, 1.0):
        return float(found.mean() if share else 1 - found.mean())
    objects = share * _evenness(found[truth]) + (1 - share) * _evenness(1 - found[~truth])
    return float(max(0.0, _ALPHA * objects + (1 - _ALPHA) * _quarters(found, truth)))


def _evenness(values: np.ndarray) -> float:
    """2 mean / (mean^2 + 1 + deviation), with the sample deviation."""
    mean = values.mean()
    deviation = values.std(ddof=1) if len(values) > 1 else 0.0
    return float(2 * mean / (mean * mean + 1 + deviation + _TINY))


def _quarters(found: np.ndarray, truth: np.ndarray) -> float:
    """Structural similarity of the four parts around the centre of the mask, weighted by their areas."""
    height, width = truth.shape
    y, x = (int(np.round(places.mean())) + 1 for places in np.nonzero(truth))
    total = 0.0
    for rows, columns in ((s, t) for s in (slice(0, y), slice(y, None)) for t in (slice(0, x), slice(x, None))):
        part, mask = found[rows, columns], truth[rows, columns].astype(np.float64)
        if part.size:
            total += part.size / (height * width) * _likeness(part, mask)
    return total


def _likeness(a: np.ndarray, b: np.ndarray) -> float:
    """The paper's SSIM without constants, over all pixels as one window."""
    n = max(a.size - 1, 1)
    mean_a, mean_b = a.mean(), b.mean()
    variance_a, variance_b = ((a - mean_a) ** 2).sum() / n, ((b - mean_b) ** 2).sum() / n
    covariance = ((a - mean_a) * (b - mean_b)).sum() / n
    above = 4 * mean_a * mean_b * covariance
    below = (mean_a**2 + mean_b**2) * (variance_a + variance_b)
    if above != 0:
        return float(above / (below + _TINY))
    return 1.0 if below == 0 else 0.0
