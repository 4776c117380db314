"""Figures that no library computes, against values worked out by hand."""

import math

import numpy as np
import pytest

from hassod_ros.evaluation.annotations import AnnotatedSet, Picture, to_segments
from hassod_ros.evaluation.evaluate import evaluate


def run(truth, predictions, **options):
    pictures = [Picture(1, "a.jpg", (40, 60), to_segments(truth, (40, 60), stated_areas=True))]
    segments = to_segments(predictions, (40, 60))
    return evaluate(AnnotatedSet(pictures, True), {1: segments} if len(segments) else {}, **options)


@pytest.fixture
def car(entry):
    """A whole with three parts."""
    return [
        entry((0, 0, 40, 20), id=1, part=False),
        entry((0, 0, 10, 10), id=2, part=True, whole_id=1),
        entry((20, 0, 30, 10), id=3, part=True, whole_id=1),
        entry((30, 10, 40, 20), id=4, part=True, whole_id=1),
    ]


def test_parents_right_wrong_and_missing(car, entry):
    predictions = [
        entry((0, 0, 40, 18), id=1, score=0.9, level=0),
        entry((0, 0, 10, 20), id=2, score=0.8, level=1, parent_id=1),  # IoU 0.5 with the first part
        entry((0, 0, 10, 9), id=3, score=0.2, level=2, parent_id=2),  # overlaps it more: speaks for it, two steps up
        entry((20, 0, 30, 10), id=4, score=0.7, level=0),  # a part without parent
    ]
    found = run(car, predictions)["mask"]["parents"]
    assert (found["parts"], found["found"], found["whole_found_too"], found["nested_right"]) == (3, 2, 2, 1)
    assert found["accuracy"] == pytest.approx(1 / 2)
    assert found["of_all_parts"] == pytest.approx(1 / 3)


def test_a_parent_that_misses_the_whole_does_not_count(car, entry):
    predictions = [
        entry((0, 0, 12, 12), id=1, level=0),
        entry((0, 0, 10, 10), id=2, level=1, parent_id=1),
    ]
    found = run(car, predictions)["mask"]["parents"]
    assert (found["found"], found["whole_found_too"], found["nested_right"]) == (1, 0, 0)
    assert math.isnan(found["accuracy_where_whole_found"])


def test_what_hangs_on_another_thing_should_lie_in_it(car, entry):
    beside = [*car, entry((5, 5, 15, 10), id=5), entry((50, 30, 60, 40), id=6)]  # half of the fifth lies in the second
    predictions = [
        entry((0, 0, 40, 20), id=1, level=0),
        entry((0, 0, 10, 10), id=2, level=1, parent_id=1),  # on its whole
        entry((5, 5, 15, 10), id=5, level=2, parent_id=2),  # on the second, as half of it lies there, and on the whole
        entry((20, 0, 30, 10), id=3, level=2, parent_id=2),  # on the whole, and wrongly on the second
        entry((50, 30, 60, 40), id=6, level=1, parent_id=1),  # wrongly on the whole
    ]
    found = run(beside, predictions)["mask"]["parents"]
    assert (found["found"], found["nested_right"], found["hanging"]) == (2, 2, 6)
    assert found["precision"] == pytest.approx(4 / 6)
    assert found["pairs"] == 3  # the set states three parts of one whole; two of the six are among them
    assert found["pair_precision"] == pytest.approx(2 / 6)
    assert found["pair_recall"] == pytest.approx(2 / 3)
    assert found["pair_F1"] == pytest.approx(4 / 9)


def test_pairs_of_annotations_that_resemble_each_other_are_all_right_when_predicted(entry):
    # The second and the first overlap by nine tenths; the third lies in both and is stated a part of the first alone.
    alike = [
        entry((0, 0, 40, 20), id=1, level=0),
        entry((0, 0, 36, 20), id=2, level=1, parent_id=1),
        entry((0, 0, 10, 10), id=3, level=1, parent_id=1),
    ]
    found = run(alike, alike)["mask"]["parents"]
    assert (found["pairs"], found["pair_precision"], found["pair_recall"], found["pair_F1"]) == (2, 1, 1, 1)
    # Below what speaks for the second it is wrong, though that overlaps the first as well.
    wrong = [alike[0], alike[1], alike[2] | {"parent_id": 2}]
    found = run(alike, wrong)["mask"]["parents"]
    assert (found["pair_precision"], found["pair_recall"]) == (pytest.approx(2 / 3), 1)


