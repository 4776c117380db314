"""What the picture says about each mask: is it a thing, and is it scene.

A detector taught by rough labels is sure of everything; its scores hardly know which masks are good. The picture
knows: a thing has an outline along which colours change, is not cut off by its box, and shares few colours with what is
around it; wall, floor and sky lie along the picture's border and have much inside. A few such cues of every mask,
weighed by logistic models whose constants are in the model's metadata, give a score that is a probability, mark the
scene, and tell which mask may be the parent of which: a whole looks like a thing, about as much as its parts do.

All cues are taken at half the network's input size, on the cells of the masks' own probability maps: some milliseconds
for 100 masks, without any loop over masks.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.images import shrunk
from hassod_ros.outlines import colors_around

CUES = ("odds", "contrast", "faint", "straddle", "cut", "area", "border", "inside", "sharp")
MODELS = ("thing", "scene", "parent", "child")

_MARGIN = 2  # of the 14 cells of half a map, seen around a box
_SMOOTH = 0.7  # pixels of the half picture, standard deviation: noise and texture are no outline
_NEAR = np.ones((3, 3), np.uint8)  # an outline may lie so far from where the mask ends
_FLAT = 12  # of 255: smaller colour steps are no outline in any picture
_FAINT = 0.2  # of the picture's strongest steps
_STRIP = 0.03  # of the picture's sides: so near its border counts as on it
_EDGE = 1.0  # pixels of the half picture: an outline so near the border is the border's
_POINTS = 8  # of each mask, that are looked for in the others
_CONTAINED = 0.75  # share of them that has to lie in another mask
_SURE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Constants of the models: log-odds = sum of weights times `CUES` + bias, which comes last.

    Attributes:
        thing: A mask agrees with a thing or part that people would outline (IoU >= 0.5).
        scene: A mask is background or support.
        parent: As a mask that covers another one, it is what the other belongs to;
        child: as a mask that another one covers, it belongs to it: their sum decides.
        scene_area: Smaller shares of the picture are never scene, in [0, 1).
        same: What fills so much of a mask is the same thing once more and no part of it, in (0, 1].

    """

    thing: tuple[float, ...]
    scene: tuple[float, ...]
    parent: tuple[float, ...]
    child: tuple[float, ...]
    scene_area: float = 0.03
    same: float = 0.7

    def __post_init__(self) -> None:
        for name in MODELS:
            values = getattr(self, name)
            if len(values) != len(CUES) + 1 or not all(math.isfinite(value) for value in values):
                raise ValueError(f"evidence.{name} must be {len(CUES) + 1} numbers, got {values}")
        if not 0 <= self.scene_area < 1:
            raise ValueError(f"evidence.scene_area must lie in [0, 1), got {self.scene_area}")
        if not 0 < self.same <= 1:
            raise ValueError(f"evidence.same must lie in (0, 1], got {self.same}")

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Evidence:
        """From metadata, where tuples are lists."""
        constants: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in values.items()}
        return cls(**constants)

    def judge(self, cues: np.ndarray) -> Judgement:
        """What (N, C) `find_cues` say."""
        constants = np.array([getattr(self, name) for name in MODELS], np.float32)
        thing, scene, parent, child = (cues @ constants[:, :-1].T + constants[:, -1]).T
        is_scene = (scene > 0) & (np.exp(cues[:, CUES.index("area")]) > self.scene_area)
        allowed = (parent[None] + child[:, None] > 0) & ~is_scene[None] & ~is_scene[:, None]
        scores = 1 / (1 + np.exp(np.minimum(-np.where(is_scene, scene, thing), 80)))  # float32 ends at exp(88)
        return Judgement(scores.astype(np.float32), is_scene, allowed)


def read_evidence(path: str | os.PathLike) -> Evidence:
    """The constants of a JSON file.

    Raises:
        InputError: No such file, or not such constants.

    """
    try:
        return Evidence.from_mapping(json.loads(Path(path).read_text(encoding="utf-8")))
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}); give a file such as config/evidence.json"
        ) from error
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} holds no constants of evidence ({error}); compare config/evidence.json") from error


@dataclass(frozen=True)
class Judgement:
    """What evidence says about N masks.

    Attributes:
        scores: (N,) float32 probability of being a thing, or scene where it is scene.
        scene: (N,) bool.
        allowed: (N, N) bool, whether each mask (row) may have each other (column) as parent.

    """

    scores: np.ndarray
    scene: np.ndarray
    allowed: np.ndarray

    def select(self, index: np.ndarray) -> Judgement:
        """That of the masks of an index array, in that order."""
        return Judgement(self.scores[index], self.scene[index], self.allowed[np.ix_(index, index)])


