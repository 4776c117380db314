import numpy as np
import pytest

from hassod_ros.instances import Level
from hassod_ros.runtime.postprocess import (
    PostprocessOptions,
    RawDetections,
    select_rows,
    to_instances,
)
from hassod_ros.runtime.preprocess import Letterbox


def raw(boxes, scores=None, levels=None, masks=None, count=None):
    n = len(boxes)
    return RawDetections(
        boxes=np.asarray(boxes, np.float32)[None],
        scores=np.asarray(np.linspace(0.9, 0.6, n) if scores is None else scores, np.float32)[None],
        level_probabilities=np.eye(3, dtype=np.float32)[np.zeros(n, int) if levels is None else levels][None],
        masks=(np.ones((n, 28, 28), np.float32) if masks is None else masks)[None],
        count=np.array([n if count is None else count], np.int32),
        converged=np.ones(1, bool),
    )


def test_instances_satisfy_their_invariants_whatever_the_network_says():
    rng = np.random.default_rng(2)
    for _ in range(30):
        n = 40
        corner = rng.uniform(-30, 90, (n, 2))
        boxes = np.concatenate([corner, corner + rng.uniform(0, 60, (n, 2))], axis=1)
        detections = raw(boxes, rng.random(n), rng.integers(0, 3, n), rng.random((n, 28, 28)).astype(np.float32))
        placed = Letterbox.fit((97, 131), (64, 80))
        instances = to_instances(detections, 0, placed, PostprocessOptions(score_thresholds=(0.1, 0.1, 0.1)))
        assert instances.image_size == (97, 131)
        assert (np.diff(instances.scores) <= 0).all()
        assert len(instances) > 5


def test_parents_cover_their_parts_and_are_of_a_higher_level():
    boxes = [[0, 0, 60, 60], [5, 5, 35, 35], [10, 10, 20, 20], [70, 10, 78, 18]]
    instances = to_instances(
        raw(boxes, levels=[0, 1, 2, 2]), 0, Letterbox.fit((64, 80), (64, 80)), PostprocessOptions()
    )
    assert instances.parents.tolist() == [-1, 0, 1, -1]
    assert instances.levels.tolist() == [0, 1, 2, 2]


def test_the_level_head_overrules_the_masks():
    """A whole inside a part stays a whole without a parent; a subpart skips a subpart around it."""
    boxes = [[0, 0, 60, 60], [5, 5, 50, 50], [6, 6, 40, 40], [10, 10, 20, 20]]
    instances = to_instances(
        raw(boxes, levels=[1, 0, 2, 2]), 0, Letterbox.fit((64, 80), (64, 80)), PostprocessOptions()
    )
    assert instances.levels.tolist() == [1, 0, 2, 2]
    assert instances.parents.tolist() == [-1, -1, 1, 1]


def test_levels_follow_from_the_masks_where_the_head_is_not_asked():
    found = to_instances(
        raw([(2, 2, 12, 12), (0, 0, 30, 30), (4, 4, 6, 6)], levels=[0, 1, 0]),
        0,
        Letterbox.fit((48, 64), (48, 64)),
        PostprocessOptions(level_source="coverage"),
    )
    assert found.levels.tolist() == [Level.PART, Level.WHOLE, Level.SUBPART]
    assert found.parents.tolist() == [1, -1, 0]


def test_the_deepest_covering_mask_is_the_parent():
    # The third is smaller than the second, but reaches out of the first; the fourth lies in all of them.
    found = to_instances(
        raw([(0, 0, 60, 9), (0, 0, 44, 9), (35, 0, 77, 9), (36, 0, 43, 9)]),
        0,
        Letterbox.fit((64, 80), (64, 80)),
        PostprocessOptions(level_source="coverage"),
    )
    assert found.parents.tolist() == [-1, 0, -1, 1]
    assert found.levels.tolist() == [Level.WHOLE, Level.PART, Level.WHOLE, Level.SUBPART]