def test_levels(car, entry):
    predictions = [
        entry((0, 0, 40, 20), id=1, score=0.9, level=0),
        entry((0, 0, 10, 10), id=2, score=0.8, level=1),
        entry((20, 0, 30, 10), id=3, score=0.7, level=0),
    ]
    levels = run(car, predictions)["mask"]["levels"]
    assert levels["predicted"]["whole"] == {"predictions": 2, "AR_alone": 0.5}
    assert levels["predicted"]["part"] == {"predictions": 1, "AR_alone": 0.25}
    assert levels["annotated"]["whole"] == {"annotations": 1, "AR": 1.0, "level_right": 1.0}
    assert levels["annotated"]["part"] == {"annotations": 3, "AR": pytest.approx(2 / 3), "level_right": 0.5}
    assert "subpart" not in levels["annotated"]


def test_level_accuracy_asks_who_overlaps_most(car, entry):
    predictions = [
        entry((0, 0, 40, 20), id=1, score=0.2, level=0),  # speaks for the whole
        entry((0, 0, 40, 15), id=2, score=0.9, level=1),
        entry((0, 0, 10, 10), id=3, score=0.8, level=2),
        entry((20, 0, 30, 10), id=4, score=0.7, level=0),
        entry((50, 30, 60, 40), id=5, score=0.7, level=0),
    ]
    accuracy = run(car, predictions)["mask"]["levels"]["accuracy"]
    assert accuracy == {"whole": 1.0, "part": 0.5, "mean": 0.75}


def test_without_stated_levels_what_lies_in_no_other_is_a_whole(entry):
    truth = [entry((0, 0, 20, 20), id=1), entry((0, 0, 10, 10), id=2), entry((30, 0, 50, 20), id=3)]
    predictions = [
        entry((0, 0, 20, 20), id=1, level=0),
        entry((0, 0, 10, 10), id=2, level=0),  # right or wrong: nobody said what it is
        entry((30, 0, 50, 20), id=3, level=1),
    ]
    accuracy = run(truth, predictions)["mask"]["levels"]["accuracy"]
    assert accuracy["whole"] == 0.5
    assert math.isnan(accuracy["part"])
    # A crowd, or stuff below it, does not make a thing a part.
    truth += [entry((0, 0, 60, 40), id=4, iscrowd=1), entry((0, 0, 60, 40), id=5, isthing=0)]
    assert run(truth, predictions)["mask"]["levels"]["accuracy"]["whole"] == 0.5


def test_stuff_among_the_best(entry):
    truth = [
        entry((0, 0, 20, 20), id=1, isthing=1),
        entry((0, 20, 60, 40), id=2, isthing=0),
        entry((20, 0, 60, 20), id=3, isthing=0),
    ]
    wall = [entry((20, 0, 60, 40), id=i, score=0.9 - i / 100) for i in range(1, 10)]  # half on either
    things = [entry((0, 0, 20, 22), id=i, score=0.5 - i / 100) for i in range(10, 13)]
    found = run(truth, [*wall, *things])["mask"]
    assert found["stuff@10"] == pytest.approx(9 / 10)
    assert found["stuff@20"] == pytest.approx(9 / 12)
    assert math.isnan(run(truth[:1], things)["mask"]["stuff@10"])


def test_scene_counts_only_on_wish(car, entry):
    predictions = [entry((0, 0, 40, 20), id=1, scene=True), entry((0, 0, 10, 10), id=2, level=1)]
    assert run(car, predictions)["counts"]["predictions"] == 1
    assert run(car, predictions)["mask"]["AR@100"] == 0.25
    assert run(car, predictions, with_scene=True)["mask"]["AR@100"] == 0.5


