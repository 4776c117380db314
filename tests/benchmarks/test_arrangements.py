"""Two annotators' drawings as wholes and parts."""

import numpy as np
from pycocotools import mask as coco_masks

from benchmarks.arrangements import coarse_and_fine
from hassod_ros.evaluation.annotations import Picture, to_segments


def segment(annotator: int, columns: slice) -> dict:
    mask = np.zeros((8, 8), np.uint8)
    mask[:, columns] = 1
    return {"segmentation": coco_masks.encode(np.asfortranarray(mask)), "annotator": annotator}


def test_the_finest_drawing_gives_the_parts_of_the_coarsest():
    coarse = [segment(2, slice(0, 6)), segment(2, slice(6, 8))]
    middle = [segment(0, slice(0, 1)), segment(0, slice(1, 6)), segment(0, slice(6, 8))]
    fine = [segment(1, slice(0, 3)), segment(1, slice(3, 5)), segment(1, slice(5, 7)), segment(1, slice(7, 8))]
    truth = to_segments([*middle, *fine, *coarse], (8, 8), with_masks=True)
    found = coarse_and_fine(Picture(1, "a.png", (8, 8), truth)).truth
    assert found.areas.tolist() == [48, 16, 24, 16, 16, 8]
    assert found.parents.tolist() == [-1, -1, 0, 0, -1, 1]  # half of the third lies in either whole
    assert not found.annotators.any()

    twice = to_segments([*coarse, *middle], (8, 8), with_masks=True)
    found = coarse_and_fine(Picture(1, "a.png", (8, 8), twice)).truth
    assert found.areas.tolist() == [48, 16, 8, 40]  # what both drew stands once
    assert found.parents.tolist() == [-1, -1, 0, 0]


def test_a_picture_that_one_person_drew_stays_as_it_is():
    picture = Picture(1, "a.png", (8, 8), to_segments([segment(0, slice(0, 4))], (8, 8), with_masks=True))
    assert coarse_and_fine(picture) is picture
