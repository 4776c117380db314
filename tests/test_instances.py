import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from hassod_ros.coco import from_coco, to_coco
from hassod_ros.instances import Instances, Level, ancestors_of

BOX = np.array([[0, 0, 2, 1]], np.float32)
MASK = (np.ones((1, 2), np.uint8),)


@st.composite
def instances(draw) -> Instances:
    """Up to 6 instances with levels, parents, scores and ids in a small frame."""
    height, width = draw(st.integers(1, 12)), draw(st.integers(1, 12))
    n = draw(st.integers(0, 6))
    masks = np.zeros((n, height, width), bool)
    for mask in masks:
        mask[:] = draw(arrays.arrays(bool, (height, width)))
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    levels = np.array(draw(st.lists(st.sampled_from(list(Level)), min_size=n, max_size=n)), np.uint8)
    scene = np.array(draw(st.lists(st.booleans(), min_size=n, max_size=n)), bool)
    parents = np.full(n, -1, np.int32)
    for i in range(n):
        higher = np.flatnonzero((levels < levels[i]) & ~scene).tolist()
        parents[i] = draw(st.sampled_from([-1, *higher]))
    ids = draw(st.lists(st.integers(1, 2**32 - 1), min_size=n, max_size=n, unique=True))
    tracked = draw(st.lists(st.booleans(), min_size=n, max_size=n))
    return Instances.from_dense(
        masks,
        image_size=(height, width),
        scores=np.array(draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)), np.float32),
        levels=levels,
        parents=parents,
        ids=np.where(tracked, np.array(ids, np.uint32), 0).astype(np.uint32) if n else None,
        scene=scene,
    )


def assert_equal(a: Instances, b: Instances, *, scores_to: float = 0.0, ids: bool = True) -> None:
    assert a.image_size == b.image_size
    np.testing.assert_array_equal(a.dense(), b.dense())
    np.testing.assert_array_equal(a.boxes, b.boxes)
    np.testing.assert_array_equal(a.levels, b.levels)
    np.testing.assert_array_equal(a.parents, b.parents)
    np.testing.assert_array_equal(a.scene, b.scene)
    np.testing.assert_allclose(a.scores, b.scores, rtol=0, atol=scores_to)
    if ids:
        np.testing.assert_array_equal(a.ids, b.ids)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(instances())
def test_dense_round_trip(before):
    again = Instances.from_dense(
        before.dense(),
        image_size=before.image_size,
        scores=before.scores,
        levels=before.levels,
        parents=before.parents,
        ids=before.ids,
        scene=before.scene,
    )
    assert_equal(again, before)
    np.testing.assert_array_equal(before.areas, before.dense().sum((1, 2)))


@settings(max_examples=150, deadline=None, derandomize=True)
@given(instances(), st.integers(1, 10**6))
def test_coco_round_trip(before, first_id):
    annotations = json.loads(json.dumps(to_coco(before, 7, first_id)))
    assert [a["id"] for a in annotations] == list(range(first_id, first_id + len(before)))
    assert_equal(from_coco(annotations, before.image_size), before, scores_to=1e-6, ids=False)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(instances())
def test_label_maps_show_each_instance_where_nothing_lies_on_it(before):
    labels, dense = before.labels(), before.dense()
    assert labels.min(initial=1) >= 1
    for level in Level:
        label_map = before.to_label_map(level)
        chosen = np.flatnonzero((before.levels == level) & ~before.scene)
        np.testing.assert_array_equal(label_map > 0, dense[chosen].any(0))
        for i in chosen:
            higher = dense[[j for j in chosen if before.scores[j] > before.scores[i]]].any(0)
            tied = dense[[j for j in chosen if j != i and before.scores[j] == before.scores[i]]].any(0)
            assert (label_map[dense[i] & ~higher & ~tied] == labels[i]).all()
            if (before.scores[chosen] <= before.scores[i]).all() and not tied.any():
                assert (label_map[dense[i]] == labels[i]).all()


@settings(max_examples=150, deadline=None, derandomize=True)
@given(instances())
def test_disjoint_label_map_round_trip(before):
    # One instance a pixel and a level: then the maps say all about the masks.
    keep, taken = [], np.zeros(before.image_size, bool)
    for i, mask in enumerate(before.dense()):
        if not (mask & taken).any():
            keep.append(i)
            taken |= mask
    disjoint = before.select(np.array([i for i in keep if not before.scene[i]], np.int64))
    labels = disjoint.labels()
    assert len(np.unique(labels)) == len(labels)
    maps = [disjoint.to_label_map(level) for level in Level]
    masks = [maps[level] == label for level, label in zip(disjoint.levels, labels, strict=True)]
    np.testing.assert_array_equal(np.array(masks, bool).reshape(-1, *before.image_size), disjoint.dense())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(instances(), st.data())
