import cv2
import numpy as np

from hassod_ros.inspection.light import match_light
from tests.inspection.parts import SIZE, part

WHOLE = np.full(SIZE, 255, np.uint8)


def lit(picture, slope=0.0, gain=1.0, offset=0.0):
    u = np.linspace(-1, 1, SIZE[1])[None, :, None]
    return np.clip(picture * (gain + slope * u) + offset, 0, 255).astype(np.uint8)


def test_gain_slope_and_offset_are_taken_back():
    dark = lit(part(), slope=0.12, gain=0.8, offset=6)
    light = match_light(dark, part(), WHOLE)
    inside = cv2.erode(WHOLE, np.ones((5, 5)))[..., None] > 0
    assert np.abs(dark.astype(int) - part()).mean() > 15
    assert (np.abs(light.apply(dark).astype(int) - part()) * inside).mean() < 2
    assert 6 < light.change < 15  # percent of 255


def test_colours_of_the_light_are_taken_back():
    blue = np.clip(part() * np.array([0.8, 0.95, 1.1]), 0, 255).astype(np.uint8)
    assert np.abs(match_light(blue, part(), WHOLE).apply(blue).astype(int) - part()).mean() < 2.5


def test_what_is_missing_does_not_count_as_light():
    light = match_light(part(red=None), part(), WHOLE)
    assert light.change < 0.5


def test_the_same_light_changes_nothing():
    light = match_light(part(), part(), WHOLE)
    assert light.change < 0.05
    np.testing.assert_allclose(light.apply(part()), part(), atol=1)


def test_where_nothing_is_covered_nothing_is_known():
    assert match_light(part(), part() // 2, np.zeros(SIZE, np.uint8)).change == 0