def find_cues(
    maps: np.ndarray, boxes: np.ndarray, scores: np.ndarray, image: np.ndarray, mask_threshold: float
) -> np.ndarray:
    """Cues of N masks of one picture.

    Args:
        maps: (N, M, M) float32 probabilities over the boxes, as they will be drawn.
        boxes: (N, 4) float32 xyxy in pixels of `image`, each with an area.
        scores: (N,) of the detector, in [0, 1].
        image: (h, w, 3) uint8 RGB: the network's input without its padding.
        mask_threshold: Probability above which a cell belongs to the mask.

    Returns:
        (N, C) float32, in the order of `CUES`:

        * odds: log-odds of the detector's score.
        * contrast: mean colour step along the outline, over the picture's strong ones (95th percentile), in [0, 1].
        * faint: share of the outline along which colours hardly change.
        * straddle: pixels whose colour is as common outside the mask, over all its pixels.
        * cut: largest share of a side of its box that it fills, where that is not the picture's border.
        * area: logarithm of the share of the picture.
        * border: length along the picture's border over the root of its area.
        * inside: share of the other masks that lie in it and are less than half as large.
        * sharp: mean probability inside.

    """
    count, side = maps.shape[:2]
    if not count:
        return np.zeros((0, len(CUES)), np.float32)
    boxes, image = boxes * np.float32(0.5), shrunk(image, 0.5)
    height, width = image.shape[:2]
    mask = maps > mask_threshold
    filled = mask.astype(np.float32)
    cells = np.maximum(filled.sum(axis=(1, 2)), 1)
    sizes = (boxes[:, 2:] - boxes[:, :2]) / side  # (N, 2) of a cell, in pixels
    area = np.maximum(cells * sizes[:, 0] * sizes[:, 1], 1e-3)
    steps = (np.arange(side, dtype=np.float32) + 0.5) / side
    columns = boxes[:, :1] + steps * (boxes[:, 2:3] - boxes[:, :1])  # (N, M) pixels
    rows = boxes[:, 1:2] + steps * (boxes[:, 3:] - boxes[:, 1:2])
    contrast, faint = _along_outlines(mask, columns, rows, image)
    clipped = np.clip(scores, _SURE, 1 - _SURE)
    return np.stack(
        [
            np.log(clipped / (1 - clipped)),
            contrast,
            faint,
            _straddle(mask, boxes, image),
            _cut(filled, boxes, height, width),
            np.log(area / (height * width)),
            _border(filled, columns, rows, sizes, height, width) / np.sqrt(area),
            _inside(mask, area, columns, rows, boxes, cells.astype(np.int64)),
            (filled * maps).sum(axis=(1, 2)) / cells,
        ],
        axis=1,
    ).astype(np.float32)


