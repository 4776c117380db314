"""The order of candidates beside a dense reference, and what it is for."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from hassod_ros.discovery.filters import Masks
from hassod_ros.discovery.rank import ranked
from hassod_ros.masks import mask_areas
from hassod_ros.visibility import changes


def of_dense(dense: list[np.ndarray]) -> Masks:
    regions, crops = [], []
    for mask in dense:
        x, y, w, h = cv2.boundingRect(mask.astype(np.uint8))
        regions.append((x, y, x + w, y + h))
        crops.append(np.ascontiguousarray(mask[y : y + h, x : x + w].astype(np.uint8)))
    return Masks(np.array(regions, np.int64).reshape(-1, 4), crops, np.ones(len(crops), np.float32))


def to_dense(masks: Masks, size: tuple[int, int]) -> np.ndarray:
    dense = np.zeros((len(masks.crops), *size), bool)
    for mask, (x0, y0, x1, y1), crop in zip(dense, masks.regions, masks.crops, strict=True):
        mask[y0:y1, x0:x1] = crop > 0
    return dense


def picture(*squares: tuple[int, int, int], size: tuple[int, int] = (80, 100)) -> np.ndarray:
    image = np.full((*size, 3), 90, np.uint8)
    for y, x, side in squares:
        image[y : y + side, x : x + side] = (200, 180, 40)
    return image


def square(y: int, x: int, side: int, size: tuple[int, int] = (80, 100)) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[y : y + side, x : x + side] = True
    return mask


@pytest.mark.parametrize("duplicate", [0.9, None])
def test_scores_are_what_the_description_says(duplicate):
    random = np.random.default_rng(0)
    image = random.integers(0, 256, (80, 100, 3), np.uint8)
    dense = []
    for _ in range(12):
        side = int(random.integers(8, 50))
        y, x = random.integers(0, 80 - side), random.integers(0, 100 - side)
        dense += [square(y, x, side), square(y, x, side - 1), square(max(0, y - 1), x, side), square(y, x, side - 2)]
    views = random.integers(0, 5, len(dense))
    found = ranked(image, of_dense(dense), views, duplicate)

    flat = np.stack(dense).reshape(len(dense), -1).astype(int)
    common = flat @ flat.T
    iou = common / (flat.sum(1)[:, None] + flat.sum(1) - common)
    steps = changes(image, 640)
    near, inner = cv2.dilate(steps, np.ones((3, 3), np.uint8)), np.zeros((80, 100), bool)
    inner[1:-1, 1:-1] = True
    expected = []
    for i, mask in enumerate(dense):
        seen = len({views[j] for j in range(len(dense)) if iou[i, j] >= 0.7})
        cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
        outline = mask & (cv2.erode(mask.astype(np.uint8), cross) == 0)
        contrast = near[outline & inner].mean()
        expected.append(seen / (1 + seen) * contrast / (contrast + steps[mask].mean()) * mask.mean() ** 0.1)
    kept: list[int] = []
    score: dict[int, float] = {}
    for i in np.argsort(-np.array(expected), kind="stable").tolist():
        if duplicate is not None and any(iou[i, j] >= duplicate for j in kept):
            continue
        again = any(iou[i, j] >= 0.7 and score[j] == expected[j] for j in kept)
        score[i] = expected[i] * (0.5 if again else 1)
        kept.append(i)
    kept.sort(key=lambda i: -score[i])
    np.testing.assert_allclose(found.scores, [score[i] for i in kept], rtol=1e-5)
    assert (to_dense(found, (80, 100)) == np.stack([dense[i] for i in kept])).all()
    assert len(kept) < len(dense) if duplicate else len(kept) == len(dense)


def test_what_several_views_show_comes_first():
    image = picture((10, 10, 20), (40, 60, 20))
    once, twice = square(10, 10, 20), square(40, 60, 20)
    found = ranked(image, of_dense([once, once, twice, twice]), np.array([0, 0, 0, 1]), 0.9)
    assert (to_dense(found, (80, 100)) == [twice, once]).all()


def test_what_ends_at_an_edge_comes_before_what_crosses_it():
    image = picture((20, 30, 30))
    found = ranked(image, of_dense([square(20, 45, 30), square(20, 30, 30)]), np.zeros(2, int), 0.9)
    assert (to_dense(found, (80, 100))[0] == square(20, 30, 30)).all()


def test_another_thing_comes_before_the_same_once_more():
    image = picture((10, 10, 30), (50, 70, 12))
    same = [square(10, 10, 30), square(10, 10, 28)]
    found = ranked(image, of_dense([*same, square(50, 70, 12)]), np.array([0, 1, 2]), 0.9)
    assert mask_areas(found.crops)[1] == 144


def test_large_pictures_are_ranked_as_small_ones():
    size, squares = (800, 1400), [(100, 100, 300), (102, 98, 300), (500, 900, 200), (13, 1301, 1)]
    image = picture((100, 100, 300), (500, 900, 200), size=size)
    found = ranked(image, of_dense([square(*each, size) for each in squares]), np.array([0, 1, 1, 1]), 0.9)
    assert mask_areas(found.crops).tolist() == [90000, 40000, 1]  # at every second pixel, and whole


def test_nothing_stays_nothing():
    nothing = of_dense([])
    assert len(ranked(picture(), nothing, np.zeros(0, int), 0.9).crops) == 0
