from dataclasses import replace

import numpy as np
import pytest

from benchmarks.rendered_scenes import CALIBRATION, Solid, look_at, render
from hassod_ros.geometry.rays import make_rays
from hassod_ros.geometry.registration import reproject, same_place

SOLIDS = [Solid((0.12, 0.07, 0.09), (0.05, 0.02, 0.0), 0.4), Solid((0.07, 0.07, 0.1), (-0.15, -0.05, 0.0), 0.0, True)]
CAMERA = look_at((0.45, -0.5, 0.65))
TRUE = render(SOLIDS, CAMERA)


def agree(depth, true, away=0.006):
    """Share of the pixels with depth in both whose depth differs by less than this share."""
    both = (depth > 0) & (true > 0)
    return (np.abs(depth - true)[both] < away * true[both]).mean()


@pytest.mark.parametrize(
    "other",
    [
        CALIBRATION.scaled((240, 320)),
        replace(CALIBRATION, focal=(500.0, 505.0), center=(330.0, 250.0)),
        replace(CALIBRATION, distortion=(-0.2, 0.05, 0.0, 0.0, 0.0)),
    ],
    ids=["half size", "other lens", "distorted"],
)
def test_a_depth_image_from_the_same_place_fits_onto_the_image(other):
    depth = render(SOLIDS, CAMERA, other).depth
    fitted = same_place(depth, other, CALIBRATION, TRUE.rays)
    assert fitted.shape == TRUE.depth.shape
    assert (fitted > 0).mean() > 0.8
    assert agree(fitted, TRUE.depth) > 0.97


def test_the_same_camera_costs_nothing():
    assert same_place(TRUE.depth, CALIBRATION, CALIBRATION, TRUE.rays) is TRUE.depth


@pytest.mark.parametrize("scale", [1, 2])
def test_a_depth_camera_beside_is_reprojected(scale):
    """A baseline of 5 cm, other intrinsics, half the size."""
    offset = np.eye(4)
    offset[:3, 3] = 0.05, 0.01, 0.005
    other = replace(CALIBRATION, focal=(480.0, 480.0)).scaled((480 // scale, 640 // scale))
    beside = render(SOLIDS, CAMERA @ offset, other)
    fitted = reproject(beside.depth, beside.rays, CALIBRATION, offset)
    inside = fitted[60:-60, 80:-80]
    assert (inside > 0).mean() > 0.9
    assert agree(inside, TRUE.depth[60:-60, 80:-80], 0.01) > 0.93


def test_the_nearest_of_two_points_wins():
    """Behind the thing's edge the depth camera sees table that the image does not."""
    offset = np.eye(4)
    offset[0, 3] = 0.1
    beside = render(SOLIDS, CAMERA @ offset)
    fitted = reproject(beside.depth, beside.rays, CALIBRATION, offset)
    box = TRUE.ids == 3
    covered = fitted[box] > 0
    assert covered.mean() > 0.9
    assert (fitted[box][covered] < TRUE.depth[box][covered] + 0.01).mean() > 0.97


def test_nothing_in_nothing_out():
    assert not reproject(
        np.zeros((48, 64), np.float32), make_rays(CALIBRATION.scaled((48, 64))), CALIBRATION, np.eye(4)
    ).any()
