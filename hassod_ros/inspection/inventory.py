"""The components of a good part, from the part/whole masks of its pictures, and what became of them in another.

A component is what the detector finds at one place in most good pictures. Detector and pixels must agree before one is
called missing, or something else extra: either alone is wrong too often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np

from hassod_ros.instances import Instances

_SAME = 0.5  # IoU of masks that are one component
_FOUND = 0.6  # share of the good pictures in which alike things make a component
_BEGUN = 0.5  # likewise, in which they are alike one of them, from which it is asked what most of these show
_PRESENT = 0.8  # share of them that show it, once it is known where to look
_SHOWN = 0.3  # of the IoU that is usual for it, from which a picture shows it
_LARGEST = 0.6  # share of the reference that a component may fill; beyond it, it is the background
_RIM = 0.15  # share of the picture's border that a component may touch; likewise
_SMALLEST = 40  # pixels
_SEEN = 0.75  # of the IoU that is usual for a component, below which the detector does not see it
VISIBLE = 12.0  # grey levels (L*a*b*) that tell a thing from what surrounds it
_STRANGE = 0.6  # share of a thing that must be off to make it a stranger
_BEYOND = 0.6  # share of it that may lie on one component, unless that is so many times as large that it holds it
_HOLDS = 2.0
_AGREED = 0.55  # share of pixels that must vote for "looks like its surroundings"
_RING = 0.06  # width of the surroundings, of the longer side of the reference


@dataclass(frozen=True)
class Component:
    """What most good pictures show at one place.

    Attributes:
        box: x0, y0, x1, y1 in reference pixels.
        mask: (y1 - y0, x1 - x0) bool.
        present: How many good pictures show it.
        overlap: IoU with the mask that is usual.
        parent: Index of the smallest component that holds it, or -1.

    """

    box: tuple[int, int, int, int]
    mask: np.ndarray
    present: int
    overlap: float
    parent: int

    @property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def full(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool mask."""
        x0, y0, x1, y1 = self.box
        full = np.zeros(size, bool)
        full[y0:y1, x0:x1] = self.mask
        return full


@dataclass(frozen=True)
class Thing:
    """What the detector finds in one picture, where it may be a component.

    Attributes:
        window: Its rows and columns.
        mask: Of the window, bool.

    """

    window: tuple[slice, slice]
    mask: np.ndarray

    @cached_property
    def area(self) -> int:
        """Pixels of the mask."""
        return int(np.count_nonzero(self.mask))

    def on(self, place: np.ndarray) -> int:
        """Its pixels that lie on `place` (H, W) bool."""
        return int(np.count_nonzero(place[self.window] & self.mask))

    def full(self, size: tuple[int, int]) -> np.ndarray:
        """(H, W) bool mask."""
        return _union([self], size)

    def overlap(self, place: np.ndarray, area: int) -> float:
        """IoU with `place` (H, W) bool of `area` pixels."""
        both = self.on(place)
        return both / max(1, self.area + area - both)


def take_inventory(views: Sequence[Instances], size: tuple[int, int]) -> list[Component]:
    """Components of K good pictures that lie over the reference of `size` (H, W), the largest first."""
    groups: list[list[tuple[int, Thing]]] = []  # of (picture, thing)
    firsts: list[np.ndarray] = []  # (H, W) bool of the first of each
    things = [list(_things(instances)) for instances in views]
    for k, here in enumerate(things):
        for thing in here:
            overlaps = [
                thing.overlap(first, group[0][1].area) if all(i != k for i, _ in group) else 0.0
                for first, group in zip(firsts, groups, strict=True)
            ]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] >= _SAME:
                groups[best].append((k, thing))
            else:
                groups.append([(k, thing)])
                firsts.append(_union([thing], size))
    components = []
    for group in groups:
        if len(group) < max(2, _BEGUN * len(views) - 1e-9):
            continue
        members = [thing for _, thing in group]
        mask = _common(members, size)
        if len(members) < _FOUND * len(views) - 1e-9:
            # The first of a group may be odd, by its shadow: all are held against what most of the group show.
            members = [each for each, alike in _closest(things, mask) if alike >= _SAME]
            mask = _common(members, size)
        if len(members) < _FOUND * len(views) - 1e-9:
            continue
        ys, xs = np.nonzero(mask)
        if not len(ys):
            continue
        box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
        overlap = float(np.median([each.overlap(mask, len(ys)) for each in members]))
        present = sum(alike >= _SHOWN * overlap for _, alike in _closest(things, mask))
        if present >= _PRESENT * len(views) - 1e-9:
            crop = mask[box[1] : box[3], box[0] : box[2]]
            components.append(Component(box, crop, present, overlap, -1))
    return _distinct(components, size)