def _along_outlines(
    mask: np.ndarray, columns: np.ndarray, rows: np.ndarray, image: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Contrast and faint."""
    lab = cv2.GaussianBlur(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), (0, 0), _SMOOTH)
    step = cv2.transform(cv2.morphologyEx(lab, cv2.MORPH_GRADIENT, _NEAR), np.ones((1, 3), np.float32))
    order = np.cumsum(cv2.calcHist([step], [0], None, [256], [0, 256]))
    strong = max(_FLAT, int(np.searchsorted(order, 0.95 * order[-1])))
    height, width = step.shape
    count, side = mask.shape[:2]
    # Cells of all masks in one row: four neighbours each, of which those of the rims do not count.
    flat, inner = mask.ravel(), np.zeros(mask.shape, bool)
    reach = inner.ravel()[side:-side]
    np.logical_and(flat[: -2 * side], flat[2 * side :], out=reach)
    reach &= flat[side - 1 : -side - 1]
    reach &= flat[side + 1 : len(flat) - side + 1]
    rim = np.zeros((side, side), bool)
    rim[1:-1, 1:-1] = True
    outline = mask & ~(inner & rim)
    outline &= ((columns >= _EDGE) & (columns < width - _EDGE))[:, None, :]
    outline &= ((rows >= _EDGE) & (rows < height - _EDGE))[:, :, None]
    places = np.flatnonzero(outline)
    line = places // side  # half the time of np.divmod
    column = places - line * side
    owner = line // side
    starts = rows.astype(np.intp) * width
    pixels = starts.ravel().take(line) + columns.astype(np.intp).ravel().take(owner * side + column)
    found = cv2.dilate(step, _NEAR).ravel().take(pixels)
    length = np.maximum(np.bincount(owner, minlength=count), 1)
    contrast = np.bincount(owner, np.minimum(found, strong), count) / (strong * length)
    return contrast, np.bincount(owner, found < _FAINT * strong, count) / length


def _straddle(mask: np.ndarray, boxes: np.ndarray, image: np.ndarray) -> np.ndarray:
    mask = mask[:, 1::2, 1::2]  # every second cell tells as much
    count, side = mask.shape[:2]
    sampled, kinds = colors_around(image, boxes, side, _MARGIN)
    colors = sampled + np.arange(0, count * kinds, kinds)[:, None, None]  # a histogram for each mask
    total = np.bincount(colors.ravel(), minlength=count * kinds)
    inside = np.bincount(colors[:, _MARGIN:-_MARGIN, _MARGIN:-_MARGIN].ravel(), mask.ravel(), count * kinds)
    shared = np.minimum(inside, total - inside).reshape(count, kinds).sum(axis=1)
    return shared / np.maximum(np.count_nonzero(mask, axis=(1, 2)), 1)


def _cut(filled: np.ndarray, boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    sides = np.stack([filled[:, 0], filled[:, -1], filled[:, :, 0], filled[:, :, -1]]).mean(axis=2)
    x0, y0, x1, y1 = boxes.T
    free = np.stack([y0 > _EDGE, y1 < height - _EDGE, x0 > _EDGE, x1 < width - _EDGE])
    return np.asarray((sides * free).max(axis=0))


def _border(
    filled: np.ndarray, columns: np.ndarray, rows: np.ndarray, sizes: np.ndarray, height: int, width: int
) -> np.ndarray:
    """(N,) pixels of the picture's border along which each mask lies."""
    beside = np.stack([columns < _STRIP * width, columns > (1 - _STRIP) * width], axis=2).astype(np.float32)
    above = np.stack([rows < _STRIP * height, rows > (1 - _STRIP) * height], axis=1).astype(np.float32)
    lines = np.count_nonzero(filled @ beside, axis=(1, 2)), np.count_nonzero(above @ filled, axis=(1, 2))
    return lines[0] * sizes[:, 1] + lines[1] * sizes[:, 0]


def _inside(
    mask: np.ndarray, area: np.ndarray, columns: np.ndarray, rows: np.ndarray, boxes: np.ndarray, cells: np.ndarray
) -> np.ndarray:
    count, side = mask.shape[:2]
    flat = mask.reshape(count, -1)
    flat[~flat.any(axis=1), 0] = True  # an empty mask is judged by its corner, and is dropped later
    places = np.flatnonzero(flat)
    start = np.cumsum(cells) - cells
    picked = places[start[:, None] + ((np.arange(_POINTS) + 0.5) / _POINTS * cells[:, None]).astype(np.intp)]  # (N, P)
    row, column = np.divmod(picked, side)  # rows of all masks, one after the other
    x = columns.ravel().take(picked // side**2 * side + column)
    y = rows.ravel().take(row)
    x0, y0, x1, y1 = np.ascontiguousarray(boxes.T)
    across = np.minimum.outer(x1, x1) - np.maximum.outer(x0, x0)
    along = np.minimum.outer(y1, y1) - np.maximum.outer(y0, y0)
    common = np.maximum(across, 0) * np.maximum(along, 0)
    # What lies in another mask has most of its box in the other's.
    inner_box = (x1 - x0) * (y1 - y0)
    pairs = np.flatnonzero((area[None] < 0.5 * area[:, None]) & (common >= 0.5 * inner_box[None]))
    outer, inner = np.divmod(pairs, count)
    column = ((x[inner] - x0[outer, None]) * (side / (x1 - x0))[outer, None]).astype(np.intp)  # (pairs, P)
    row = ((y[inner] - y0[outer, None]) * (side / (y1 - y0))[outer, None]).astype(np.intp)
    within = (column >= 0) & (column < side) & (row >= 0) & (row < side)
    place = outer[:, None] * side**2 + np.where(within, row * side + column, 0)
    found = flat.ravel().take(place) & within
    contained = np.count_nonzero(found, axis=1) >= _CONTAINED * _POINTS
    return np.bincount(outer[contained], minlength=count) / max(count - 1, 1)
