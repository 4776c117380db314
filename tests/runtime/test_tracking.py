import numpy as np
import pytest

from hassod_ros.instances import Instances
from hassod_ros.runtime.tracking import Tracker, _cells, _histograms, _overlaps, _points, _Things

SIZE = (100, 200)


def frame(*rectangles, levels=None, parents=None) -> Instances:
    """Filled rectangles x0 y0 x1 y1."""
    masks = np.zeros((len(rectangles), *SIZE), bool)
    for mask, (x0, y0, x1, y1) in zip(masks, rectangles, strict=True):
        mask[y0:y1, x0:x1] = True
    fields = {"levels": levels, "parents": parents}
    return Instances.from_dense(
        masks, image_size=SIZE, **{name: np.array(value) for name, value in fields.items() if value is not None}
    )


def ids(tracker, time, *rectangles, **fields):
    return tracker.update(frame(*rectangles, **fields), time).ids.tolist()


def test_ids_follow_their_things_in_any_order():
    tracker = Tracker()
    assert ids(tracker, 0.0, (10, 10, 40, 40), (100, 10, 140, 40)) == [1, 2]
    assert ids(tracker, 0.1, (104, 12, 144, 42), (12, 11, 42, 41)) == [2, 1]


def test_a_fast_thing_is_looked_for_where_it_should_be():
    tracker = Tracker()
    for step in range(4):  # gets faster; from the third step on it overlaps its last place by less than a third
        x = (0, 12, 32, 60)[step]
        assert ids(tracker, step / 10, (x, 10, x + 30, 40)) == [1]


def test_colours_decide_where_two_things_overlap_about_as_much():
    red, blue = (10, 10, 40, 40), (4, 10, 34, 40)
    first, second = np.zeros((2, *SIZE, 3), np.uint8)
    first[10:40, 10:40] = second[10:40, 17:47] = (255, 0, 0)
    second[10:40, 4:34] = (0, 0, 255)
    for images, expected in (((first, second), [1, 2]), ((None, None), [2, 1])):
        tracker = Tracker()
        assert tracker.update(frame(red), 0.0, images[0]).ids.tolist() == [1]
        assert tracker.update(frame((17, 10, 47, 40), blue), 0.1, images[1]).ids.tolist() == expected


@pytest.mark.parametrize("scale", [1, 8])
def test_colours_are_counted_at_a_grid_of_points(scale):
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (10, 20, 3), np.uint8)
    image = np.kron(blocks, np.ones((10 * scale, 10 * scale, 1), np.uint8))
    masks = np.zeros((2, *image.shape[:2]), bool)
    masks[0, 3 * scale : 97 * scale, 7 * scale : 151 * scale] = True
    masks[1, 20 * scale : 30 * scale, 50 * scale : 60 * scale] = True
    instances = Instances.from_dense(masks, image_size=masks.shape[1:])
    found = _histograms(instances.regions, _points(_cells(instances)), image)
    codes = (image >> 6).astype(int) @ [16, 4, 1]
    for histogram, mask in zip(found, masks, strict=True):
        expected = np.bincount(codes[mask], minlength=64) / mask.sum()
        np.testing.assert_allclose(histogram, expected, atol=0.04)
    assert found[1].max() == 1


def test_overlaps_agree_with_those_of_all_pixels():
    rng = np.random.default_rng(0)
    y, x = np.ogrid[: SIZE[0], : SIZE[1]]
    centres, radii = rng.uniform(30, (170, 70), (2, 12, 2)), rng.uniform(6, 25, (2, 12, 2))
    shapes = [
        np.array([((x - cx) / rx) ** 2 + ((y - cy) / ry) ** 2 < 1 for (cx, cy), (rx, ry) in zip(*each, strict=True)])
        for each in zip(centres, radii, strict=True)
    ]
    before, after = (_Things.look(Instances.from_dense(masks, image_size=SIZE), 0.0, None) for masks in shapes)
    first, second = (masks.reshape(12, -1).astype(np.int64) for masks in shapes)
    common = first @ second.T
    exact = common / (first.sum(1)[:, None] + second.sum(1) - common)
    assert (exact > 0.3).sum() >= 5
    found = _overlaps(before, after, 0.0)
    np.testing.assert_allclose(found[exact > 0.2], exact[exact > 0.2], atol=0.05)
    np.testing.assert_allclose(_overlaps(before, before, 0.0).diagonal(), 1)


def test_a_mask_between_all_points_of_the_grid_keeps_its_id():
    mask = np.zeros((1, *SIZE), bool)
    mask[0, 10, 20:80] = mask[0, 10:70, 20] = True  # an L one pixel wide
    tracker, thing = Tracker(), Instances.from_dense(mask, image_size=SIZE)
    assert [tracker.update(thing, time / 10).ids.tolist() for time in range(3)] == [[1]] * 3


