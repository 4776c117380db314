"""Constants of the dense CRF."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from hassod_ros.errors import InputError

Method = Literal["native", "pydensecrf"]

FLOOR = 1e-5  # least probability of the unary term, as pydensecrf's unary_from_softmax has it


@dataclass(frozen=True)
class CRFConfig:
    """Constants of the CRF; the defaults are the paper's."""

    gaussian_sxy: float = 3.0  # standard deviation of the Gaussian kernel, px
    gaussian_compat: float = 7.0  # its weight
    bilateral_sxy: float = 50.0  # standard deviations of the bilateral kernel, px ...
    bilateral_srgb: float = 5.0  # ... and colour steps of 0..255
    bilateral_compat: float = 10.0  # its weight
    iterations: int = 10  # mean field steps, at most
    # A group stops when an iteration changes the most likely label of a smaller share of the pixels than this, e.g.
    # 1e-4; every group for itself, so that its result does not depend on the others. None: all iterations.
    stop_at: float | None = None

    def __post_init__(self) -> None:
        sizes = (self.gaussian_sxy, self.bilateral_sxy, self.bilateral_srgb)
        if not all(np.isfinite(sizes)) or min(sizes) <= 0:
            raise InputError(f"the CRF's standard deviations must be above 0, got {sizes}")
        if not (0 <= self.gaussian_compat < np.inf and 0 <= self.bilateral_compat < np.inf):
            raise InputError("the CRF's compatibilities must be finite and not negative")
        if self.iterations < 0:
            raise InputError(f"the CRF's iterations must not be negative, got {self.iterations}")
        if self.stop_at is not None and not 0 <= self.stop_at <= 1:
            raise InputError(f"the CRF's stop_at is a share of the pixels, 0 to 1 or None, got {self.stop_at}")


PAPER = CRFConfig()
