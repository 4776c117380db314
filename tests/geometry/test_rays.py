from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hassod_ros.errors import InputError
from hassod_ros.geometry.rays import Calibration, RayCache, calibration_of, make_rays

PLAIN = Calibration((48, 64), (60.0, 62.0), (31.0, 23.5))
LENSES = {
    "none": PLAIN,
    "plumb_bob": replace(PLAIN, distortion=(-0.3, 0.12, 0.001, -0.002, 0.01)),
    "rational_polynomial": replace(
        PLAIN, distortion=(0.4, 0.1, 0.001, -0.001, 0.02, 0.7, 0.2, 0.05), model="rational_polynomial"
    ),
    "equidistant": replace(PLAIN, distortion=(0.05, -0.01, 0.002, 0.001), model="equidistant"),
}


@pytest.mark.parametrize("lens", LENSES)
def test_a_ray_leads_back_to_its_pixel(lens):
    camera = LENSES[lens]
    rays = make_rays(camera)
    points = np.stack([rays.x.ravel(), rays.y.ravel(), np.ones(rays.x.size)], axis=1) * 1.7
    rows, columns = np.mgrid[: camera.size[0], : camera.size[1]]
    expected = np.stack([columns.ravel(), rows.ravel()], axis=1)
    np.testing.assert_allclose(camera.project(points), expected, atol=2e-2)


def test_projection_agrees_with_opencv():
    camera = LENSES["plumb_bob"]
    points = np.random.default_rng(0).uniform([-0.3, -0.2, 1], [0.3, 0.2, 2], (50, 3))
    matrix = np.array([[60.0, 0, 31], [0, 62, 23.5], [0, 0, 1]])
    expected, _ = cv2.projectPoints(points, np.zeros(3), np.zeros(3), matrix, np.array(camera.distortion))
    np.testing.assert_allclose(camera.project(points), expected[:, 0], atol=1e-4)


@given(st.integers(1, 8), st.floats(-0.4, 0.4), st.floats(-0.3, 0.3))
@settings(max_examples=25, deadline=None)
def test_a_scaled_camera_sees_the_same_directions(scale, x, y):
    point = np.array([[x, y, 1.0]])
    small = PLAIN.project(point)[0]
    large = PLAIN.scaled((48 * scale, 64 * scale)).project(point)[0]
    np.testing.assert_allclose((large + 0.5) / scale - 0.5, small, atol=1e-3)


def test_binning_and_cut_outs_move_the_centre():
    k = [600.0, 0, 320, 0, 600, 240, 0, 0, 1]
    camera = calibration_of((480, 640), k, [], "plumb_bob", binning=(2, 2), offset=(0, 0))
    assert (camera.size, camera.focal) == ((240, 320), (300, 300))
    assert camera.center == (159.75, 119.75)
    assert calibration_of((480, 640), k, [], "", offset=(20, 40)).center == (300, 200)


def test_a_rectified_image_takes_its_projection():
    p = [500.0, 0, 300, 0, 0, 500, 200, 0, 0, 0, 1, 0]
    camera = calibration_of((480, 640), [1.0] * 9, [0.1] * 5, "plumb_bob", p=p)
    assert (camera.focal, camera.center, camera.distorted) == ((500, 500), (300, 200), False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"focal": (0.0, 60.0)}, "not calibrated"),
        ({"focal": (np.nan, 60.0)}, "NaN"),
        ({"center": (np.inf, 0.0)}, "NaN or infinite"),
        ({"distortion": (np.nan,)}, "NaN"),
        ({"size": (0, 64)}, "set its width and height"),
        ({"model": "division", "distortion": (0.1,)}, "division"),
    ],
)
def test_what_is_no_camera_is_refused_with_a_remedy(change, words):
    with pytest.raises(InputError, match=words):
        replace(PLAIN, **change)


def test_another_shape_of_image_is_refused_and_another_size_is_not():
    assert PLAIN.scaled((96, 128)).focal == (120.0, 124.0)
    with pytest.raises(InputError, match="another shape"):
        PLAIN.scaled((48, 48))


def test_rays_are_made_once():
    cache = RayCache(limit=2)
    first = cache(PLAIN)
    assert cache(replace(PLAIN)) is first
    for lens in ("plumb_bob", "equidistant"):
        cache(LENSES[lens])
    assert cache(PLAIN) is not first


def test_without_coefficients_the_model_does_not_matter_and_librealsense_s_name_is_known():
    k = (600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0)
    zeros = calibration_of((480, 640), k, (0.0,) * 5, "Inverse Brown Conrady")
    assert np.array_equal(make_rays(zeros).x, make_rays(calibration_of((480, 640), k, (), "plumb_bob")).x)
    bent = (0.1, -0.05, 0.001, 0.0, 0.0)
    assert calibration_of((480, 640), k, bent, "Brown Conrady") == calibration_of((480, 640), k, bent, "plumb_bob")
    with pytest.raises(InputError, match="Inverse"):
        calibration_of((480, 640), k, bent, "Inverse Brown Conrady")
