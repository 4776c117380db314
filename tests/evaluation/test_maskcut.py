import cv2
import numpy as np
import pytest
from scipy.linalg import eigh

from hassod_ros.evaluation.maskcut import _refine, cut_patches, maskcut, second_eigenvector


class Colours:
    """Patch features of a picture whose patches are of one colour each."""

    name, patch_size, dim, weights_sha256 = "colours", 8, 3, ""

    def __call__(self, images):
        small = np.stack(
            [cv2.resize(image, None, fx=1 / 8, fy=1 / 8, interpolation=cv2.INTER_AREA) for image in images]
        )
        return small.transpose(0, 3, 1, 2).astype(np.float32)


@pytest.fixture
def picture():
    image = np.zeros((96, 96, 3), np.uint8)
    image[:] = (0, 0, 200)
    image[16:48, 16:56] = (200, 0, 0)
    image[64:80, 48:80] = (0, 200, 0)
    return image


def test_eigenvector_agrees_with_the_dense_solver():
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    weights = np.where(vectors @ vectors.T > 0.2, 1.0, 1e-5).astype(np.float32)
    degree = np.diag(weights.sum(1).astype(np.float64))
    expected = eigh(degree - weights, degree)[1][:, 1]
    found = second_eigenvector(weights)
    assert abs(np.corrcoef(expected, found)[0, 1]) > 0.9999


def test_two_objects_are_cut_out_in_turn(picture):
    found = maskcut(picture, Colours(), side=96, crf=False)
    masks = found.dense()
    targets = [(picture == color).all(axis=2) for color in ((200, 0, 0), (0, 200, 0))]
    assert any(np.array_equal(masks[0], target) for target in targets)
    assert any(np.array_equal(masks[1], target) for target in targets)
    assert (np.diff(found.scores) < 0).all()


def test_patches_are_used_once(picture):
    cuts = cut_patches(Colours()(picture[None])[0])
    assert np.sum(cuts, axis=0).max() == 1
    assert len(cut_patches(Colours()(picture[None])[0], cuts=1)) == 1


def test_the_crf_moves_borders_to_the_image_and_drops_lost_masks(picture):
    shifted = np.zeros((96, 96), bool)
    shifted[14:50, 14:58] = True
    lost = np.zeros((96, 96), bool)
    lost[80:84, 4:8] = True
    (mask,) = _refine(picture, [shifted, lost])
    target = (picture == (200, 0, 0)).all(axis=2)
    assert (mask & target).sum() / (mask | target).sum() > 0.97