def test_a_mask_cut_off_by_its_box_is_no_parent_where_a_whole_one_covers_the_part_too():
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    masks = np.ones((3, 28, 28), np.float32)
    masks[0] = np.abs(x) + np.abs(y) < 1  # the thing; the second is a window onto a part of it and what is beside
    # The last lies in the window, and with all but a corner in the thing.
    boxes = [(4, 4, 60, 60), (30, 2, 62, 34), (34, 14, 46, 26)]
    placed, options = Letterbox.fit((64, 80), (64, 80)), PostprocessOptions(level_source="coverage")
    assert to_instances(raw(boxes, masks=masks), 0, placed, options).parents.tolist() == [-1, -1, 0]
    masks[0, :, :2] = 1  # fills a side as well: then what covers more of the part wins
    assert to_instances(raw(boxes, masks=masks), 0, placed, options).parents.tolist() == [-1, -1, 1]


def test_the_threshold_of_the_level_that_the_masks_tell_counts():
    found = to_instances(
        raw([(0, 0, 30, 30), (2, 2, 12, 12), (40, 4, 46, 9)], scores=[0.9, 0.5, 0.5], levels=[0, 0, 1]),
        0,
        Letterbox.fit((48, 64), (48, 64)),
        PostprocessOptions(score_thresholds=(0.7, 0.4, 0.4), level_source="coverage"),
    )
    assert found.levels.tolist() == [Level.WHOLE, Level.PART]
    assert found.parents.tolist() == [-1, 0]


def test_outlines_follow_the_colours_of_the_input():
    y, x = np.mgrid[:64, :80] + 0.5
    truth = np.hypot(y - 28, x - 30) < 14
    pixels = np.where(truth[..., None], [200, 60, 40], [50, 90, 120]).astype(np.uint8)
    pixels[56:] = pixels[30, 30]  # padding, in the colour of the thing: it is not looked at
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    rough = (1 / (1 + np.exp(4 * (np.hypot(y, x) - 0.6)))).astype(np.float32)[None]
    detections, placed = raw([[10, 8, 50, 48]], masks=rough), Letterbox((112, 160), (56, 80))

    def iou(weight):
        options = PostprocessOptions(color_weight=weight)
        (found,) = to_instances(detections, 0, placed, options, pixels).masks
        inside = truth[8:48, 10:50].repeat(2, axis=0).repeat(2, axis=1)
        return (found & inside).sum() / (found | inside).sum()

    assert iou(0.0) < 0.8
    assert iou(3.0) > 0.88
    with pytest.raises(ValueError, match="color_weight needs the pixels"):
        to_instances(detections, 0, placed, PostprocessOptions(color_weight=3.0))


def test_thresholds_count_per_level_and_only_valid_rows():
    detections = raw(np.tile([0, 0, 10, 10], (6, 1)), [0.9, 0.6, 0.6, 0.4, np.nan, 0.99], [0, 0, 1, 2, 0, 0], count=5)
    options = PostprocessOptions(score_thresholds=(0.7, 0.5, 0.3))
    rows, levels = select_rows(detections, 0, options)
    assert rows.tolist() == [0, 2, 3]
    assert levels.tolist() == [Level.WHOLE, Level.PART, Level.SUBPART]


def test_the_best_are_kept():
    detections = raw(np.tile([0, 0, 10, 10], (3, 1)), [0.6, 0.9, 0.7])
    rows, _ = select_rows(detections, 0, PostprocessOptions(max_instances=2))
    assert rows.tolist() == [1, 2]


@pytest.mark.parametrize(("box", "mask"), [((90, 0, 99, 10), 1.0), ((0, 0, 10, 10), 0.1), ((5, 5, 5, 20), 1.0)])
def test_invisible_and_empty_masks_are_dropped(box, mask):
    maps = np.stack([np.ones((28, 28)), np.full((28, 28), mask)]).astype(np.float32)
    detections = raw([[0, 0, 20, 20], box], masks=maps)
    assert len(to_instances(detections, 0, Letterbox.fit((64, 80), (64, 80)), PostprocessOptions())) == 1


def test_no_detection():
    detections = raw(np.zeros((3, 4)), count=0)
    instances = to_instances(detections, 0, Letterbox.fit((64, 80), (64, 80)), PostprocessOptions())
    assert len(instances) == 0
    assert instances.image_size == (64, 80)


@pytest.mark.parametrize(
    "options",
    [
        {"score_thresholds": (0.5, 0.5)},
        {"score_thresholds": (0.5, 0.5, 1.5)},
        {"mask_threshold": 1.0},
        {"parent_coverage": 0.0},
        {"color_weight": -1.0},
        {"max_instances": 0},
    ],
)
def test_impossible_options(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        PostprocessOptions(**options)