def _common(things: Sequence[Thing], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool: where more than half of them are."""
    votes = np.zeros(size, np.int32)
    for thing in things:
        votes[thing.window] += thing.mask
    return votes * 2 > len(things)


def _closest(things: Sequence[Sequence[Thing]], mask: np.ndarray) -> list[tuple[Thing, float]]:
    """The thing of each picture that is most like a mask (H, W) bool, and its IoU; of pictures with any."""
    area = int(np.count_nonzero(mask))
    alike = [[(thing, thing.overlap(mask, area)) for thing in here] for here in things]
    return [max(each, key=lambda pair: pair[1]) for each in alike if each]


def _distinct(components: Sequence[Component], size: tuple[int, int]) -> list[Component]:
    """The largest first, with parents; of those that are nearly the same, the one that pictures agree on most.

    A thing that is found with its shadow in some pictures and without it in all is what it is without.
    """
    kept: list[tuple[Component, np.ndarray]] = []
    for each in sorted(components, key=lambda each: -each.present * each.overlap):
        mask = each.full(size)
        if all(_iou(mask, other) <= _SAME + 0.2 for _, other in kept):
            kept.append((each, mask))
    kept.sort(key=lambda pair: -pair[0].area)
    distinct = []
    for n, (each, mask) in enumerate(kept):
        holders = [i for i, (_, other) in enumerate(kept[:n]) if np.count_nonzero(mask & other) > 0.8 * each.area]
        distinct.append(replace(each, parent=holders[-1] if holders else -1))
    return distinct


def _things(instances: Instances) -> list[Thing]:
    """What may be a component: neither background nor a speck."""
    height, width = instances.image_size
    areas = instances.areas
    keep = (areas >= _SMALLEST) & (areas <= _LARGEST * height * width) & ~instances.scene
    things = []
    for i in np.flatnonzero(keep):
        x0, y0, x1, y1 = (int(value) for value in instances.regions[i])
        mask = instances.masks[i].view(bool)
        sides = (mask[0], y0 == 0), (mask[-1], y1 == height), (mask[:, 0], x0 == 0), (mask[:, -1], x1 == width)
        if sum(np.count_nonzero(side) for side, at_rim in sides if at_rim) <= _RIM * 2 * (height + width):
            things.append(Thing((slice(y0, y1), slice(x0, x1)), mask))
    return things


def _union(things: Sequence[Thing], size: tuple[int, int]) -> np.ndarray:
    """(H, W) bool, where any of them is."""
    union = np.zeros(size, bool)
    for thing in things:
        union[thing.window] |= thing.mask
    return union


def seen_share(views: Sequence[Instances], size: tuple[int, int]) -> np.ndarray:
    """(H, W) float32: share of K pictures in which a thing covers each pixel."""
    seen = np.zeros(size, np.float32)
    for instances in views:
        seen += _union(_things(instances), size)
    return seen / np.float32(max(1, len(views)))


def _iou(first: np.ndarray, second: np.ndarray) -> float:
    both = int(np.count_nonzero(first & second))
    return both / max(1, int(np.count_nonzero(first)) + int(np.count_nonzero(second)) - both)


def surroundings(mask: np.ndarray, width: float) -> np.ndarray:
    """(H, W) bool: pixels outside a mask (H, W) bool, at most `width` away."""
    away = cv2.distanceTransform((~mask).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    near: np.ndarray = (away > 0) & (away <= width)
    return near


class Detector:
    """What the detector sees in one picture, asked about places.

    Args:
        instances: Laid over the reference; None where there is no detector, which then agrees with the pixels.

    """

    def __init__(self, instances: Instances | None) -> None:
        self._things = None if instances is None else _things(instances)

    @property
    def things(self) -> Sequence[Thing]:
        """All of it that may be components."""
        return self._things or ()

    def sees(self, component: np.ndarray, usual: float) -> bool:
        """Whether something covers a component's mask (H, W) bool about as usual."""
        return self.agreement(component, usual) >= _SEEN

    def agreement(self, component: np.ndarray, usual: float) -> float:
        """How well something covers a component's mask (H, W) bool: IoU over the usual one, 0 to 1."""
        if not self._things:
            return 0.0
        area = int(np.count_nonzero(component))
        return min(1.0, max(thing.overlap(component, area) for thing in self._things) / max(usual, 1e-6))

    def lacks(self, place: np.ndarray, component: np.ndarray) -> bool:
        """Whether the thing that is most like a component leaves out `place` (H, W) bool, a piece of the component."""
        if not self._things:
            return True
        area = int(np.count_nonzero(component))
        overlap, best = max(
            ((thing.overlap(component, area), thing) for thing in self._things), key=lambda each: each[0]
        )
        return overlap < 0.25 or best.on(place) < 0.5 * int(np.count_nonzero(place))

    def share(self, place: np.ndarray) -> float:
        """Share of `place` (H, W) bool on which it sees anything."""
        if not self._things or not place.any():
            return 0.0
        return float(_union(self._things, (place.shape[0], place.shape[1]))[place].mean())

    def strangers(self, bad: np.ndarray, known: Sequence[np.ndarray]) -> list[Thing]:
        """Things, the largest first, that are none of the `known` components and lie where it is `bad` (H, W) bool."""
        areas = [int(np.count_nonzero(each)) for each in known]
        strange = [
            thing
            for thing in self.things
            if thing.on(bad) >= _STRANGE * thing.area
            and all(
                thing.overlap(each, area) < _SAME and thing.on(each) < _BEYOND * thing.area
                for each, area in zip(known, areas, strict=True)
                if area < _HOLDS * thing.area
            )
        ]
        return sorted(strange, key=lambda each: -each.area)

    def finds(self, place: np.ndarray, known: Sequence[np.ndarray]) -> bool:
        """Whether there is a thing about where `place` (H, W) bool is that is none of the `known` components."""
        if self._things is None:
            return True
        area = np.count_nonzero(place)
        areas = [int(np.count_nonzero(each)) for each in known]
        for thing in self._things:
            both = thing.on(place)
            if both < 0.3 * area or both < 0.4 * thing.area:
                continue
            if all(thing.overlap(*each) < _SAME for each in zip(known, areas, strict=True)):
                return True
        return False


@dataclass(frozen=True)
class Surroundings:
    """How the pixels of a place compare with what surrounds it.

    Attributes:
        gone: Share of the pixels that differ which now look like the surroundings and did not before.
        new: Share of them that looked like the surroundings and no longer do.
        differs: (H, W) bool, the pixels of the place that differ.

    """

    gone: float
    new: float
    differs: np.ndarray

    @property
    def missing(self) -> bool:
        """The pixels say that something is not there."""
        return self.gone >= _AGREED

    @property
    def extra(self) -> bool:
        """The pixels say that something is there that was not."""
        return self.new >= _AGREED


def box_of(place: np.ndarray) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 of a mask (H, W) bool that is not empty."""
    x, y, width, height = cv2.boundingRect(place.view(np.uint8))
    return x, y, x + width, y + height


def compare_surroundings(
    pixels: np.ndarray,
    ideal: np.ndarray,
    place: np.ndarray,
    usable: np.ndarray,
    component: np.ndarray | None = None,
    *,
    whole: bool = True,
) -> Surroundings:
    """Votes of the pixels of a place.

    Args:
        pixels: (H, W, 3) uint8 RGB of the picture.
        ideal: (H, W, 3) uint8 L*a*b* of the reference.
        place: (H, W) bool.
        usable: (H, W) bool, where nothing is wrong, to tell the surroundings by.
        component: (H, W) bool, what the place is a piece of: no surroundings of it, unless it surrounds the place.
        whole: Whether the place is all that has changed there; else what changed around it is no surroundings.

    """
    side = max(place.shape)
    width = max(3, round(_RING * side))
    x0, y0, x1, y1 = box_of(place)
    window = np.s_[max(0, y0 - width) : y1 + width, max(0, x0 - width) : x1 + width]
    inner = place[window]
    before, after = ideal[window], cv2.cvtColor(pixels[window], cv2.COLOR_RGB2LAB)
    light, a, b = cv2.split(cv2.absdiff(after, before))
    off = cv2.max(cv2.max(light, a), b)
    around = surroundings(inner, width)
    ring = around & usable[window]
    same = ring if whole else ring & (off <= VISIBLE)
    rings = [each for each in (same, ring) if np.count_nonzero(each) >= 10][:1] or [around]
    if component is not None and np.count_nonzero(rings[0] & ~component[window]) > 0.15 * np.count_nonzero(around):
        rings.append(rings[0] & ~component[window])
    now, then = after[inner].astype(np.float32), before[inner]
    change = _length(now - then)
    differing = change > VISIBLE
    differs = np.zeros(place.shape, bool)
    differs[window][inner] = differing
    gone = new = 0.0
    now, change, then = now[differing], change[differing], then[differing]
    for each in rings:
        if not len(change) or not each.any():
            continue
        surface = _median(before, each)
        far_now, far_then = _length(now - surface), _length(then - surface)
        gone = max(gone, float(((far_then > VISIBLE) & (far_now < 0.6 * change)).mean()))
        new = max(new, float(((far_now > VISIBLE) & (far_then < 0.6 * change)).mean()))
    return Surroundings(gone, new, differs if len(change) else place)


def _median(colours: np.ndarray, where: np.ndarray) -> np.ndarray:
    """(3,) float32 of the colours (H, W, 3) uint8 `where` (H, W) bool."""
    mask = where.view(np.uint8)
    counts = [cv2.calcHist([colours], [channel], mask, [256], [0, 256]).cumsum() for channel in range(3)]
    return np.array([np.searchsorted(each, each[-1] / 2) for each in counts], np.float32)


def _length(vectors: np.ndarray) -> np.ndarray:
    """(N,) of (N, D)."""
    return np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