def test_select_keeps_fields_and_the_nearest_ancestor(before, data):
    order = data.draw(st.permutations(range(len(before))))
    index = np.array(order[: data.draw(st.integers(0, len(before)))], np.int64)
    chosen = before.select(index)
    np.testing.assert_array_equal(chosen.dense(), before.dense()[index])
    for name in ("scores", "levels", "ids", "boxes", "scene"):
        np.testing.assert_array_equal(getattr(chosen, name), getattr(before, name)[index])
    for new, old in enumerate(index):
        ancestor = before.parents[old]
        while ancestor >= 0 and ancestor not in index:
            ancestor = before.parents[ancestor]
        parent = chosen.parents[new]
        assert (index[parent] if parent >= 0 else -1) == ancestor


@settings(max_examples=50, deadline=None, derandomize=True)
@given(instances(), st.data())
def test_select_by_bool_equals_select_by_index(before, data):
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(before), max_size=len(before))), bool)
    assert_equal(before.select(keep), before.select(np.flatnonzero(keep)))


def test_select_takes_an_empty_list_and_negative_indices():
    two = Instances(image_size=(1, 4), boxes=np.array([[0, 0, 1, 1], [2, 0, 4, 1]]), masks=[MASK[0][:, :1], *MASK])
    assert len(two.select([])) == 0
    assert two.select(np.array([-1])).boxes.tolist() == [[2, 0, 4, 1]]


@pytest.mark.parametrize("wrong", [np.array([True]), np.array([2]), np.array([-3])])
def test_select_rejects_what_does_not_fit(wrong):
    two = Instances(image_size=(1, 2), boxes=np.repeat(BOX, 2, axis=0), masks=MASK * 2)
    with pytest.raises(IndexError):
        two.select(wrong)


def test_chain_whose_middle_goes():
    boxes = np.array([[0, 0, 8, 1], [0, 0, 4, 1], [0, 0, 2, 1]], np.float32)
    masks = [np.ones((1, width), np.uint8) for width in (8, 4, 2)]
    chain = Instances(
        image_size=(1, 8), boxes=boxes, masks=masks, levels=np.array([0, 1, 2]), parents=np.array([-1, 0, 1])
    )
    assert chain.select(np.array([2, 0])).parents.tolist() == [1, -1]
    assert chain.select(np.array([1, 2])).parents.tolist() == [-1, 0]
    assert chain.select(np.array([2])).parents.tolist() == [-1]


def test_empty():
    empty = Instances.empty((4, 6))
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert empty.dense().shape == (0, 4, 6)
    assert to_coco(empty, 1) == []
    assert not empty.to_label_map(Level.WHOLE).any()
    assert len(from_coco([], (4, 6))) == 0


def test_fractional_boxes_cover_whole_pixels():
    one = Instances(image_size=(4, 4), boxes=np.array([[0.5, 1.2, 2.5, 2.0]]), masks=[np.ones((1, 3), np.uint8)])
    assert one.regions.tolist() == [[0, 1, 3, 2]]
    np.testing.assert_array_equal(one.dense()[0].nonzero(), ([1, 1, 1], [0, 1, 2]))


def test_labels_fold_large_ids_and_never_give_zero():
    boxes = np.repeat(BOX, 4, axis=0)
    one = Instances(image_size=(1, 2), boxes=boxes, masks=MASK * 4, ids=np.array([65535, 65536, 2**32 - 1, 0]))
    assert one.labels().tolist() == [65535, 1, 2, 4]  # 2**32 - 1 would be 65535 too
    both = Instances(image_size=(1, 2), boxes=boxes[:2], masks=MASK * 2, ids=np.array([65536, 1]))
    assert both.labels().tolist() == [2, 1]


def test_two_instances_may_not_share_an_id():
    boxes = np.repeat(BOX, 3, axis=0)
    Instances(image_size=(1, 2), boxes=boxes, masks=MASK * 3, ids=np.array([0, 0, 5]))
    with pytest.raises(ValueError, match="share one id"):
        Instances(image_size=(1, 2), boxes=boxes, masks=MASK * 3, ids=np.array([5, 0, 5]))


