"""What good pictures show at each place: pixels between their darkest and brightest, cells near one of theirs.

Pixels find what is small and sharp, cells what looks different as a whole. Both are measured in what good pictures show
among themselves: each of them is held against the others (leave one out), and the worst of that is the limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

_FLOOR = 10.0  # grey levels that a pixel may always be off
_ODD = 3.0  # a good picture so many times as far off as is usual is odd, and sets no limit
_TOLD = 0.75  # share of the good pictures that must cover a place
_SPOT = 9  # pixels between spots that are told of together
_AROUND = 12  # pixels of surroundings of a spot
_LARGEST = 0.25  # share of the reference that such surroundings may fill
_MOST = 60  # spots; a part with more is bad
_REACH = 1  # cells that a cell's like is sought around


@dataclass(frozen=True)
class PixelBand:
    """Pixels between the darkest and the brightest of the good pictures, each widened by a tolerance.

    Attributes:
        low: (H, W, 3) uint8.
        high: (H, W, 3) uint8.
        scale: (H, W) float32, grey levels by which good pictures leave the band of the others near each pixel.
        scores: (K,) float32, the largest excess of each good picture over the band of the others.

    """

    low: np.ndarray
    high: np.ndarray
    scale: np.ndarray
    scores: np.ndarray

    @classmethod
    def learn(cls, good: Sequence[np.ndarray], covered: Sequence[np.ndarray], tolerance: int) -> PixelBand:
        """From K pictures (H, W, 3) uint8 that lie over each other, looked at where `covered` (H, W) bool.

        Where a picture does not cover the reference it takes no part; where too few do, nothing is told.
        """
        told = np.sum(covered, axis=0) >= max(2.0, _TOLD * len(good))
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * tolerance + 1, 2 * tolerance + 1))
        lows = [_where(cv2.erode(each, kernel), here, 255) for each, here in zip(good, covered, strict=True)]
        highs = [_where(cv2.dilate(each, kernel), here, 0) for each, here in zip(good, covered, strict=True)]
        excesses = []
        for k, each in enumerate(good):
            low = np.minimum.reduce(lows[:k] + lows[k + 1 :])
            high = np.maximum.reduce(highs[:k] + highs[k + 1 :])
            excesses.append(_excess(each, low, high).astype(np.float32) * (covered[k] & told))
        wide = [cv2.GaussianBlur(cv2.dilate(each, np.ones((5, 5))), (0, 0), 2) for each in excesses]
        scores = []
        for k, excess in enumerate(excesses):
            scale = np.maximum.reduce(wide[:k] + wide[k + 1 :])
            scores.append(float((excess / (_FLOOR + scale)).max()))
        low, high = _where(np.minimum.reduce(lows), told, 0), _where(np.maximum.reduce(highs), told, 255)
        return cls(low, high, np.maximum.reduce(wide), np.array(scores, np.float32))

    def measure(self, pixels: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """(H, W) float32: how far each pixel is off, in what is usual there."""
        return self._measure(pixels, np.s_[:, :]) * covered

    def _measure(self, pixels: np.ndarray, window: tuple[slice, slice]) -> np.ndarray:
        outside = _excess(pixels, self.low[window], self.high[window])
        return np.asarray(cv2.multiply(outside, self._per_level[window], dtype=cv2.CV_32F))

    @cached_property
    def _per_level(self) -> np.ndarray:
        """(H, W) float32: what a grey level outside the band counts."""
        return np.float32(1) / (np.float32(_FLOOR) + self.scale)

    def allow_shifts(
        self, measured: np.ndarray, limit: float, pixels: np.ndarray, ideal: np.ndarray, reach: int
    ) -> np.ndarray:
        """What is left of what was `measured` (H, W) if the surroundings of a spot may lie some pixels off as a whole.

        No placement fits everywhere to the pixel: a part bends, and is seen from a little further left. Edges are then
        off along their whole length, and are not where the picture is moved a little; a defect stays.

        Args:
            measured: As from `measure`.
            limit: From which on it counts.
            pixels: (H, W, 3) uint8 that it was measured on.
            ideal: (H, W, 3) uint8 of the reference.
            reach: Pixels that surroundings may lie off.

        """
        height, width = measured.shape
        off = (measured >= limit).view(np.uint8)
        if not off.any():
            return measured
        count, labels, boxes, _ = cv2.connectedComponentsWithStats(cv2.dilate(off, np.ones((_SPOT, _SPOT), np.uint8)))
        left = measured.copy()
        for i in range(1, min(count, _MOST + 1)):
            x, y, columns, rows = (int(value) for value in boxes[i][:4])
            top, bottom = max(reach, y - _AROUND), min(height - reach, y + rows + _AROUND)
            begin, end = max(reach, x - _AROUND), min(width - reach, x + columns + _AROUND)
            if min(bottom - top, end - begin) < 2 * _SPOT or (bottom - top) * (end - begin) > _LARGEST * height * width:
                continue
            around = pixels[top - reach : bottom + reach, begin - reach : end + reach]
            unlike = cv2.matchTemplate(around, ideal[top:bottom, begin:end], cv2.TM_SQDIFF)
            _, _, (right, down), _ = cv2.minMaxLoc(unlike)
            if (right, down) == (reach, reach):
                continue
            window = np.s_[top:bottom, begin:end]
            moved = around[down : down + bottom - top, right : right + end - begin]
            own = labels[window] == i
            if (self._measure(moved, window)[own] < limit).all():
                left[window][own] = 0
        return left


def _where(values: np.ndarray, here: np.ndarray, otherwise: int) -> np.ndarray:
    return np.where(here[..., None], values, np.uint8(otherwise))


def _excess(pixels: np.ndarray, low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """(H, W) uint8 grey levels outside the band; single pixels and lines one pixel wide do not count."""
    red, green, blue = cv2.split(cv2.max(cv2.subtract(pixels, high), cv2.subtract(low, pixels)))
    outside = cv2.max(cv2.max(red, green), blue)
    return cv2.morphologyEx(outside, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))


@dataclass(frozen=True)
class CellBand:
    """Cells near one of the good pictures' cells at about the same place (after PatchCore, Roth et al., 2022).

    Attributes:
        bank: (K, C, h, w) float32, what the cells of the good pictures look like; NaN where they are not covered.
        scale: (h, w) float32, distance that is usual there.
        blur: Standard deviation in cells that distances are smoothed with.
        scores: (K,) float32, largest distance of each good picture to the others, in `scale`.

    """

    bank: np.ndarray
    scale: np.ndarray
    blur: float
    scores: np.ndarray

    @classmethod
    def learn(
        cls, good: Sequence[np.ndarray], covered: Sequence[np.ndarray], *, blur: float, common: float
    ) -> CellBand:
        """From K maps (C, h, w), looked at where `covered` (h, w) bool.

        Args:
            good: The maps.
            covered: Cells that count.
            blur: See the class.
            common: Weight of what is usual everywhere against what is usual at a place.

        """
        bank = np.stack([np.where(here, each, np.float32(np.nan)) for each, here in zip(good, covered, strict=True)])
        distances = [
            _smooth_where(_Near(np.delete(bank, k, axis=0)).nearest(each), blur, covered[k])
            for k, each in enumerate(good)
        ]
        usual = np.mean(distances, axis=0)
        typical = float(np.median(usual[np.logical_or.reduce(covered)])) or 1e-3
        scale = (_smooth(usual, 1.0) + common * typical) / (1 + common) / typical
        scores = np.array([(each / scale).max() for each in distances], np.float32)
        return cls(bank, scale, blur, scores)

    def measure(self, cells: np.ndarray, covered: np.ndarray) -> np.ndarray:
        """(h, w) float32: distance of each cell to the nearest good one, in what is usual there."""
        measured: np.ndarray = _smooth_where(self._near.nearest(cells), self.blur, covered) / self.scale
        return measured

    @cached_property
    def _near(self) -> _Near:
        return _Near(self.bank)


def usual_limit(scores: np.ndarray, margin: float, least: float = 0.0) -> float:
    """The limit that follows from what good pictures score: the largest of those that are not odd, times `margin`."""
    return max(least, margin * float(scores[~odd(scores, least)].max()))


def odd(scores: np.ndarray, least: float = 0.0) -> np.ndarray:
    """Which of the good pictures (K,) disagree with the rest: far worse than usual, and than `least`."""
    unlike: np.ndarray = scores > max(_ODD * float(np.median(scores)), least)
    return unlike


class _Near:
    """Finds cells of a bank (K, C, h, w) near those of other pictures, at most `_REACH` cells away."""

    def __init__(self, bank: np.ndarray) -> None:
        side = (_REACH, _REACH)
        padded = np.pad(bank.transpose(0, 2, 3, 1), ((0, 0), side, side, (0, 0)), mode="edge")
        self._bank = np.ascontiguousarray(padded)
        self._squares = np.einsum("khwc,khwc->khw", self._bank, self._bank)

    def nearest(self, cells: np.ndarray) -> np.ndarray:
        """(h, w) float32 distance of each cell of (C, h, w) to the nearest; 0 where none of those is known."""
        own = np.ascontiguousarray(cells.transpose(1, 2, 0))
        height, width = own.shape[:2]
        best = np.full((height, width), np.inf, np.float32)
        for y in range(2 * _REACH + 1):
            for x in range(2 * _REACH + 1):
                there = np.s_[:, y : y + height, x : x + width]
                both = np.einsum("hwc,khwc->khw", own, self._bank[there])
                np.fmin(best, np.fmin.reduce(self._squares[there] - 2 * both, axis=0), out=best)
        best += np.einsum("hwc,hwc->hw", own, own)
        return np.sqrt(np.where(np.isfinite(best), np.maximum(best, 0), 0))


def _smooth(values: np.ndarray, deviation: float) -> np.ndarray:
    return cv2.GaussianBlur(values, (0, 0), deviation, borderType=cv2.BORDER_REFLECT)


def _smooth_where(values: np.ndarray, deviation: float, here: np.ndarray) -> np.ndarray:
    """Smoothed, where it is `here` (h, w) bool; what is not shown counts as being as it should."""
    return np.asarray(_smooth(values * here, deviation) * here)