def test_an_id_survives_a_short_occlusion_and_is_never_given_again():
    tracker = Tracker(memory=1.0)
    assert ids(tracker, 0.0, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 0.5) == []
    assert ids(tracker, 0.9, (10, 10, 40, 40), (100, 50, 130, 80)) == [1, 2]
    assert ids(tracker, 2.5, (10, 10, 40, 40)) == [3]


def test_time_that_jumps_back_begins_anew():
    tracker = Tracker()
    assert ids(tracker, 100.0, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 5.0, (10, 10, 40, 40)) == [2]
    assert ids(tracker, 5.1, (10, 10, 40, 40)) == [2]


def test_frames_that_come_a_little_late_cost_no_id():
    tracker = Tracker()
    for time in (0.0, 0.033, 0.066, 0.056, 0.1, 0.09, 0.133):
        assert ids(tracker, time, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 0.166) == []
    assert ids(tracker, 0.2, (10, 10, 40, 40)) == [1]


@pytest.mark.parametrize("interval", [1.1, 8.0])
def test_things_are_remembered_for_three_frames_where_those_come_slowly(interval):
    tracker = Tracker()
    for step in range(4):
        assert ids(tracker, step * interval, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 4 * interval) == []
    assert ids(tracker, 5 * interval, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 6 * interval) == []
    assert ids(tracker, 9.5 * interval, (10, 10, 40, 40)) == [2]


def test_a_pause_of_a_fast_camera_is_no_slow_camera():
    tracker = Tracker()
    for step in range(6):
        assert ids(tracker, step / 30, (10, 10, 40, 40)) == [1]
    assert ids(tracker, 3.0, (10, 10, 40, 40)) == [2]


def test_a_part_stays_with_its_whole():
    tracker = Tracker()
    fields = {"levels": [0, 0, 1, 1], "parents": [-1, -1, 0, 1]}
    wholes = ((0, 0, 80, 90), (80, 0, 160, 90))
    assert ids(tracker, 0.0, *wholes, (60, 30, 80, 50), (80, 30, 100, 50), **fields) == [1, 2, 3, 4]
    # The part of the second whole has moved to where the first one's part was; only its parent tells them apart.
    moved = ((60, 30, 78, 50), (70, 30, 90, 50))
    assert ids(tracker, 0.1, *wholes, *moved, **fields) == [1, 2, 3, 4]


def test_a_whole_that_shrinks_does_not_take_the_id_of_its_part():
    tracker = Tracker()
    fields = {"levels": [0, 1], "parents": [-1, 0]}
    assert ids(tracker, 0.0, (10, 10, 60, 60), (10, 10, 50, 60), **fields) == [1, 2]
    # The whole now resembles its part of before more than itself.
    assert ids(tracker, 0.1, (10, 10, 52, 60), (10, 10, 49, 60), **fields) == [1, 2]


def test_a_whole_keeps_its_parts_over_an_occlusion():
    tracker = Tracker(memory=1.0)
    fields = {"levels": [0, 1, 1], "parents": [-1, 0, 0]}
    thing = ((20, 20, 80, 80), (20, 20, 45, 80), (55, 20, 80, 80))
    other = ((120, 20, 180, 80), (120, 20, 145, 80), (155, 20, 180, 80))
    assert ids(tracker, 0.0, *thing, **fields) == [1, 2, 3]
    for step in range(1, 9):  # something else is seen meanwhile
        assert ids(tracker, step / 10, *other, **fields) == [4, 5, 6]
    assert ids(tracker, 0.9, *thing, **fields) == [1, 2, 3]
    assert ids(tracker, 2.5, *thing, **fields) == [7, 8, 9]


def test_everything_but_the_ids_is_untouched():
    given = frame((10, 10, 40, 40), (15, 15, 20, 20), levels=[0, 1], parents=[-1, 0])
    found = Tracker().update(given, 0.0)
    for name in ("boxes", "scores", "levels", "parents"):
        np.testing.assert_array_equal(getattr(found, name), getattr(given, name))
    assert found.masks is given.masks


@pytest.mark.parametrize("seed", range(3))
def test_ids_are_unique_whatever_comes(seed):
    rng, tracker, highest = np.random.default_rng(seed), Tracker(memory=0.3), 0
    for step in range(30):
        corners = rng.integers(0, (150, 60), (int(rng.integers(0, 12)), 2))
        sizes = rng.integers(5, (50, 40), corners.shape)
        found = ids(tracker, step / 10, *np.hstack([corners, corners + sizes]).tolist())
        assert len(set(found)) == len(found)
        fresh = [number for number in found if number > highest]
        assert fresh == list(range(highest + 1, highest + 1 + len(fresh)))
        highest = max([highest, *found])
