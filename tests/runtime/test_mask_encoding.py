import cv2
import numpy as np
import pytest

from hassod_ros.runtime.mask_encoding import fill_outlines, fill_runs, outlines, run_lengths

RING = np.hypot(*np.ogrid[-20.5:21, -30.5:31]) < 19
RING = (RING & (np.hypot(*np.ogrid[-20.5:21, -30.5:31]) > 7)).astype(np.uint8)
MASKS = {
    "pixel": np.ones((1, 1), np.uint8),
    "row": np.array([[0, 1, 1, 0, 1]], np.uint8),
    "column": np.array([[1], [0], [1]], np.uint8),
    "full": np.ones((4, 7), np.uint8),
    "corners that touch": np.eye(5, dtype=np.uint8),
    "a hole": RING,
    "an island in a hole": np.pad(np.pad(np.pad(np.ones((3, 3), np.uint8), 2), 2, constant_values=1), 1),
    "noise": np.random.default_rng(0).integers(0, 2, (37, 53), np.uint8),
}


@pytest.mark.parametrize("name", MASKS)
def test_run_lengths_are_those_of_coco(name):
    rle = pytest.importorskip("pycocotools.mask")
    mask = MASKS[name]
    (runs,) = run_lengths([mask])
    height, width = mask.shape
    np.testing.assert_array_equal(
        rle.decode(rle.frPyObjects({"size": [height, width], "counts": runs.tolist()}, height, width)), mask
    )
    assert (runs[1:] > 0).all()
    np.testing.assert_array_equal(fill_runs(runs, mask.shape), mask)


def test_run_lengths_of_several_masks_are_those_of_each():
    masks = list(MASKS.values())
    together = run_lengths(masks)
    assert [runs.tolist() for runs in together] == [run_lengths([mask])[0].tolist() for mask in masks]
    assert run_lengths([]) == []


@pytest.mark.parametrize("runs", [[], [5, 6], [6], [3, 2, 8]])
def test_runs_of_another_size_are_refused(runs):
    with pytest.raises(ValueError, match=r"the runs make \d+ pixels, the roi has 12"):
        fill_runs(np.array(runs, np.uint32), (3, 4))


@pytest.mark.parametrize("name", MASKS)
def test_outlines_without_tolerance_lose_nothing(name):
    mask = MASKS[name]
    np.testing.assert_array_equal(fill_outlines(outlines(mask, 0.0), mask.shape), mask)


@pytest.mark.parametrize("name", MASKS)
def test_outlines_surround_the_area_of_the_mask(name):
    """The shoelace formula: lines round the inside turn one way, those round holes the other."""
    mask = MASKS[name]
    area = 0.0
    for line in outlines(mask, 0.0):
        (x0, y0), (x1, y1) = line.T, np.roll(line, -1, axis=0).T
        area += (x0 * y1 - x1 * y0).sum() / 2
    assert abs(area) == mask.sum()


def test_simplified_outlines_are_short_and_stay_close():
    lines = outlines(RING)
    assert len(lines) == 2
    assert sum(map(len, lines)) < 0.5 * sum(map(len, outlines(RING, 0.0)))
    filled = fill_outlines(lines, RING.shape)
    assert (filled & RING).sum() / (filled | RING).sum() > 0.93
    wrong = np.argwhere(filled != RING)
    border = cv2.morphologyEx(RING, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    assert border[tuple(wrong.T)].all()


def test_small_things_survive_the_tolerance():
    for mask in (MASKS["pixel"], MASKS["row"], MASKS["column"]):
        np.testing.assert_array_equal(fill_outlines(outlines(mask), mask.shape), mask)


def test_polygons_are_filled_as_scikit_image_does():
    draw = pytest.importorskip("skimage.draw")
    star = np.array([[30, 2], [37, 22], [58, 22], [41, 35], [47, 55], [30, 43], [13, 55], [19, 35], [2, 22], [23, 22]])
    # There a pixel is a point at whole coordinates, here the square behind it.
    expected = draw.polygon2mask((60, 60), star[:, ::-1] - 0.5)
    assert (fill_outlines([star], (60, 60)) != expected).sum() <= 2  # a centre on a side belongs to either
