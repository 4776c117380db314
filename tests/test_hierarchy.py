import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances, Level


def forest_of(masks: list[np.ndarray], cover: float = 0.9) -> tuple[list[int], list[int]]:
    instances = Instances.from_dense(np.stack(masks), image_size=masks[0].shape)
    parents, levels = coverage_forest(instances.regions, instances.masks, cover=cover)
    assert (parents.dtype, levels.dtype) == (np.int32, np.uint8)
    return parents.tolist(), levels.tolist()


def plain_forest(masks: np.ndarray, cover: float, worth: np.ndarray | None = None) -> tuple[list[int], list[int]]:
    """The rule on full-size masks: smallest candidate, or that of the best line; depth = steps to the root."""
    n = len(masks)
    flat = masks.reshape(n, -1).astype(np.int64)
    areas = flat.sum(1)
    covered = (flat @ flat.T) / areas[:, None]  # [a, b]: share of a inside b
    same = max(cover, 0.7)
    covering = [
        [b for b in range(n) if areas[a] < areas[b] and covered[a, b] >= cover and covered[b, a] < same]
        for a in range(n)
    ]
    gains = covered * (np.zeros(n) if worth is None else worth)

    def parent(a: int) -> int:
        if not covering[a]:
            return -1
        bounds = {b: line(b) + (0 if worth is None else worth[b]) for b in covering[a]}
        return min(covering[a], key=lambda b: (-(line(b) + gains[a, b]), -bounds[b], areas[b], b))

    def line(a: int) -> float:
        """What a mask and its ancestors are worth together."""
        return line(parent(a)) + gains[a, parent(a)] if covering[a] else 0.0

    def depth(a: int) -> int:
        return 1 + depth(parent(a)) if covering[a] else 0

    return [parent(a) for a in range(n)], [min(depth(a), 2) for a in range(n)]


def rows(*spans: tuple[int, int], width: int = 100) -> list[np.ndarray]:
    """One-pixel-high masks from column to column."""
    masks = np.zeros((len(spans), 1, width), bool)
    for mask, (start, stop) in zip(masks, spans, strict=True):
        mask[0, start:stop] = True
    return list(masks)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_levels_of_the_reference(shared, case):
    rle = pytest.importorskip("pycocotools.mask")
    reference = np.load(shared / f"reference/discovery_case_{case}.npz")
    size = reference["image"].shape[:2]
    codes = [{"size": list(size), "counts": counts.encode()} for counts in reference["mask_rle"]]
    _, levels = forest_of(list(rle.decode(codes).transpose(2, 0, 1)))
    assert levels == reference["levels"].tolist()


def test_no_mask_and_one_mask():
    assert [values.tolist() for values in coverage_forest(np.zeros((0, 4), np.int64), [])] == [[], []]
    assert forest_of(rows((3, 5))) == ([-1], [Level.WHOLE])


def test_coverage_of_exactly_the_threshold_counts():
    # 9 of 10 pixels inside: exactly 0.9, which is not a round number in binary.
    assert forest_of(rows((0, 50), (41, 51))) == ([-1, 0], [0, 1])
    assert forest_of(rows((0, 50), (42, 52))) == ([-1, -1], [0, 0])


def test_a_mask_covered_back_at_exactly_the_threshold_is_a_sibling():
    assert forest_of(rows((0, 10), (0, 9))) == ([-1, -1], [0, 0])  # 9 / 10 = the threshold: near-duplicates
    assert forest_of(rows((0, 100), (0, 89))) == ([-1, 0], [0, 1])  # 0.89


@pytest.mark.parametrize(("cover", "parents"), [(0.75, [-1, 0]), (0.76, [-1, -1])])
def test_other_thresholds(cover, parents):
    assert forest_of(rows((0, 40), (37, 41)), cover)[0] == parents


def test_equal_masks_are_siblings_in_one_parent():
    assert forest_of(rows((0, 50), (0, 10), (0, 10))) == ([-1, 0, 0], [0, 1, 1])


def test_the_smallest_covering_mask_is_the_parent_and_the_first_on_ties():
    assert forest_of(rows((0, 90), (0, 10), (0, 40)))[0][1] == 2
    assert forest_of(rows((0, 10), (0, 40), (0, 40)))[0][0] == 1


def test_what_fills_most_of_a_mask_is_no_part_of_it_whatever_the_threshold():
    assert forest_of(rows((0, 50), (0, 34)), cover=0.5)[0] == [-1, 0]
    assert forest_of(rows((0, 50), (0, 36)), cover=0.5)[0] == [-1, -1]
    assert forest_of(rows((0, 50), (0, 36)), cover=0.75)[0] == [-1, 0]  # the threshold of the paper stands


def test_a_subpart_of_a_subpart_keeps_its_parent():
    parents, levels = forest_of(rows((0, 100), (0, 60), (0, 30), (0, 15), (0, 7)))
    assert levels == [0, 1, 2, 2, 2]
    assert parents == [-1, 0, 1, 2, 3]


def test_order_of_masks_does_not_matter():
    masks = rows((0, 100), (0, 60), (0, 30), (70, 80))
    _, levels = forest_of(masks[::-1])
    assert levels == forest_of(masks)[1][::-1] == [1, 2, 1, 0]


@st.composite
def nested_rectangles(draw) -> np.ndarray:
    """Up to 8 rectangles of a 12 x 12 frame, some with a part cut out; many cover each other."""
    masks = []
    for _ in range(draw(st.integers(1, 8))):
        y0, x0 = draw(st.integers(0, 10)), draw(st.integers(0, 10))
        mask = np.zeros((12, 12), bool)
        mask[y0 : draw(st.integers(y0 + 1, 12)), x0 : draw(st.integers(x0 + 1, 12))] = True
        if draw(st.booleans()):
            mask[y0 + 1 : y0 + 3, x0 + 1 : x0 + 3] = False
        masks.append(mask)
    return np.stack(masks)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(nested_rectangles(), st.sampled_from([0.5, 0.75, 0.9, 1.0]))
def test_equals_the_plain_rule(masks, cover):
    parents, levels = forest_of(list(masks), cover)
    assert (parents, levels) == plain_forest(masks, cover)
    Instances.from_dense(
        masks, image_size=(12, 12), levels=np.array(levels, np.uint8), parents=np.array(parents, np.int32)
    )