def test_a_cycle_is_impossible():
    boxes = np.repeat(BOX, 3, axis=0)
    with pytest.raises(ValueError, match="parent of a higher level"):
        Instances(image_size=(1, 2), boxes=boxes[:2], masks=MASK * 2, levels=[0, 1], parents=[1, 0])
    subparts = {"image_size": (1, 2), "boxes": boxes, "masks": MASK * 3, "levels": [2, 2, 2]}
    Instances(**subparts, parents=[-1, 0, 1])
    with pytest.raises(ValueError, match=r"instance 0 .* line of parents that ends"):
        Instances(**subparts, parents=[2, 0, 1])


def test_scene_is_nobodys_ancestor():
    boxes = np.repeat(BOX, 2, axis=0)
    two = {"image_size": (1, 2), "boxes": boxes, "masks": MASK * 2, "levels": [0, 1], "parents": [-1, 0]}
    assert Instances(**two, scene=[0, 1]).scene.tolist() == [False, True]
    with pytest.raises(ValueError, match=r"instance 1 .* parent that is no scene"):
        Instances(**two, scene=[True, False])


def test_from_dense_names_the_empty_mask():
    with pytest.raises(ValueError, match="mask 1 is empty"):
        Instances.from_dense(np.stack([np.ones((2, 2)), np.zeros((2, 2))]), image_size=(2, 2))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": (0, 4)}, "image_size must be positive"),
        ({"boxes": np.zeros((2, 4))}, "boxes must have shape"),
        ({"boxes": np.array([[-1, 0, 1, 1]])}, "box inside the image"),
        ({"boxes": np.array([[3, 0, 5, 1]])}, "box inside the image"),
        ({"boxes": np.array([[2, 0, 2, 1]])}, "box inside the image"),
        ({"boxes": np.array([[0, 0, np.nan, 1]])}, "box inside the image"),
        ({"scores": np.array([1.5])}, "score in"),
        ({"scores": np.array([-0.1])}, "score in"),
        ({"scores": np.array([np.nan])}, "score in"),
        ({"scores": np.array([1.0, 1.0])}, "scores must have shape"),
        ({"levels": np.array([3])}, "level of 0, 1 or 2"),
        ({"levels": np.array([256])}, "whole numbers"),
        ({"levels": np.array([0.5])}, "whole numbers"),
        ({"levels": np.array([1]), "parents": np.array([0])}, "parent of a higher level"),
        ({"parents": np.array([1])}, "parent of -1 or an index below 1"),
        ({"parents": np.array([-2])}, "parent of -1 or an index below 1"),
        ({"scene": np.array([2])}, "scene must be"),
        ({"scene": np.array([False, True])}, "scene must have shape"),
        ({"ids": np.array([-1])}, "whole numbers"),
        ({"ids": np.array([2**32])}, "whole numbers"),
        ({"masks": (np.ones((1, 2), bool),)}, "must be uint8"),
        ({"masks": (np.ones((2, 1), np.uint8),)}, "of its region's shape"),
        ({"masks": (np.zeros((1, 2), np.uint8),)}, "not be empty"),
        ({"masks": (np.full((1, 2), 255, np.uint8),)}, "0 and 1"),
    ],
)
def test_constructor_rejects(changes, message):
    good = {"image_size": (2, 4), "boxes": BOX, "masks": MASK}
    assert len(Instances(**good)) == 1
    with pytest.raises(ValueError, match=message):
        Instances(**{**good, **changes})


def test_printing_instances_is_one_line():
    masks = np.zeros((2, 4, 6), bool)
    masks[0, :2], masks[1, 0, 0] = True, True
    found = Instances.from_dense(masks, image_size=(4, 6), levels=np.array([0, 1]), parents=np.array([-1, 0]))
    assert f"{found}" == f"{found!r}" == "<2 instances (1 whole, 1 part, 0 subparts) in 6x4>"
    assert f"{Instances.empty((4, 6))}" == "<0 instances (0 wholes, 0 parts, 0 subparts) in 6x4>"


@pytest.mark.parametrize(
    ("parents", "pairs"),
    [
        ([-1, 0, 1, 2, -1], {(1, 0), (2, 1), (2, 0), (3, 2), (3, 1), (3, 0)}),
        ([3, 3, -1, -1], {(0, 3), (1, 3)}),
        ([], set()),
        ([1, 0], {(0, 1), (1, 0), (0, 0), (1, 1)}),  # a cycle ends all the same
    ],
)
def test_ancestors_are_the_closure_of_parents(parents, pairs):
    above = ancestors_of(np.array(parents, np.int64))
    assert set(map(tuple, np.argwhere(above).tolist())) == pairs
