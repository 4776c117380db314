"""Judges pictures by a reference."""

from __future__ import annotations

import cv2
import numpy as np

from hassod_ros.inspection import judge
from hassod_ros.inspection.align import Aligner
from hassod_ros.inspection.look import agreements
from hassod_ros.inspection.reference import LEAST_TRUST, Reference, even_out
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Finding, Kind, Result, Verdict, undecided
from hassod_ros.inspection.view import Observe, View, blank, see, to_cells

_COVER = 0.7  # share of what is looked at that must be in the picture
_SHOWN = 0.5  # share of a component that must be
_SHIFTS = [(step * x, step * y) for step in (1 / 3, 2 / 3, 1) for x, y in ((1, 0), (-1, 0), (0, 1), (0, -1))]
_UNLIT = (4.0, 1.25)  # percent, and times what the good pictures have, of changed light from which there is a warning
_DARK = (18.0, 2.0)  # likewise, from which a part is not judged


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
        if reference.texture is None:
            self._aligner = Aligner(reference.ideal, reference.mask, float(np.median(reference.trust)))
            self._known = judge.Known.of(reference.ideal, reference.components, reference.seen)

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
        view = see(picture, alignment, self.reference.ideal, self.reference.mask, self._observe)
        cover = np.count_nonzero(view.covered) / np.count_nonzero(self.reference.mask)
        if cover < _COVER:
            return undecided(f"Only {cover:.0%} of the part are in the picture", alignment, view.light)
        outside = self._outside(view)
        if outside:
            return undecided(f"Component {outside} lies outside the picture", alignment, view.light)
        usual = float(self.reference.light.max(initial=0.0))
        if view.light.change > _DARK[0] + _DARK[1] * usual:
            return undecided(f"The light is {view.light.change:.0f} % off what was taught", alignment, view.light)
        warning = ""
        if view.light.change > _UNLIT[0] + _UNLIT[1] * usual:
            warning = f"the light is {view.light.change:.0f} % off what was taught"
        return self._judge(view, warning)

    def _outside(self, view: View) -> int:
        """The first component, counted from 1, of which the picture shows less than half; 0 where there is none."""
        for number, component in enumerate(self.reference.components, start=1):
            x0, y0, x1, y1 = component.box
            looked_at = component.mask & (self.reference.mask[y0:y1, x0:x1] > 0)
            if np.count_nonzero(looked_at & view.covered[y0:y1, x0:x1]) < _SHOWN * np.count_nonzero(looked_at):
                return number
        return 0

    def _judge(self, view: View, warning: str) -> Verdict:
        pixels, cells, looks, unlike = self._measure(view)
        settings = self.settings
        findings = judge.find(
            view,
            self._known,
            pixels,
            cells,
            looks,
            unlike,
            margin=settings.margin,
            position=settings.position,
            least_area=settings.least_area,
        )
        turned = abs(view.alignment.angle)
        if turned > settings.angle:
            height, width = view.picture_size
            text = f"The part is turned by {view.alignment.angle:.1f} degrees"
            findings.insert(0, Finding(Kind.MOVED, 0, (0, 0, width, height), turned, settings.angle, "deg", text))
        heat = np.maximum(pixels, cells)
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

    def _measure(self, view: View) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """How far off everything is, over its limit.

        Returns:
            Pixels and cells, each (H, W) float32, and the components: (N,) float32 by all means, and by `Likeness`.

        """
        reference, limits = self.reference, self._limits
        assert reference.pixels is not None  # a texture is judged elsewhere
        assert reference.colours is not None
        limit = limits["pixels"]
        pixels = reference.pixels.measure(view.pixels, view.covered)
        reach = max(1, round(self.settings.position))
        pixels = reference.pixels.allow_shifts(pixels, limit, view.pixels, self._known.ideal, reach) / np.float32(limit)
        covered = view.covered_cells
        height, width = view.covered.shape
        cells = reference.colours.measure(view.colours, covered) / limits["colours"]
        rows, columns = cells.shape
        for x, y in _SHIFTS:  # edges that lie a little off are no other colour
            if (cells < 1).all():
                break
            moved = to_cells(view.fine, (rows, columns), (x * reach, y * reach))
            cells = np.minimum(cells, reference.colours.measure(moved, covered) / limits["colours"])
        looks: np.ndarray = np.zeros(len(reference.components), np.float32)
        unlike: np.ndarray = looks
        if reference.colour_looks is not None:
            looks = reference.colour_looks.measure(view.colours) / limits["colour_looks"]
        if reference.network is not None and view.network is not None:
            features = even_out(view.network, reference.channels)
            cells = np.maximum(cells, reference.network.measure(features, covered) / limits["network"])
            if reference.likeness is not None:
                seen = agreements(view.detector, reference.components, (height, width))
                unlike = reference.likeness.measure(view.network, seen) / limits["likeness"]
        wide = cv2.resize(cells.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
        return pixels, wide * view.covered, np.maximum(looks, unlike), unlike

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
