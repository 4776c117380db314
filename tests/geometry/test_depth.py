import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.geometry.depth import doubt, quantiles, to_metres, usable_depth

METRES = np.array([[0.5, 1.25], [0.0, 3.0]])


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize(
    ("encoding", "dtype", "unit"),
    [("16UC1", "u2", 1000), ("mono16", "u2", 1000), ("32FC1", "f4", 1), ("64FC1", "f8", 1)],
)
def test_every_encoding_gives_the_same_metres(encoding, dtype, unit, order):
    pixels = (METRES * unit).astype(order + dtype)
    metres = to_metres(pixels, encoding)
    assert metres.dtype == np.float32
    np.testing.assert_allclose(metres, METRES, atol=1e-6)
    np.testing.assert_allclose(to_metres(pixels, encoding.upper(), 0.5), pixels.astype(float) * 0.5, rtol=1e-6)


def test_what_is_no_distance_becomes_0():
    pixels = np.array([[np.nan, np.inf, -np.inf, -1.0, 0.0, 2.0]], np.float32)
    assert to_metres(pixels, "32FC1").tolist() == [[0, 0, 0, 0, 0, 2]]


def test_a_colour_image_is_refused():
    with pytest.raises(InputError, match="connect `depth`"):
        to_metres(np.zeros((2, 2), np.uint8), "rgb8")


@pytest.mark.parametrize(
    ("metres", "word"), [(0.8, ""), (800.0, "depth_scale"), (0.0008, "depth_scale"), (0.0, "no valid")]
)
def test_a_wrong_unit_is_noticed(metres, word):
    sentence = doubt(np.full((40, 40), metres, np.float32))
    assert (word in sentence) if word else not sentence


def test_only_the_far_side_of_an_edge_lies_behind_it():
    depth = np.full((5, 9), 1.0, np.float32)
    depth[:, 5:] = 1.5
    depth[:, 4] = 1.2  # a mixed pixel
    assert np.flatnonzero(usable_depth(depth, 0.02)[2] == 0).tolist() == [4, 5]


def test_a_slope_is_no_edge_and_holes_make_none():
    depth = np.tile(np.linspace(1.0, 1.05, 20, dtype=np.float32), (10, 1))
    depth[4:6, 8:12] = 0
    usable = usable_depth(depth, 0.02)
    assert usable.dtype == np.uint8
    assert np.array_equal(usable, (depth > 0).view(np.uint8))


def test_what_is_too_far_is_left_out_and_makes_no_edge():
    depth = np.full((5, 9), 1.0, np.float32)
    depth[:, 5:] = 3.0
    assert np.array_equal(usable_depth(depth, 0.02, 2.0), (depth == 1).view(np.uint8))


def test_quantiles_are_values_of_the_set():
    values = np.random.default_rng(0).permutation(101).astype(np.float32)
    assert quantiles(values, 0.0, 0.05, 0.5, 1.0).tolist() == [0, 5, 50, 100]