def test_calibration(car, entry):
    right = [entry((0, 0, 40, 20), score=0.9), entry((0, 0, 10, 10), score=0.9)]
    wrong = [entry((50, 30, 55, 35), score=0.1), entry((45, 30, 55, 35), score=0.9)]
    found = run(car, right + wrong)["mask"]["calibration"]
    assert found["curve"]["predictions"] == [1, 3]
    assert found["curve"]["precision"] == pytest.approx([0, 2 / 3])
    assert found["ECE"] == pytest.approx(0.25 * 0.1 + 0.75 * (0.9 - 2 / 3))


def test_covering_and_best_overlap(entry):
    truth = [
        entry((0, 0, 60, 30), id=1, annotator=0),
        entry((0, 30, 60, 40), id=2, annotator=0),
        entry((0, 0, 60, 40), id=3, annotator=1),
    ]
    found = run(truth, [entry((0, 0, 60, 30), score=0.5), entry((0, 0, 60, 40), score=0.4)])["mask"]
    first = 0.75 * 1.0 + 0.25 * 0.25
    assert found["covering"] == pytest.approx((first + 1.0) / 2)
    assert found["best_iou@1"] == pytest.approx((1 + 0 + 0.75) / 3)
    assert found["best_iou@10"] == pytest.approx((1 + 0.25 + 1) / 3)


def test_annotators_are_matched_apart(entry):
    same = [entry((0, 0, 20, 20), id=i, annotator=i) for i in (1, 2, 3)]
    assert run(same, [entry((0, 0, 20, 20))])["mask"]["AR@1"] == 1.0


def test_small_annotations_can_be_left_out(entry):
    truth = [entry((0, 0, 20, 20), id=1), entry((30, 0, 32, 2), id=2)]
    guess = [entry((0, 0, 20, 20))]
    assert run(truth, guess)["mask"]["AR@10"] == 0.5
    assert run(truth, guess, min_area=10)["mask"]["AR@10"] == 1.0


def test_only_the_best_predictions_count(entry):
    guesses = [entry((40, 20, 50, 30), score=0.9), entry((0, 0, 20, 20), score=0.8)]
    truth = [entry((0, 0, 20, 20), id=1)]
    assert run(truth, guesses, max_detections=1)["mask"]["AP"] == 0
    assert run(truth, guesses, max_detections=2)["mask"]["recall_by_detections"] == {
        "detections": [1, 2],
        "recall": [0.0, 1.0],
    }


def test_a_crowd_is_neither_hit_nor_miss(entry):
    truth = [entry((0, 0, 20, 20), id=1), entry((30, 0, 60, 40), id=2, iscrowd=1)]
    guesses = [entry((0, 0, 20, 20), score=0.5)] + [entry((30, i, 60, i + 5), score=0.9) for i in range(10)]
    found = run(truth, guesses)
    assert found["mask"]["AP"] == pytest.approx(1.0)
    assert found["counts"]["annotations"] == 1
    assert found["mask"]["calibration"]["curve"]["predictions"] == [1]


def test_images_without_annotations_have_no_rank():
    found = run([], [])
    assert found["pictures"] == []
    assert np.isnan(found["mask"]["AR@100"])


@pytest.mark.parametrize("without", ["truth", "predictions"])
def test_where_one_side_has_boxes_only_boxes_are_scored(entry, without):
    truth = to_segments([entry((0, 0, 20, 20), id=1)], (40, 60), with_masks=without != "truth")
    guess = to_segments([entry((0, 0, 20, 16))], (40, 60), with_masks=without != "predictions")
    annotated = AnnotatedSet([Picture(1, "a.jpg", (40, 60), truth)], without != "truth")
    found = evaluate(annotated, {1: guess})
    assert "mask" not in found
    assert found["box"]["AR@1"] == pytest.approx(0.7)  # IoU 0.8: seven thresholds of ten
