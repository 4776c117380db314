"""Findings of a view of a part: what is off, which component it belongs to, and what happened to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

from hassod_ros.inspection.inventory import Component, Detector, compare_surroundings, find_moved
from hassod_ros.inspection.verdict import TIMES, Finding, Kind, place_in_words
from hassod_ros.inspection.view import View

_MOST = 40  # findings that are told apart; a part with more is simply bad
_NEAR = 5  # pixels between spots that are one
_CHANGED = 0.4  # share of a component that must be off to make it the component's
_WHOLE = 0.5  # likewise, to call it changed as a whole
_OWN = 0.5  # share of a spot that lies on a component of which it is then a part
_MOST_PAIRS = 8  # of what is extra, where a missing component is sought
_MOVED = 0.6  # correlation with which a component is found again
_MOVED_BY_MUCH = 0.1  # of its size; less is a change


@dataclass(frozen=True)
class Known:
    """What findings are told by.

    Attributes:
        ideal: (H, W, 3) uint8 RGB of the reference, smoothed like a view's pixels.
        lab: (H, W, 3) float32, the same in L*a*b*.
        masks: N of (H, W) bool, of the components.
        components: See `take_inventory`.
        seen: (H, W) float32, share of the good pictures in which the detector sees a thing at each pixel.

    """

    ideal: np.ndarray
    lab: np.ndarray
    components: Sequence[Component]
    masks: Sequence[np.ndarray]
    seen: np.ndarray

    @classmethod
    def of(cls, ideal: np.ndarray, components: Sequence[Component], seen: np.ndarray) -> Known:
        """From (H, W, 3) uint8 RGB of the reference, not smoothed, and what is known of it."""
        smooth = cv2.GaussianBlur(ideal, (3, 3), 0)
        masks = [each.full((ideal.shape[0], ideal.shape[1])) for each in components]
        return cls(smooth, to_lab(smooth), components, masks, seen)


def to_lab(pixels: np.ndarray) -> np.ndarray:
    """(H, W, 3) uint8 RGB as float32 L*a*b*, 0 to 255 each."""
    lab: np.ndarray = cv2.cvtColor(pixels, cv2.COLOR_RGB2LAB).astype(np.float32)
    return lab


class _Told(NamedTuple):
    """What happened at a place (H, W) bool of the reference."""

    kind: Kind
    number: int
    place: np.ndarray
    measured: float
    limit: float
    unit: str
    text: str


def find(
    view: View,
    known: Known,
    pixels: np.ndarray,
    cells: np.ndarray,
    looks: np.ndarray,
    unlike: np.ndarray,
    *,
    margin: float,
    position: float,
    least_area: int,
) -> list[Finding]:
    """Findings of a view, the worst first.

    Args:
        view: The part.
        known: The good ones.
        pixels: (H, W) float32, how far each pixel is off over its limit.
        cells: (H, W) float32, likewise for what its cell looks like.
        looks: (N,) float32, likewise for what each component looks like as a whole, the worst of all ways to tell.
        unlike: (N,) float32, likewise by features and detector alone; see `Likeness`.
        margin: The limit in what good pictures show.
        position: Pixels that a component may have moved.
        least_area: Pixels that a spot must have.

    """
    heat = np.maximum(pixels, cells)
    spots = _spots(pixels, cells, least_area)
    if not spots and (looks < 1).all():
        return []
    size = (heat.shape[0], heat.shape[1])
    lab, ideal = to_lab(view.pixels), known.lab
    usable = view.covered & (heat < 1)
    detector = view.detector
    masks = known.masks

    def measured(place: np.ndarray) -> float:
        return float(heat[place].max()) * margin

    found: list[_Told] = []
    settled: set[int] = set()
    bad = heat >= 1
    for i, (component, mask) in enumerate(zip(known.components, masks, strict=True)):
        if component.parent in settled:
            settled.add(i)
            continue
        share = np.count_nonzero(bad & mask) / component.area
        if share < _CHANGED and looks[i] < 1:
            continue
        value = max(float(heat[mask].max()), float(looks[i])) * margin
        votes = compare_surroundings(lab, ideal, mask, usable)
        seen = detector.sees(mask, component.overlap)
        if votes.missing and value > margin and not seen:
            found.append(_Told(Kind.MISSING, i + 1, mask, value, margin, TIMES, f"Component {i + 1} is missing"))
        elif share >= _CHANGED and (offset := _nearby(view, known, component, position)) is not None:
            found.append(_moved(i + 1, mask, offset, position))
        elif unlike[i] > 1 and not seen:
            found.append(_Told(Kind.MISSING, i + 1, mask, value, margin, TIMES, f"Component {i + 1} is missing"))
        elif value > margin and votes.gone < 0.3 and share >= _WHOLE:
            found.append(_Told(Kind.CHANGED, i + 1, mask, value, margin, TIMES, f"Component {i + 1} is changed"))
        else:
            continue
        settled.add(i)
    explained = np.zeros(size, bool)
    for _, i, place, *_ in found:
        explained |= masks[i - 1] | place
    explained = cv2.dilate(explained.view(np.uint8), np.ones((9, 9), np.uint8)) > 0
    for spot in spots[:_MOST]:
        if np.count_nonzero(spot & explained) >= _OWN * np.count_nonzero(spot):
            continue
        found.append(_tell(spot, lab, ideal, usable, known, masks, detector, measured(spot), margin))
    found = _pair_moved(found, view, known, position)
    for i in np.flatnonzero(looks > 1).tolist():  # as a whole, though no spot of it is off enough
        if not any((masks[i] & each.place).any() for each in found):
            value, text = float(looks[i]) * margin, f"Component {i + 1} is changed"
            found.append(_Told(Kind.CHANGED, i + 1, masks[i], value, margin, TIMES, text))
    findings = []
    for kind, number, place, value, limit, unit, text in found:
        box = _box_in_picture(place, view)
        sentence = f"{text} ({place_in_words(_box(place), size)})"
        findings.append(Finding(kind, number, box, round(value, 3), limit, unit, sentence))
    return sorted(findings, key=lambda each: -each.severity)


def _tell(
    spot: np.ndarray,
    lab: np.ndarray,
    ideal: np.ndarray,
    usable: np.ndarray,
    known: Known,
    masks: Sequence[np.ndarray],
    detector: Detector,
    measured: float,
    margin: float,
) -> _Told:
    """What a spot is that is no whole component."""
    area = np.count_nonzero(spot)
    owners = [i for i, mask in enumerate(masks) if np.count_nonzero(mask & spot) >= _OWN * area]
    owner = owners[-1] if owners else -1  # the smallest: components are sorted
    holder = masks[owner] if owners else None
    votes = compare_surroundings(lab, ideal, spot, usable, holder)
    expected = float(known.seen[votes.differs].mean())
    lacks = (holder is not None and detector.lacks(votes.differs, holder)) or (
        expected >= 0.5 and detector.share(votes.differs) < 0.5 * expected
    )
    if votes.missing and lacks:
        name = f"a piece of component {owner + 1}" if owners else "a piece"
        return _Told(Kind.MISSING, owner + 1, spot, measured, margin, TIMES, f"{name.capitalize()} is missing")
    if votes.extra and detector.finds(spot, masks):
        return _Told(Kind.EXTRA, 0, spot, measured, margin, TIMES, "Something is there that should not be")
    if owners and area >= _WHOLE * known.components[owner].area:
        return _Told(Kind.CHANGED, owner + 1, spot, measured, margin, TIMES, f"Component {owner + 1} is changed")
    name = f" on component {owner + 1}" if owners else ""
    return _Told(Kind.DEFECT, owner + 1, spot, measured, margin, TIMES, f"There is a defect{name}")


def _spots(pixels: np.ndarray, cells: np.ndarray, least_area: int) -> list[np.ndarray]:
    """(H, W) bool masks of what is off, the worst first; where pixels tell where, they do, else the cells."""
    sharp = (pixels >= 1).view(np.uint8)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_NEAR, _NEAR))
    count, labels = cv2.connectedComponents(cv2.morphologyEx(sharp, cv2.MORPH_CLOSE, kernel))
    off = np.flatnonzero(sharp)
    owners = labels.ravel()[off]
    keep = np.flatnonzero(np.bincount(owners, minlength=count)[1:] >= least_area) + 1
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, owners, pixels.ravel()[off])
    keep = keep[np.argsort(-peaks[keep])][: 2 * _MOST]
    spots = [(float(peaks[i]), (labels == i) & (sharp > 0)) for i in keep]
    is_told = np.zeros(count, bool)
    is_told[keep] = True
    told = is_told[labels]
    count, labels = cv2.connectedComponents((cells >= 1).view(np.uint8))
    known = np.bincount(labels[told], minlength=count)
    for i in range(1, count):
        place = labels == i
        if known[i] == 0 and np.count_nonzero(place) >= least_area:
            spots.append((float(cells[place].max()), place))
    return [place for _, place in sorted(spots, key=lambda each: -each[0])]


def _nearby(view: View, known: Known, component: Component, position: float) -> tuple[float, float] | None:
    """Where a component is found again close to its place, if that is elsewhere."""
    x0, y0, x1, y1 = component.box
    reach_x, reach_y = (x1 - x0), (y1 - y0)
    middle_x, middle_y = (x0 + x1) // 2, (y0 + y1) // 2
    window = (middle_x - reach_x, middle_y - reach_y, middle_x + reach_x, middle_y + reach_y)
    found = find_moved(view.pixels, known.ideal, component, [window])
    return _counts(found, component, position)


def _counts(
    found: tuple[float, float, float] | None, component: Component, position: float
) -> tuple[float, float] | None:
    if found is None or found[2] < _MOVED:
        return None
    least = max(position, _MOVED_BY_MUCH * math.sqrt(component.area))
    return found[:2] if math.hypot(*found[:2]) > least else None


def _pair_moved(found: list[_Told], view: View, known: Known, position: float) -> list[_Told]:
    """A missing component that is found again where something is extra has moved."""
    gone: set[int] = set()
    moved: dict[int, _Told] = {}
    for i, lost in enumerate(found):
        others = [j for j, each in enumerate(found) if each.kind in (Kind.EXTRA, Kind.DEFECT) and j not in gone]
        if lost.kind != Kind.MISSING or not lost.number or len(others) > _MOST_PAIRS:
            continue
        component = known.components[lost.number - 1]
        for j in others:
            again = find_moved(view.pixels, known.ideal, component, [_box(found[j].place)])
            offset = _counts(again, component, position)
            if offset is not None:
                gone.add(j)
                full = component.full((lost.place.shape[0], lost.place.shape[1]))
                moved[i] = _moved(lost.number, full, offset, position)
                break
    return [moved.get(i, each) for i, each in enumerate(found) if i not in gone]


def _moved(number: int, mask: np.ndarray, offset: tuple[float, float], position: float) -> _Told:
    far = math.hypot(*offset)
    text = f"Component {number} lies {far:.0f} px off"
    return _Told(Kind.MOVED, number, _shifted(mask, offset), far, max(position, 1.0), "px", text)


def _shifted(mask: np.ndarray, offset: tuple[float, float]) -> np.ndarray:
    matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
    moved = cv2.warpAffine(mask.view(np.uint8), matrix, mask.shape[::-1], flags=cv2.INTER_NEAREST) > 0
    return moved if moved.any() else mask


def _box(place: np.ndarray) -> tuple[int, int, int, int]:
    ys, xs = np.flatnonzero(place.any(axis=1)), np.flatnonzero(place.any(axis=0))
    return int(xs[0]), int(ys[0]), int(xs[-1]) + 1, int(ys[-1]) + 1


def _box_in_picture(place: np.ndarray, view: View) -> tuple[int, int, int, int]:
    """The box of a place of the reference, in pixels of the picture."""
    x0, y0, x1, y1 = _box(place)
    back = cv2.invertAffineTransform(view.alignment.matrix)
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64) @ back[:, :2].T + back[:, 2]
    height, width = view.picture_size
    low = np.clip(np.floor(corners.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), low + 1, (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
