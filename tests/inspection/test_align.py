from dataclasses import replace

import cv2
import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.inspection.align import Aligner, lay_over
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.reference import learn
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Result
from tests.inspection.parts import SIZE, observe, part, plate

WHOLE = np.full(SIZE, 255, np.uint8)


def moved(picture, x, y, angle, scale=1.0):
    matrix = cv2.getRotationMatrix2D(((SIZE[1] - 1) / 2, (SIZE[0] - 1) / 2), angle, scale)
    matrix[:, 2] += x, y
    return cv2.warpAffine(picture, matrix, SIZE[::-1], borderMode=cv2.BORDER_REFLECT_101)


@pytest.mark.parametrize(("x", "y", "angle", "scale"), [(0, 0, 0, 1), (25, -12, 4, 1), (-18, 9, -9, 1.05)])
def test_a_movement_is_told_back(x, y, angle, scale):
    found = Aligner(part(), WHOLE)(moved(part(), x, y, angle, scale))
    assert found.shift == pytest.approx((x, y), abs=0.6)
    assert found.angle == pytest.approx(-angle, abs=0.2)  # OpenCV turns the other way round
    assert found.scale == pytest.approx(scale, abs=0.01)
    assert found.trust > 0.6


@pytest.mark.parametrize(("x", "y", "angle", "needed"), [(3, -2, 0.5, False), (30, 15, 1, False), (5, 5, 20, True)])
def test_keypoints_are_needed_only_where_the_part_is_turned(x, y, angle, needed):
    picture = moved(part(), x, y, angle)
    fast, slow = Aligner(part(), WHOLE, usual=0.9, alike=0.85)(picture), Aligner(part(), WHOLE)(picture)
    assert (fast.inliers > 0) == needed
    assert np.abs(fast.matrix - slow.matrix)[:, 2].max() < 0.5
    assert fast.agreement == pytest.approx(slow.agreement, abs=0.01)


def test_a_part_is_found_without_a_turn_where_only_a_window_is_looked_at():
    x, y, columns, rows = 40, 30, 200, 160
    window = np.ascontiguousarray(part()[y : y + rows, x : x + columns])
    aligner = Aligner(window, np.full((rows, columns), 255, np.uint8), usual=0.9, alike=0.85)
    found = aligner(moved(part(), 12, -9, 0))
    assert found.inliers == 0
    np.testing.assert_allclose(found.matrix[:, 2], (-x - 12, -y + 9), atol=0.6)


@pytest.mark.parametrize(("torn", "needed"), [(False, False), (True, True)])
def test_blocks_that_agree_need_no_keypoints_where_much_of_the_part_is_missing(torn, needed):
    picture = part()
    picture[60:200, 40:120] = 128
    picture = moved(picture, 6, -4, 0)
    if torn:  # the rest lies in two ways, half of the blocks each
        picture[:120] = np.roll(picture[:120], 4, axis=1)
    found = Aligner(part(), WHOLE, usual=0.9, alike=0.85)(picture)
    assert found.agreement < 0.8
    assert (found.inliers > 0) == needed
    if not torn:
        np.testing.assert_allclose(found.matrix[:, 2], (-6, 4), atol=0.2)


def test_pictures_without_texture_are_laid_by_correlation():
    smooth = np.full((*SIZE, 3), 240, np.uint8)
    cv2.ellipse(smooth, (150, 120), (80, 40), 20, 0, 360, (60, 60, 60), -1)
    smooth = cv2.GaussianBlur(smooth, (0, 0), 6)
    found = Aligner(smooth, WHOLE)(moved(smooth, 30, 14, 3))
    assert found.inliers == 0
    assert found.shift == pytest.approx((30, 14), abs=2)


def test_another_picture_is_not_trusted():
    noise = cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 4)
    assert Aligner(part(), WHOLE)(noise).trust < 0.3


def test_the_region_may_be_a_part_of_the_picture():
    window = part()[30:200, 40:280]
    found = Aligner(np.ascontiguousarray(window), np.full(window.shape[:2], 255, np.uint8))(moved(part(), 7, -4, 0))
    over, covered = lay_over(moved(part(), 7, -4, 0), found.matrix, window.shape[:2])
    assert covered.min() == 255
    assert np.abs(over.astype(int) - window).mean() < 3


def test_beyond_the_border_nothing_is_covered():
    found = Aligner(plate(), WHOLE)(moved(plate(), 30, 0, 0))
    _, covered = lay_over(moved(plate(), 30, 0, 0), found.matrix, SIZE)
    assert (covered[:, -25:] == 0).all()
    assert (covered[:, :280] == 255).all()


def striped(depth: float) -> np.ndarray:
    """Stripes from one side to the other, with two soft dents, so many grey levels deep."""
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    grey = 150 + 60 * np.sin(v / 5.0)
    for x, y in ((100, 70), (220, 150)):
        grey -= depth * np.exp(-((u - x) ** 2 + (v - y) ** 2) / 200)
    noise = np.random.default_rng(0).normal(0, 2, (*SIZE, 3))
    return np.clip(grey[..., None] + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("x", [24, -36])
def test_along_stripes_soft_marks_tell_where_a_part_lies(x):
    found = Aligner(striped(60), WHOLE)(moved(striped(60), x, 0, 0))
    assert found.sure
    assert found.shift == pytest.approx((x, 0), abs=0.6)


def test_stripes_that_show_too_little_are_not_said_to_lie_anywhere():
    assert not Aligner(striped(20), WHOLE)(moved(striped(20), 24, 0, 0)).sure
    with pytest.raises(InputError, match=r"picture 1, .* looks the same when it is moved along"):
        learn([moved(striped(20), x, 0, 0) for x in (0, 9, 24)], Settings(), name="stripes")


def test_a_part_that_may_lie_elsewhere_is_undecided(reference, monkeypatch):
    inspector = Inspector(reference, observe)
    placed = inspector._aligner(part())
    monkeypatch.setattr(inspector, "_aligner", lambda picture: replace(placed, sure=False))
    verdict = inspector(part())
    assert verdict.result == Result.UNDECIDED
    assert "cannot be told" in verdict.sentence
