"""Judges pictures by a reference."""

from __future__ import annotations

import math

import cv2
import numpy as np

from hassod_ros.inspection import judge
from hassod_ros.inspection.align import Aligner
from hassod_ros.inspection.judge import Measured
from hassod_ros.inspection.look import agreements
from hassod_ros.inspection.places import FOUND, around, find_moved, find_thing, shift_cells, shift_mask
from hassod_ros.inspection.reference import LEAST_TRUST, Reference, even_out
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Finding, Kind, Result, Verdict, undecided
from hassod_ros.inspection.view import Observe, View, blank, see, to_cells

_COVER = 0.7  # share of what is looked at that must be in the picture
_SHOWN = 0.5  # share of a component that must be
_SHIFTS = [(step * x, step * y) for step in (1 / 3, 2 / 3, 1) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
_LARGE = 0.05  # share of the reference; what is larger lies where it was aligned
_EDGE = 7  # pixels around a component that lie off with it
# Of the limits, that the means of pixels and the cells are off at one place, at least, where they are off together; and
# how far pixels are smoothed for it, in cells.
_BOTH, _FULL = 0.5, 0.7
_UNLIT = (4.0, 1.25)  # percent, and times what the good pictures have, of changed light from which there is a warning
_DARK = (18.0, 2.0)  # likewise, from which a part is not judged
# What the limits of colours and features are times, for each percent of light beyond that of all good pictures, and at
# most: evening out the light leaves shadows and gloss as they are.
_WIDER, _WIDEST = 0.02, 1.3


class Inspector:
    """Judges pictures by a reference.

    Args:
        reference: What a good part looks like.
        observe: The detector that the reference was learned with; None where it was learned without.
        settings: Limits in place of those that the reference was taught with; what is looked at stays as taught.

    """

    def __init__(self, reference: Reference, observe: Observe | None, settings: Settings | None = None) -> None:
        self.reference = reference
        self.settings = settings or reference.settings
        self._observe = observe if reference.model_sha256 else None
        self._limits = reference.limits(self.settings.margin)
        self._usual_light = float(reference.light.max(initial=0.0))
        if reference.texture is None:
            usual, alike = (float(np.median(each)) for each in (reference.trust, reference.agreement))
            self._aligner = Aligner(reference.ideal, reference.mask, usual, alike)
            self._size = (reference.ideal.shape[0], reference.ideal.shape[1])
            self._known = judge.Known.of(reference, self.settings)

    def __call__(self, picture: np.ndarray) -> Verdict:
        """The verdict on (H, W, 3) uint8 RGB."""
        if blank(picture):
            return undecided("The picture is blank: check light, lens and camera")
        if self.reference.texture is not None:
            return self._judge_texture(picture)
        if picture.shape[:2] != self.reference.picture_size:
            taught = self.reference.picture_size
            return undecided(
                f"The picture is {picture.shape[1]} x {picture.shape[0]}, the taught ones are {taught[1]} x {taught[0]}"
            )
        alignment = self._aligner(picture)
        if alignment.trust < LEAST_TRUST:
            return undecided("No taught part is found in the picture", alignment)
        if not alignment.sure:
            return undecided("The part looks the same further along: where it lies cannot be told", alignment)
        assert self.reference.colours is not None
        cells = self.reference.colours.scale.shape
        view = see(picture, alignment, self.reference.ideal, self.reference.mask, self._observe, cells)
        cover = np.count_nonzero(view.covered) / np.count_nonzero(self.reference.mask)
        if cover < _COVER:
            return undecided(f"Only {cover:.0%} of the part are in the picture", alignment, view.light)
        usual = self._usual_light
        if view.light.change > _DARK[0] + _DARK[1] * usual:
            return undecided(f"The light is {view.light.change:.0f} % off what was taught", alignment, view.light)
        warning = ""
        if view.light.change > _UNLIT[0] + _UNLIT[1] * usual:
            warning = f"the light is {view.light.change:.0f} % off what was taught"
        hidden = self._hidden(view)
        verdict = self._judge(view, hidden, warning)
        if verdict.result == Result.OK and hidden.any():  # what is wrong elsewhere is wrong, whatever is not seen
            text = f"Component {int(np.argmax(hidden)) + 1} lies outside the picture"
            return undecided(text, alignment, view.light)
        return verdict

    def _hidden(self, view: View) -> np.ndarray:
        """(N,) bool: components of which the picture shows less than half."""
        hidden: np.ndarray = np.zeros(len(self.reference.components), bool)
        for i, component in enumerate(self.reference.components):
            x0, y0, x1, y1 = component.box
            looked_at = component.mask & (self.reference.mask[y0:y1, x0:x1] > 0)
            shown = np.count_nonzero(looked_at & view.covered[y0:y1, x0:x1])
            hidden[i] = shown < _SHOWN * np.count_nonzero(looked_at)
        return hidden

    def _judge(self, view: View, hidden: np.ndarray, warning: str) -> Verdict:
        measured, settings = self._measure(view), self.settings
        looks = measured.looks
        looks[hidden] = measured.unlike[hidden] = 0  # nothing is said of what is not seen
        findings = judge.find(view, self._known, measured, margin=settings.margin, least_area=settings.least_area)
        turned = abs(view.alignment.angle)
        if turned > settings.angle:
            height, width = view.picture_size
            text = f"The part is turned by {view.alignment.angle:.1f} degrees"
            findings.insert(0, Finding(Kind.MOVED, 0, (0, 0, width, height), turned, settings.angle, "deg", text))
        heat = measured.heat
        most = max(float(heat.max()), float(looks.max(initial=0.0)))
        if findings:
            for component, off in zip(self.reference.components, looks, strict=True):
                x0, y0, x1, y1 = component.box
                if off >= 1:
                    np.maximum(heat[y0:y1, x0:x1], component.mask * off, out=heat[y0:y1, x0:x1])
            score = max(most, max(each.severity for each in findings))
            result, sentence = Result.NG, findings[0].sentence
        else:  # spots that are too small to be a finding do not make a part bad
            score, result, sentence = min(most, 1.0), Result.OK, "As taught"
        return Verdict(result, sentence, score, tuple(findings), view.alignment, view.light, warning, heat)

    def _measure(self, view: View) -> Measured:
        """How far off everything is, over its limit."""
        reference, limit = self.reference, self._limits["pixels"]
        assert reference.pixels is not None  # a texture is judged elsewhere
        pixels = reference.pixels.measure(view.pixels, view.covered)
        reach = max(1, round(self.settings.position))
        pixels = reference.pixels.allow_shifts(pixels, limit, view.pixels, self._known.ideal, reach) / np.float32(limit)
        colours, looks = self._measure_colours(view, view.colours)
        for x, y in _SHIFTS:  # edges that lie a little off are no other colour
            if (colours < 1).all():
                break
            moved = to_cells(view.fine, colours.shape, (x * reach, y * reach))
            colours = np.minimum(colours, self._measure_colours(view, moved)[0])
        smooth = _in_cells(pixels, view.cells)
        # All above goes on beside the network; from here on it is waited for.
        seen = agreements(view.detector, self._known.masks, reference.components)
        network, unlike = self._measure_features(view, view.network, seen)
        cells = self._widen(view, _agreed(smooth, np.maximum(colours, network)))
        measured = Measured(pixels, cells, np.maximum(looks, unlike), unlike, network)
        for i in range(len(reference.components)):
            self._judge_in_place(view, measured, i)
        return measured

    def _measure_colours(self, view: View, colours: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """How far off the colours of cells (h, w) and of components (N,) are."""
        reference, limits = self.reference, self._limits
        assert reference.colours is not None
        limit = limits["colours"] * self._widening(view)
        cells = reference.colours.measure(colours, view.covered_cells) / np.float32(limit)
        looks: np.ndarray = np.zeros(len(reference.components), np.float32)
        if reference.colour_looks is not None:
            looks = reference.colour_looks.measure(colours) / np.float32(limits["colour_looks"])
        return cells, looks

    def _measure_features(
        self, view: View, network: np.ndarray | None, seen: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Likewise by features; 0 without them."""
        reference, limits = self.reference, self._limits
        cells: np.ndarray = np.zeros(view.cells, np.float32)
        unlike: np.ndarray = np.zeros(len(reference.components), np.float32)
        if reference.network is not None and network is not None:
            features = even_out(network, reference.channels)
            limit = limits["network"] * self._widening(view)
            cells = reference.network.measure(features, view.covered_cells) / np.float32(limit)
            if reference.likeness is not None:
                unlike = reference.likeness.measure(network, seen) / np.float32(limits["likeness"])
        return cells, unlike

    def _widening(self, view: View) -> float:
        """What the limits of cells are multiplied by in this light."""
        beyond = view.light.change - self._usual_light
        return min(1 + _WIDER * max(beyond, 0.0), _WIDEST)

    def _widen(self, view: View, cells: np.ndarray) -> np.ndarray:
        wide = cv2.resize(cells, self._size[::-1], interpolation=cv2.INTER_LINEAR)
        return np.asarray(wide * view.covered, np.float32)

    def _judge_in_place(self, view: View, measured: Measured, i: int) -> None:
        """Judge component `i` where it lies, if that is no further off than it may be."""
        known, component = self._known, self.reference.components[i]
        mask = known.masks[i]
        if component.area > _LARGE * mask.size:
            return
        x0, y0, x1, y1 = component.box
        window = np.s_[y0:y1, x0:x1]
        worst = np.maximum(measured.pixels[window], measured.cells[window])
        if measured.looks[i] < 1 and not ((worst >= 1) & component.mask).any():
            return
        offset = find_thing(view.detector, component, mask, known.allowed[i])
        if offset is None:
            found = find_moved(view.pixels, known.ideal, component, [around(component, known.allowed[i])])
            offset = found[:2] if found is not None and found[2] >= FOUND else None
        if offset is None or not 1 <= math.hypot(*offset) <= known.allowed[i]:
            return
        x, y = round(offset[0]), round(offset[1])
        back = np.array([[1, 0, -x], [0, 1, -y]], np.float64)
        height, width = self._size
        pixels = cv2.warpAffine(view.pixels, back, (width, height), borderMode=cv2.BORDER_REPLICATE)
        there = shift_mask(mask, (x, y))
        rows, columns = view.cells
        network = None
        if view.network is not None:
            network = shift_cells(view.network, -x * columns / width, -y * rows / height)
        seen = np.full(len(known.masks), view.detector.agreement(there, component.overlap), np.float32)
        colours, looks = self._measure_colours(view, to_cells(view.fine, (rows, columns), (-x, -y)))
        features, unlike = self._measure_features(view, network, seen)
        looks = np.maximum(looks, unlike)
        assert self.reference.pixels is not None
        sharp = self.reference.pixels.measure(pixels, view.covered) / np.float32(self._limits["pixels"])
        wide = self._widen(view, _agreed(_in_cells(sharp, view.cells), np.maximum(colours, features)))
        if _badness(sharp, wide, mask, looks[i]) >= _badness(measured.pixels, measured.cells, mask, measured.looks[i]):
            return  # it only looked like it
        for values, moved, reach in ((measured.pixels, sharp, _EDGE), (measured.cells, wide, 2 * height // rows)):
            own, other = (cv2.dilate(each.view(np.uint8), _disk(reach)) > 0 for each in (mask, there))
            values[other & ~own] = 0
            values[own] = np.minimum(values[own], moved[own])
            values[mask] = moved[mask]
        measured.looks[i], measured.unlike[i] = looks[i], unlike[i]

    def _judge_texture(self, picture: np.ndarray) -> Verdict:
        texture = self.reference.texture
        assert texture is not None
        settings = self.settings
        size = (picture.shape[0], picture.shape[1])
        x, y, columns, rows = settings.window(size)
        heat = texture.measure(picture[y : y + rows, x : x + columns], settings.mask(size), self._observe)
        heat = heat / np.float32(self._limits["texture"])
        count, labels, stats, _ = cv2.connectedComponentsWithStats((heat >= 1).view(np.uint8))
        findings = []
        for i in range(1, count):
            left, top, width, height, area = (int(value) for value in stats[i])
            if area < settings.least_area:
                continue
            box = (x + left, y + top, x + left + width, y + top + height)
            measured = float(heat[labels == i].max()) * settings.margin
            text = "There is a defect on the surface"
            findings.append(Finding(Kind.DEFECT, 0, box, measured, settings.margin, "x good", text))
        findings.sort(key=lambda each: -each.severity)
        full = np.zeros(size, np.float32)
        full[y : y + rows, x : x + columns] = heat
        if findings:
            return Verdict(Result.NG, findings[0].sentence, findings[0].severity, tuple(findings), heat=full)
        return Verdict(Result.OK, "As taught", min(float(heat.max()), 1.0), heat=full)


def _in_cells(pixels: np.ndarray, cells: tuple[int, int]) -> np.ndarray:
    """(h, w) means of pixels (H, W) in cells, and a little around them."""
    return cv2.GaussianBlur(cv2.resize(pixels, cells[::-1], interpolation=cv2.INTER_AREA), (0, 0), _FULL)


def _agreed(pixels: np.ndarray, cells: np.ndarray) -> np.ndarray:
    """How far off cells (h, w) are, or they and their pixels (h, w) together: then each need not be sure alone."""
    return np.asarray(np.maximum(cells, np.sqrt(pixels * cells) / np.float32(_BOTH)), np.float32)


def _badness(pixels: np.ndarray, cells: np.ndarray, mask: np.ndarray, look: float) -> float:
    """Of a component: share of its mask (H, W) bool that is beyond a limit, and how far its look is."""
    return float((np.maximum(pixels[mask], cells[mask]) >= 1).mean()) + max(0.0, look - 1)


def _disk(radius: int) -> np.ndarray:
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1, 2 * radius + 1)))
