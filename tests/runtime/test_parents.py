"""Parents at the end of the best line of ancestors."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hassod_ros.instances import Instances
from hassod_ros.runtime.parents import best_lines
from tests.test_hierarchy import forest_of, nested_rectangles, plain_forest, rows


def lines_of(
    masks: list[np.ndarray], worth: np.ndarray | list[float], cover: float = 0.9
) -> tuple[list[int], list[int]]:
    instances = Instances.from_dense(np.stack(masks), image_size=masks[0].shape)
    parents, levels = best_lines(instances.regions, instances.masks, np.array(worth), cover=cover)
    assert (parents.dtype, levels.dtype) == (np.int32, np.uint8)
    return parents.tolist(), levels.tolist()


def test_no_mask():
    assert [each.tolist() for each in best_lines(np.zeros((0, 4), np.int64), [], np.zeros(0))] == [[], []]


def test_the_mask_at_the_end_of_the_best_line_is_the_parent():
    # The third is smaller than the second, but reaches out of the first; the fourth lies in all of them.
    spans = [(0, 60), (0, 50), (20, 65), (21, 25)]
    assert forest_of(rows(*spans)) == ([-1, 0, -1, 2], [0, 1, 0, 1])
    assert lines_of(rows(*spans), np.ones(4)) == ([-1, 0, -1, 1], [0, 1, 0, 2])
    assert lines_of(rows(*spans), [0.2, 0.2, 0.5, 1]) == ([-1, 0, -1, 2], [0, 1, 0, 1])
    assert lines_of(rows((0, 10), (0, 40), (0, 40)), np.ones(3))[0][0] == 1  # of equals the first


def test_of_lines_of_equal_length_the_one_that_covers_more_wins():
    spans = [(0, 60), (10, 50), (24, 58), (22, 46)]  # the last lies in the second, and 22 of its 24 in the third
    assert forest_of(rows(*spans), cover=0.8)[0] == [-1, 0, 0, 2]
    assert lines_of(rows(*spans), np.ones(4), cover=0.8)[0] == [-1, 0, 0, 1]


@settings(max_examples=200, deadline=None, derandomize=True)
@given(nested_rectangles(), st.sampled_from([0.5, 0.75, 0.9, 1.0]), st.data())
def test_equals_the_plain_rule(masks, cover, data):
    shares = st.lists(st.sampled_from([0.0, 0.3, 0.5, 1.0]), min_size=len(masks), max_size=len(masks))
    worth = np.array(data.draw(shares))
    parents, levels = lines_of(list(masks), worth, cover)
    assert (parents, levels) == plain_forest(masks, cover, worth)
    Instances.from_dense(masks, image_size=(12, 12), levels=np.array(levels), parents=np.array(parents))
