"""From a view of a part to OK, NG with findings, or UNDECIDED."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import cv2
import numpy as np

from hassod_ros.inspection.align import Alignment
from hassod_ros.inspection.light import Light


class Result(IntEnum):
    """What became of a part; values of hassod_msgs/Verdict."""

    UNDECIDED = 0
    OK = 1
    NG = 2


class Kind(IntEnum):
    """Of a finding; values of hassod_msgs/Finding."""

    DEFECT = 0
    MISSING = 1
    EXTRA = 2
    MOVED = 3
    CHANGED = 4


TIMES = "x good"


@dataclass(frozen=True)
class Finding:
    """One way in which a part differs from what was taught.

    Attributes:
        kind: What happened.
        component: Counted from 1; 0 = none, or the whole part.
        box: x0, y0, x1, y1 in pixels of the picture, whole numbers inside it.
        measured: In `unit`.
        limit: In `unit`; measured is above it.
        unit: "x good" (times what good pictures show among themselves), "px" or "deg".
        sentence: For a person.

    """

    kind: Kind
    component: int
    box: tuple[int, int, int, int]
    measured: float
    limit: float
    unit: str
    sentence: str

    @property
    def severity(self) -> float:
        """Measured over its limit."""
        return self.measured / self.limit if self.limit > 0 else np.inf


@dataclass(frozen=True)
class Verdict:
    """What became of a part.

    Attributes:
        result: UNDECIDED, OK or NG.
        sentence: Why, for a person.
        score: Largest measured value over its limit; above 1 the part is NG.
        findings: The worst first; empty unless it is NG.
        alignment: How the part lay; None where that was not found out.
        light: What its light was changed by, likewise.
        warning: What will soon keep parts from being judged, "" where nothing will.
        heat: (h, w) float32, measured over limit at each place of the reference; None where nothing was measured.

    """

    result: Result
    sentence: str
    score: float = 0.0
    findings: tuple[Finding, ...] = ()
    alignment: Alignment | None = None
    light: Light | None = None
    warning: str = ""
    heat: np.ndarray | None = field(default=None, repr=False)

    def heatmap(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) float32 of a picture of that size: measured over limit at each pixel, 0 where nothing was measured."""
        if self.heat is None:
            return np.zeros(size, np.float32)
        if self.alignment is None:
            return cv2.resize(self.heat, (size[1], size[0]), interpolation=cv2.INTER_LINEAR)
        back = cv2.invertAffineTransform(self.alignment.matrix)
        return cv2.warpAffine(self.heat, back, (size[1], size[0]), flags=cv2.INTER_LINEAR)


def undecided(sentence: str, alignment: Alignment | None = None, light: Light | None = None) -> Verdict:
    """A part that cannot be judged."""
    return Verdict(Result.UNDECIDED, sentence, alignment=alignment, light=light)


def place_in_words(box: tuple[int, int, int, int], size: tuple[int, int]) -> str:
    """Where a box lies in a picture (H, W): "upper left", "centre", ..."""
    x = (box[0] + box[2]) / 2 / size[1]
    y = (box[1] + box[3]) / 2 / size[0]
    row = "upper" if y < 1 / 3 else "lower" if y > 2 / 3 else ""
    column = "left" if x < 1 / 3 else "right" if x > 2 / 3 else ""
    return " ".join(filter(None, (row, column))) or "centre"
