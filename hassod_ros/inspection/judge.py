"""Findings of a view of a part: what is off, which component it belongs to, and what happened to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import cv2
import numpy as np

from hassod_ros.inspection.inventory import VISIBLE, Component, Detector, Thing, box_of, compare_surroundings
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
_STAYS = 0.3  # share of its pixels that may look like the surroundings, likewise
_CLEAR = 0.2  # more of a stranger's pixels that say it is new than that say something is gone
_TIGHT = 0.85  # of what differs on a stranger: a thing of at most so much of its area that holds so much is what is new
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
_THERE = 0.2  # share of where it is found elsewhere that must look different: beside what is gone only cells are off


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


@dataclass(frozen=True)
class _Case:
    """A part with something off, and what has been told of it.

    Attributes:
        view: The part.
        known: The good ones.
        measured: How far off it is.
        margin: The limit in what good pictures show.
        bad: (H, W) bool, what is beyond its limit.
        usable: (H, W) bool, where nothing is wrong.
        counts: (N,) pixels of the components that are bad.
        explained: (H, W) bool, where it has been told why; grows.

    """

    view: View
    known: Known
    measured: Measured
    margin: float
    bad: np.ndarray
    usable: np.ndarray
    counts: np.ndarray
    explained: np.ndarray

    @classmethod
    def of(cls, view: View, known: Known, measured: Measured, margin: float) -> _Case:
        """Of which nothing has been told."""
        bad = measured.heat >= 1
        counts = np.array([np.count_nonzero(bad & mask) for mask in known.masks], np.int64)
        return cls(view, known, measured, margin, bad, view.covered & ~bad, counts, np.zeros(bad.shape, bool))

    @cached_property
    def sharp(self) -> np.ndarray:
        """(H, W) bool, what is beyond its limit by its pixels."""
        return self.measured.pixels >= 1

    @property
    def shares(self) -> np.ndarray:
        """(N,) share of the components that is bad."""
        return self.counts / np.array([each.area for each in self.known.components], np.int64)

    def worst(self, place: np.ndarray) -> float:
        """The worst that was measured on `place` (H, W) bool, in what good pictures show."""
        return float(self.measured.heat[place].max()) * self.margin

    def told(
        self, kind: Kind, number: int, place: np.ndarray, value: float, text: str, *, empty: bool = False
    ) -> _Told:
        """What happened at a place, against the limit."""
        return _Told(kind, number, place, value, self.margin, TIMES, text, empty)


def find(view: View, known: Known, measured: Measured, *, margin: float, least_area: int) -> list[Finding]:
    """Findings of a view, the worst first.

    Args:
        view: The part.
        known: The good ones.
        measured: How far off it is.
        margin: The limit in what good pictures show.
        least_area: Pixels that a spot must have.

    """
    spots = _spots(measured.pixels, measured.cells, least_area)
    if not spots and (measured.looks < _NEARLY).all():
        return []
    case = _Case.of(view, known, measured, margin)
    found = [*_tell_strangers(case), *_tell_components(case)]
    found += _tell_spots(case, spots[:_MOST])
    found += _tell_looks(case, found)
    found = _pair_moved(found, view, known, case.bad, case.shares.tolist())
    return sorted((_finding(each, view) for each in found), key=lambda each: -each.severity)


def _finding(told: _Told, view: View) -> Finding:
    sentence = f"{told.text} ({place_in_words(box_of(told.place), view.covered.shape)})"
    box = _box_in_picture(told.place, view)
    return Finding(told.kind, told.number, box, round(told.measured, 3), told.limit, told.unit, sentence)


def _tell_strangers(case: _Case) -> list[_Told]:
    """Things that the detector sees, that are no component and new."""
    found: list[_Told] = []
    now, ideal = case.view.pixels, case.known.lab
    new: list[tuple[Thing, np.ndarray, np.ndarray, float]] = []  # and their places, what differs, how clearly new
    for thing in case.view.detector.strangers(case.bad, case.known.masks):
        place = thing.full(case.bad.shape)
        votes = compare_surroundings(now, ideal, place, case.usable)
        clear = votes.new - votes.gone
        if clear > _CLEAR and not _same_shape(now, ideal, place):
            new.append((thing, place, votes.differs, clear))
    for i, (thing, place, differs, clear) in enumerate(new):
        if thing.on(case.explained) >= _OWN * thing.area:
            continue
        if any(each > clear + _CLEAR and other.on(place) >= _TIGHT * other.area for other, _, _, each in new[i + 1 :]):
            continue  # it holds what is new, and something else
        enough, tight = _TIGHT * np.count_nonzero(differs), place
        for other, there, *_ in new[i + 1 :]:
            if other.area <= _TIGHT * thing.area and np.count_nonzero(differs & there) >= enough:
                tight = there
        found.append(case.told(Kind.EXTRA, 0, tight, case.worst(tight), "Something is there that should not be"))
        case.explained[place] = True
    return found


def _tell_components(case: _Case) -> list[_Told]:
    """Components that are off as a whole, or nearly.

    The most come first: a missing limb also makes a large piece of the body look wrong.
    """
    found: list[_Told] = []
    masks, shares = case.known.masks, case.shares
    for i in sorted(range(len(masks)), key=lambda i: (-round(_ROUND * float(shares[i])), i)):
        if shares[i] < _CHANGED and case.measured.looks[i] < _NEARLY:
            continue
        count = case.counts[i]
        if count and np.count_nonzero(case.bad & masks[i] & case.explained) >= _OWN * count:
            continue
        told = _tell_component(case, i, float(shares[i]))
        if told is not None:
            found.append(told)
            case.explained[masks[i] | told.place] = True
    return found


def _tell_component(case: _Case, i: int, share: float) -> _Told | None:
    """What became of component `i`, of which a share is bad; None where it is there and as it should be."""
    view, known, margin, unlike = case.view, case.known, case.margin, case.measured.unlike[i]
    component, mask = known.components[i], known.masks[i]
    value = max(case.worst(mask), float(case.measured.looks[i]) * margin)
    votes = compare_surroundings(view.pixels, known.lab, mask, case.usable)
    seen = view.detector.sees(mask, component.overlap)
    changed = case.told(Kind.CHANGED, i + 1, mask, value, f"Component {i + 1} is changed")
    missing = case.told(Kind.MISSING, i + 1, mask, value, f"Component {i + 1} is missing", empty=True)
    stays = share >= _CHANGED and _same_shape(view.pixels, known.lab, mask)
    if stays and (votes.missing or unlike > 1):
        return changed
    if votes.new > votes.gone and (mask & case.explained).any():
        return None  # a stranger lies over it
    may_move = share >= _CHANGED and not stays
    if may_move and _shows_beyond(case.sharp, component) and (offset := _nearby(view, known, i, case.sharp)):
        return _moved(i + 1, mask, offset, known.allowed[i])
    differs = np.count_nonzero(votes.differs & mask) / component.area
    limit = margin * (_NEARLY if differs >= _MOSTLY else 1.0)
    if votes.missing and not seen and value > limit:
        return missing._replace(limit=limit)
    if may_move and (offset := _nearby(view, known, i, case.bad)) is not None:
        return _moved(i + 1, mask, offset, known.allowed[i])
    if unlike > 1 and not seen:
        return missing._replace(empty=False)
    return changed if value > margin and votes.gone < _STAYS and share >= _WHOLE else None


def _tell_spots(case: _Case, spots: Sequence[np.ndarray]) -> list[_Told]:
    """What spots are that nothing has explained."""
    explained = cv2.dilate(case.explained.view(np.uint8), np.ones((9, 9), np.uint8)) > 0
    left = [spot for spot in spots if np.count_nonzero(spot & explained) < _OWN * np.count_nonzero(spot)]
    return [_tell_spot(case, spot) for spot in left]


def _tell_looks(case: _Case, found: Sequence[_Told]) -> list[_Told]:
    """Components that look different as a whole, though no spot of them is off enough to be found."""
    looks, masks = case.measured.looks, case.known.masks
    return [
        case.told(Kind.CHANGED, i + 1, masks[i], float(looks[i]) * case.margin, f"Component {i + 1} is changed")
        for i in np.flatnonzero(looks > 1).tolist()
        if not (masks[i] & case.explained).any()
        and not any(each.number == i + 1 or (masks[i] & each.place).any() for each in found)
    ]


def _tell_spot(case: _Case, spot: np.ndarray) -> _Told:
    """What a spot is that is no whole component."""
    known, masks, detector = case.known, case.known.masks, case.view.detector
    area, value = np.count_nonzero(spot), case.worst(spot)
    owners = [i for i, mask in enumerate(masks) if np.count_nonzero(mask & spot) >= _OWN * area]
    owner = owners[-1] if owners else -1  # the smallest: components are sorted
    holder = masks[owner] if owners else None
    # A spot is what is beyond its limit of what changed; the rest of that is around it.
    votes = compare_surroundings(case.view.pixels, known.lab, spot, case.usable, holder, whole=False)
    expected = float(known.seen[votes.differs].mean())
    lacks = _is_left_out(votes.differs, owners, known, detector) or (
        expected >= 0.5 and detector.share(votes.differs) < 0.5 * expected
    )
    if votes.missing and lacks:
        text = f"A piece of component {owner + 1} is missing" if owners else "A piece is missing"
        return case.told(Kind.MISSING, owner + 1, spot, value, text, empty=True)
    extra = case.told(Kind.EXTRA, 0, spot, value, "Something is there that should not be")
    finds, foreign = detector.finds(spot, masks), _is_foreign(spot, case.measured.features)
    if votes.extra and (finds or foreign):
        return extra
    if owners and area >= _WHOLE * known.components[owner].area:
        return case.told(Kind.CHANGED, owner + 1, spot, value, f"Component {owner + 1} is changed")
    if finds and foreign and not votes.missing:  # what lies on two surfaces is like the one and unlike the other
        return extra
    name = f" on component {owner + 1}" if owners else ""
    return case.told(Kind.DEFECT, owner + 1, spot, value, f"There is a defect{name}")


def _is_left_out(place: np.ndarray, owners: Sequence[int], known: Known, detector: Detector) -> bool:
    """Whether the detector sees one of the components that hold a place (H, W) bool without it.

    That is the smallest, the last, seen or not, or any that it sees as usual: a mask that is as usual but for the place
    says more than a looser one that goes on over it.
    """
    return any(
        detector.lacks(place, known.masks[i])
        for i in owners
        if i == owners[-1] or detector.sees(known.masks[i], known.components[i].overlap)
    )


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
            held = k == lost.number - 1 or (
                shares[k] > _GONE and np.count_nonzero(mask & whole) > _GONE * known.components[k].area
            )
            if not held or k < lost.number - 1:
                continue
            again = find_moved(view.pixels, known.ideal, known.components[k], windows)
            offset = _counts(again, known.allowed[k]) or _same_thing(view, known, k, found, others)
            if offset is None:
                continue
            told = _moved(k + 1, mask, offset, known.allowed[k])
            new = np.count_nonzero(bad & told.place) >= _NEW * np.count_nonzero(told.place)
            if new and _differing(view, known, told.place) >= _THERE:  # else one that was there
                moved[i] = told
                break
        gone |= _explained(found, moved[i], whole, others) if i in moved else set()
    for each in list(moved.values()):
        others = [j for j in range(len(found)) if j not in moved]
        gone |= _explained(found, each, known.masks[each.number - 1], others)
        gone |= {j for j in others if found[j].number and _went_along(view, known, found[j].number - 1, each)}
    return [moved.get(i, each) for i, each in enumerate(found) if i in moved or i not in gone]


def _differing(view: View, known: Known, place: np.ndarray) -> float:
    """Share of a place (H, W) bool that visibly differs from the reference."""
    x0, y0, x1, y1 = box_of(place)
    window = np.s_[y0:y1, x0:x1]
    off = cv2.absdiff(cv2.cvtColor(view.pixels[window], cv2.COLOR_RGB2LAB), known.lab[window]).max(axis=2)
    return float((off[place[window]] > VISIBLE).mean())


def _same_thing(
    view: View, known: Known, k: int, found: list[_Told], others: Sequence[int]
) -> tuple[float, float] | None:
    """Offset of a new thing of the outline and colour of component `k`: what has no pattern does not correlate."""
    places = [found[j].place for j in others if found[j].kind == Kind.EXTRA]
    if not places:
        return None
    mask, area = known.masks[k], known.components[k].area
    x0, y0, x1, y1 = known.components[k].box
    colour = np.median(known.lab[mask], axis=0)
    for place in places:
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
