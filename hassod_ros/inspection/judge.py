"""Findings of a view of a part: what is off, which component it belongs to, and what happened to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from hassod_ros.inspection.inventory import VISIBLE, Component, box_of, compare_surroundings
from hassod_ros.inspection.places import FOUND, allowed, around, find_moved, shift_mask
from hassod_ros.inspection.reference import Reference
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import TIMES, Finding, Kind, place_in_words
from hassod_ros.inspection.view import View, smoothed

_MOST = 40  # findings that are told apart; a part with more is simply bad
_NEAR = 5  # pixels between spots that are one
_CHANGED = 0.4  # share of a component that must be off to make it the component's
# Of the limit, where pixels, features and detector agree that a component is missing: each alone need not be sure. So
# much of it must look different.
_NEARLY, _MOSTLY = 0.85, 0.7
_WHOLE = 0.5  # likewise, to call it changed as a whole
_CLEAR = 0.2  # more of a stranger's pixels that say it is new than that say something is gone
_ROUND = 4  # shares of components that differ by less than one of so many are alike
_OWN = 0.5  # share of a spot that lies on a component of which it is then a part
_CONTOUR = 4  # pixels around a component that show its outline
_SHAPE = 0.65  # mean correlation of light and dark from which a component is there, and has another colour
_LOCAL = 15  # pixels that such a correlation is taken over: what is still there must not speak for what is gone
_NOISE, _STRONG = 3.0, 15.0  # grey levels of contrast below which a place hardly counts, and above which no more
_LEAST_CELLS, _FILLED = 4, 127  # of a spot that is new to the network, and how full of it each is, of 255
_MOST_PAIRS = 8  # of the largest other findings, where a missing component is sought
_GONE = 0.8  # share of a component that must be off, and lie on a missing one, to be missing with it
_OUTLINE = 0.7  # IoU of a new thing with a missing one that has moved there
_FAR = 0.1  # share of a component that lies beyond its place, at least, where it has moved
_NEW = 0.3  # share of where it is found that must be off


@dataclass(frozen=True)
class Known:
    """What findings are told by.

    Attributes:
        ideal: (H, W, 3) uint8 RGB of the reference, smoothed like a view's pixels.
        lab: (H, W, 3) uint8, the same in L*a*b*.
        masks: N of (H, W) bool, of the components.
        components: See `take_inventory`.
        seen: (H, W) float32, share of the good pictures in which the detector sees a thing at each pixel.
        allowed: (N,) pixels that each component may lie off.

    """

    ideal: np.ndarray
    lab: np.ndarray
    components: Sequence[Component]
    masks: Sequence[np.ndarray]
    seen: np.ndarray
    allowed: Sequence[float]

    @classmethod
    def of(cls, reference: Reference, settings: Settings) -> Known:
        """From what was learned, and what may be."""
        smooth = smoothed(reference.ideal)
        masks = [each.full((smooth.shape[0], smooth.shape[1])) for each in reference.components]
        far = [
            allowed(each, float(wander), settings.margin, settings.position)
            for each, wander in zip(reference.components, reference.wander, strict=True)
        ]
        lab = np.asarray(cv2.cvtColor(smooth, cv2.COLOR_RGB2LAB))
        return cls(smooth, lab, reference.components, masks, reference.seen, far)


@dataclass(frozen=True)
class Measured:
    """How far off a part is, over the limits: 1 is as far as may be.

    Attributes:
        pixels: (H, W) float32.
        cells: (H, W) float32, what their cell looks like.
        looks: (N,) float32, what the components look like as a whole, the worst of all ways to tell.
        unlike: (N,) float32, likewise by features and detector alone; see `Likeness`.
        features: (h, w) float32, what cells look like to the network alone; 0 without it.

    """

    pixels: np.ndarray
    cells: np.ndarray
    looks: np.ndarray
    unlike: np.ndarray
    features: np.ndarray

    @cached_property
    def heat(self) -> np.ndarray:
        """(H, W) float32, the worse of pixels and cells once both are final."""
        return np.asarray(np.maximum(self.pixels, self.cells))


class _Told(NamedTuple):
    """What happened at a place (H, W) bool of the reference; `empty`: the pixels say that nothing is there now."""

    kind: Kind
    number: int
    place: np.ndarray
    measured: float
    limit: float
    unit: str
    text: str
    empty: bool = False


def find(view: View, known: Known, measured: Measured, *, margin: float, least_area: int) -> list[Finding]:
    """Findings of a view, the worst first.

    Args:
        view: The part.
        known: The good ones.
        measured: How far off it is.
        margin: The limit in what good pictures show.
        least_area: Pixels that a spot must have.

    """
    pixels, looks, unlike, heat = measured.pixels, measured.looks, measured.unlike, measured.heat
    spots = _spots(pixels, measured.cells, least_area)
    if not spots and (looks < _NEARLY).all():
        return []
    size = (heat.shape[0], heat.shape[1])
    now, ideal = view.pixels, known.lab
    usable = view.covered & (heat < 1)
    detector = view.detector
    masks = known.masks
    found: list[_Told] = []
    bad, sharp = heat >= 1, pixels >= 1
    explained = np.zeros(size, bool)
    for thing in detector.strangers(bad, masks):
        place = thing.full(size)
        votes = compare_surroundings(now, ideal, place, usable)
        if thing.on(explained) >= _OWN * thing.area or _same_shape(now, ideal, place):
            continue
        if votes.new > votes.gone + _CLEAR:
            text = "Something is there that should not be"
            found.append(_Told(Kind.EXTRA, 0, place, float(heat[place].max()) * margin, margin, TIMES, text))
            explained |= place
    counts = [np.count_nonzero(bad & mask) for mask in masks]
    shares = [count / each.area for count, each in zip(counts, known.components, strict=True)]
    # Those that are off as a whole come first: a missing limb also makes a large piece of the body look wrong.
    for i in sorted(range(len(masks)), key=lambda i: (-round(_ROUND * shares[i]), i)):
        component, mask, share = known.components[i], masks[i], shares[i]
        if share < _CHANGED and looks[i] < _NEARLY:
            continue
        if counts[i] and np.count_nonzero(bad & mask & explained) >= _OWN * counts[i]:
            continue
        value = max(float(heat[mask].max()), float(looks[i])) * margin
        votes = compare_surroundings(now, ideal, mask, usable)
        seen = detector.sees(mask, component.overlap)
        differs = np.count_nonzero(votes.differs & mask) / component.area
        if share >= _CHANGED and (votes.missing or unlike[i] > 1) and _same_shape(now, ideal, mask):
            found.append(_Told(Kind.CHANGED, i + 1, mask, value, margin, TIMES, f"Component {i + 1} is changed"))
        elif votes.new > votes.gone and (mask & explained).any():
            continue  # a stranger lies over it
        elif share >= _CHANGED and _shows_beyond(sharp, component) and (offset := _nearby(view, known, i, sharp)):
            found.append(_moved(i + 1, mask, offset, known.allowed[i]))
        elif votes.missing and not seen and value > (limit := margin * (_NEARLY if differs >= _MOSTLY else 1.0)):
            text = f"Component {i + 1} is missing"
            found.append(_Told(Kind.MISSING, i + 1, mask, value, limit, TIMES, text, empty=True))
        elif share >= _CHANGED and (offset := _nearby(view, known, i, bad)) is not None:
            found.append(_moved(i + 1, mask, offset, known.allowed[i]))
        elif unlike[i] > 1 and not seen:
            found.append(_Told(Kind.MISSING, i + 1, mask, value, margin, TIMES, f"Component {i + 1} is missing"))
        elif value > margin and votes.gone < 0.3 and share >= _WHOLE:
            found.append(_Told(Kind.CHANGED, i + 1, mask, value, margin, TIMES, f"Component {i + 1} is changed"))
        else:
            continue
        explained |= mask | found[-1].place
    explained = cv2.dilate(explained.view(np.uint8), np.ones((9, 9), np.uint8)) > 0
    for spot in spots[:_MOST]:
        if np.count_nonzero(spot & explained) >= _OWN * np.count_nonzero(spot):
            continue
        found.append(_tell(spot, view, known, measured.features, usable, float(heat[spot].max()) * margin, margin))
    for i in np.flatnonzero(looks > 1).tolist():  # as a whole, though no spot of it is off enough
        if not any(each.number == i + 1 or (masks[i] & each.place).any() for each in found):
            value, text = float(looks[i]) * margin, f"Component {i + 1} is changed"
            found.append(_Told(Kind.CHANGED, i + 1, masks[i], value, margin, TIMES, text))
    found = _pair_moved(found, view, known, bad, shares)
    findings = []
    for kind, number, place, value, limit, unit, text, _ in found:
        box = _box_in_picture(place, view)
        sentence = f"{text} ({place_in_words(box_of(place), size)})"
        findings.append(Finding(kind, number, box, round(value, 3), limit, unit, sentence))
    return sorted(findings, key=lambda each: -each.severity)


def _tell(
    spot: np.ndarray, view: View, known: Known, features: np.ndarray, usable: np.ndarray, value: float, margin: float
) -> _Told:
    """What a spot is that is no whole component."""
    masks, detector = known.masks, view.detector
    area = np.count_nonzero(spot)
    owners = [i for i, mask in enumerate(masks) if np.count_nonzero(mask & spot) >= _OWN * area]
    owner = owners[-1] if owners else -1  # the smallest: components are sorted
    holder = masks[owner] if owners else None
    votes = compare_surroundings(view.pixels, known.lab, spot, usable, holder)
    expected = float(known.seen[votes.differs].mean())
    lacks = (holder is not None and detector.lacks(votes.differs, holder)) or (
        expected >= 0.5 and detector.share(votes.differs) < 0.5 * expected
    )
    if votes.missing and lacks:
        name = f"a piece of component {owner + 1}" if owners else "a piece"
        text = f"{name.capitalize()} is missing"
        return _Told(Kind.MISSING, owner + 1, spot, value, margin, TIMES, text, empty=True)
    if votes.extra and (detector.finds(spot, masks) or _is_foreign(spot, features)):
        return _Told(Kind.EXTRA, 0, spot, value, margin, TIMES, "Something is there that should not be")
    if owners and area >= _WHOLE * known.components[owner].area:
        return _Told(Kind.CHANGED, owner + 1, spot, value, margin, TIMES, f"Component {owner + 1} is changed")
    name = f" on component {owner + 1}" if owners else ""
    return _Told(Kind.DEFECT, owner + 1, spot, value, margin, TIMES, f"There is a defect{name}")


def _is_foreign(spot: np.ndarray, features: np.ndarray) -> bool:
    """Whether what fills a spot (H, W) bool looks new to the network, cell by cell (h, w), if it is no thing to it."""
    cells = cv2.resize(spot.view(np.uint8) * 255, features.shape[::-1], interpolation=cv2.INTER_AREA)
    filled = features[cells > _FILLED]
    return len(filled) >= _LEAST_CELLS and float((filled >= 1).mean()) >= _OWN


def _spots(pixels: np.ndarray, cells: np.ndarray, least_area: int) -> list[np.ndarray]:
    """(H, W) bool masks of what is off, the worst first; where pixels tell where, they do, else the cells."""
    sharp, soft = (pixels >= 1).view(np.uint8), (cells >= 1).view(np.uint8)
    if not (sharp.any() or soft.any()):
        return []
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (_NEAR, _NEAR))
    count, labels = cv2.connectedComponents(cv2.morphologyEx(sharp, cv2.MORPH_CLOSE, kernel))
    off = np.flatnonzero(sharp)
    owners = labels.ravel()[off]
    keep = np.flatnonzero(np.bincount(owners, minlength=count)[1:] >= least_area) + 1
    peaks = np.zeros(count, np.float32)
    np.maximum.at(peaks, owners.astype(np.intp), pixels.ravel()[off])
    keep = keep[np.argsort(-peaks[keep])][: 2 * _MOST]
    spots = [(float(peaks[i]), (labels == i) & (sharp > 0)) for i in keep]
    is_told = np.zeros(count, bool)
    is_told[keep] = True
    told = is_told[labels]
    count, labels = cv2.connectedComponents(soft)
    known = np.bincount(labels[told], minlength=count)
    for i in range(1, count):
        place = labels == i
        if known[i] == 0 and np.count_nonzero(place) >= least_area:
            spots.append((float(cells[place].max()), place))
    return [place for _, place in sorted(spots, key=lambda each: -each[0])]


def _same_shape(pixels: np.ndarray, ideal: np.ndarray, mask: np.ndarray) -> bool:
    """Whether light and dark lie on a place as they should, whatever its colour."""
    x0, y0, x1, y1 = box_of(mask)
    window = np.s_[max(0, y0 - _CONTOUR) : y1 + _CONTOUR, max(0, x0 - _CONTOUR) : x1 + _CONTOUR]
    near = cv2.dilate(mask[window].view(np.uint8), np.ones((2 * _CONTOUR + 1,) * 2, np.uint8)) > 0
    lab = cv2.cvtColor(pixels[window], cv2.COLOR_RGB2LAB)
    a, b = (each[..., 0].astype(np.float32) for each in (lab, ideal[window]))
    mean_a, mean_b = _mean(a), _mean(b)
    spread_a, spread_b = (np.maximum(_mean(x * x) - mean * mean, 0) for x, mean in ((a, mean_a), (b, mean_b)))
    likeness = (_mean(a * b) - mean_a * mean_b) / np.sqrt((spread_a + _NOISE**2) * (spread_b + _NOISE**2))
    weight = np.minimum(np.sqrt(np.maximum(spread_a, spread_b)), _STRONG) * near
    return float((likeness * weight).sum()) > _SHAPE * max(float(weight.sum()), 1e-6)


def _mean(values: np.ndarray) -> np.ndarray:
    """(H, W) means around each place."""
    return np.asarray(cv2.blur(values, (_LOCAL, _LOCAL)))


def _shows_beyond(bad: np.ndarray, component: Component) -> bool:
    """Whether pixels around a component are `bad` (H, W) bool, as they are where it lies partly beyond its place."""
    x0, y0, x1, y1 = component.box
    left, top = max(0, x0 - (x1 - x0)), max(0, y0 - (y1 - y0))
    window = np.s_[top : 2 * y1 - y0, left : 2 * x1 - x0]
    off = np.count_nonzero(bad[window]) - np.count_nonzero(bad[y0:y1, x0:x1] & component.mask)
    return bool(off >= _NEW * _FAR * component.area)


def _nearby(view: View, known: Known, i: int, bad: np.ndarray) -> tuple[float, float] | None:
    """Where component `i` is found again close to its place, if that is further off than it may be."""
    component = known.components[i]
    x0, y0, x1, y1 = component.box
    window = around(component, max(x1 - x0, y1 - y0))
    offset = _counts(find_moved(view.pixels, known.ideal, component, [window]), known.allowed[i])
    if offset is None:
        return None
    beyond = shift_mask(known.masks[i], offset) & ~known.masks[i]
    return offset if np.count_nonzero(bad & beyond) >= _NEW * np.count_nonzero(beyond) else None


def _counts(found: tuple[float, float, float] | None, limit: float) -> tuple[float, float] | None:
    if found is None or found[2] < FOUND:
        return None
    return found[:2] if math.hypot(*found[:2]) > limit else None


def _pair_moved(found: list[_Told], view: View, known: Known, bad: np.ndarray, shares: Sequence[float]) -> list[_Told]:
    """A missing component that is found again where it was not has moved, and explains what is told of both places.

    Where a component is missing that holds others, one of these may be what moved.
    """
    gone: set[int] = set()
    moved = {i: each for i, each in enumerate(found) if each.kind == Kind.MOVED and each.number}
    for i, lost in enumerate(found):
        if lost.kind != Kind.MISSING or not lost.number or i in gone:
            continue
        others = [j for j, each in enumerate(found) if j != i and each.kind != Kind.MOVED and j not in gone]
        others.sort(key=lambda j: (found[j].kind != Kind.EXTRA, -np.count_nonzero(found[j].place)))
        windows = [box_of(found[j].place) for j in others if not found[j].empty][:_MOST_PAIRS]
        whole = known.masks[lost.number - 1]
        for k, mask in enumerate(known.masks):
            held = k == lost.number - 1 or (shares[k] > _GONE and np.count_nonzero(mask & whole) > _GONE * mask.sum())
            if not held or k < lost.number - 1:
                continue
            again = find_moved(view.pixels, known.ideal, known.components[k], windows)
            offset = _counts(again, known.allowed[k]) or _same_thing(view, known, k, found, others)
            if offset is None:
                continue
            told = _moved(k + 1, mask, offset, known.allowed[k])
            if np.count_nonzero(bad & told.place) >= _NEW * np.count_nonzero(told.place):  # else one that was there
                moved[i] = told
                break
        gone |= _explained(found, moved[i], whole, others) if i in moved else set()
    for each in list(moved.values()):
        others = [j for j in range(len(found)) if j not in moved]
        gone |= _explained(found, each, known.masks[each.number - 1], others)
        gone |= {j for j in others if found[j].number and _went_along(view, known, found[j].number - 1, each)}
    return [moved.get(i, each) for i, each in enumerate(found) if i in moved or i not in gone]


def _same_thing(
    view: View, known: Known, k: int, found: list[_Told], others: Sequence[int]
) -> tuple[float, float] | None:
    """Offset of a new thing of the outline and colour of component `k`: what has no pattern does not correlate."""
    mask, area = known.masks[k], known.components[k].area
    x0, y0, x1, y1 = known.components[k].box
    colour = np.median(known.lab[mask], axis=0)
    for place in [found[j].place for j in others if found[j].kind == Kind.EXTRA]:
        left, top, right, bottom = box_of(place)
        offset = (left + right - x0 - x1) / 2, (top + bottom - y0 - y1) / 2
        both = np.count_nonzero(shift_mask(mask, offset) & place)
        if both < _OUTLINE * (area + np.count_nonzero(place) - both) or math.hypot(*offset) <= known.allowed[k]:
            continue
        now = np.median(cv2.cvtColor(view.pixels[place][None], cv2.COLOR_RGB2LAB)[0], axis=0)
        if np.linalg.norm(now - colour) < VISIBLE:
            return offset
    return None


def _explained(found: list[_Told], moved: _Told, was: np.ndarray, others: Sequence[int]) -> set[int]:
    """Those of the `others` that lie where a component has gone, or `was` (H, W) bool."""
    both = cv2.dilate((moved.place | was).view(np.uint8), np.ones((9, 9), np.uint8)) > 0
    return {j for j in others if np.count_nonzero(both & found[j].place) >= _OWN * np.count_nonzero(found[j].place)}


def _went_along(view: View, known: Known, i: int, moved: _Told) -> bool:
    """Whether component `i` is found again where it lies if it moved with another one."""
    component, (x0, y0, x1, y1) = known.components[i], known.components[moved.number - 1].box
    there = box_of(moved.place)
    offset = (there[0] + there[2] - x0 - x1) / 2, (there[1] + there[3] - y0 - y1) / 2
    left, top, right, bottom = around(component, known.allowed[i])
    x, y = round(offset[0]), round(offset[1])
    again = find_moved(view.pixels, known.ideal, component, [(left + x, top + y, right + x, bottom + y)])
    return _counts(again, known.allowed[i]) is not None


def _moved(number: int, mask: np.ndarray, offset: tuple[float, float], limit: float) -> _Told:
    far = math.hypot(*offset)
    there = shift_mask(mask, offset)
    text = f"Component {number} lies {far:.0f} px off"
    return _Told(Kind.MOVED, number, there if there.any() else mask, far, max(limit, 1.0), "px", text)


def _box_in_picture(place: np.ndarray, view: View) -> tuple[int, int, int, int]:
    """The box of a place of the reference, in pixels of the picture."""
    x0, y0, x1, y1 = box_of(place)
    back = cv2.invertAffineTransform(view.alignment.matrix)
    corners = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float64) @ back[:, :2].T + back[:, 2]
    height, width = view.picture_size
    low = np.clip(np.floor(corners.min(axis=0)), 0, (width - 1, height - 1)).astype(int)
    high = np.clip(np.ceil(corners.max(axis=0)), low + 1, (width, height)).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])
