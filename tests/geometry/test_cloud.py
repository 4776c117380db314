import numpy as np
import pytest

from hassod_ros.geometry.cloud import POINT, CloudMaker
from hassod_ros.geometry.rays import Calibration, make_rays

RAYS = make_rays(Calibration((2, 3), (1.0, 1.0), (0.0, 0.0)))
DEPTH = np.array([[1, 2, 0], [1, 1, 0.5]], np.float32)
LABELS = np.array([[0, 7, 0], [70000, 0, 1]])


@pytest.mark.parametrize("order", ["RGB", "BGR"])
def test_every_pixel_is_a_point_with_its_colour_and_label(order):
    colors = np.zeros((2, 3, 3), np.uint8)
    colors[0, 1] = (0x11, 0x22, 0x33) if order == "RGB" else (0x33, 0x22, 0x11)
    cloud = CloudMaker()(DEPTH, RAYS, colors, LABELS, order)
    assert (cloud.shape, cloud.dtype, POINT.itemsize) == ((2, 3), POINT, 20)
    assert cloud[0, 1].tolist() == (2.0, 0.0, 2.0, 0x112233, 7)
    assert cloud[1, 0].tolist()[:3] == (0.0, 1.0, 1.0)
    assert np.isnan([cloud[0, 2][name] for name in "xyz"]).all()
    np.testing.assert_array_equal(cloud["label"], LABELS)


def test_without_colours_points_are_black_and_the_maker_follows_the_size():
    make = CloudMaker()
    assert not make(DEPTH, RAYS, None, LABELS)["rgb"].any()
    rays = make_rays(Calibration((4, 4), (1.0, 1.0), (0.0, 0.0)))
    assert make(np.ones((4, 4), np.float32), rays, None, np.zeros((4, 4), int)).shape == (4, 4)
