import numpy as np
import pytest
import torch
from scipy import ndimage

from hassod_ros.discovery.filters import (
    FilterConfig,
    Masks,
    drop_duplicates,
    interpolate_regions,
    select_masks,
    winners,
)
from hassod_ros.errors import InputError


def one_hot(label_map: np.ndarray) -> np.ndarray:
    return (label_map[None] == np.arange(label_map.max() + 1)[:, None, None]).astype(np.float32)


def resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    return torch.nn.functional.interpolate(torch.from_numpy(maps)[None], size, mode="bilinear")[0].numpy()


def dense(masks: Masks, image_size: tuple[int, int]) -> np.ndarray:
    full = np.zeros((len(masks.crops), *image_size), np.uint8)
    for target, (x0, y0, x1, y1), crop in zip(full, masks.regions, masks.crops, strict=True):
        target[y0:y1, x0:x1] = crop
    return full


def masks_of(arrays: list[np.ndarray]) -> Masks:
    """Masks of full-size arrays, each with the whole frame as its region."""
    height, width = arrays[0].shape
    regions = np.tile([0, 0, width, height], (len(arrays), 1))
    return Masks(regions, [array.astype(np.uint8) for array in arrays], np.ones(len(arrays), np.float32))


def rectangle(image_size: tuple[int, int], y0: int, y1: int, x0: int, x1: int) -> np.ndarray:
    mask = np.zeros(image_size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def partition(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A label map and probabilities of the mask (region 1) on its ground (region 0), at one resolution."""
    label_map = mask.astype(np.int32)
    return label_map, one_hot(label_map)


def published(label_map: np.ndarray, probabilities: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """The filters step by step on full-size arrays; (N, H, W) bool."""
    before = resize(one_hot(label_map), probabilities.shape[1:]) >= 0.5
    after = probabilities >= 0.5
    with np.errstate(invalid="ignore"):
        iou = (before & after).sum((1, 2)) / (before | after).sum((1, 2))
    masks = []
    for mask in resize(probabilities[iou >= 0.5], image_size) >= 0.5:
        corners = int(mask[0, 0]) + mask[0, -1] + mask[-1, 0] + mask[-1, -1]
        if mask.sum() >= 100 and corners < 3:
            masks.append(ndimage.binary_fill_holes(mask))
    return np.array(masks).reshape(-1, *image_size)


@pytest.mark.parametrize("image_size", [(96, 96), (131, 77), (50, 203), (40, 60)])
@pytest.mark.parametrize("layout", ["C", "pixels first"])
def test_equals_plain_filters(image_size, layout):
    rng = np.random.default_rng(sum(image_size))
    centres = rng.uniform(0, 12, (9, 2, 1, 1))
    label_map = ((np.mgrid[:12, :12] - centres) ** 2).sum(1).argmin(0).astype(np.int32)
    noise = ndimage.gaussian_filter(rng.normal(0, 1, (9, 96, 96)), (0, 3, 3)) * 8
    logits = 5 * resize(one_hot(label_map), (96, 96)) + noise
    probabilities = (np.exp(logits) / np.exp(logits).sum(0)).astype(np.float32)
    expected = published(label_map, probabilities, image_size)
    if layout == "pixels first":
        probabilities = np.ascontiguousarray(probabilities.transpose(1, 2, 0)).transpose(2, 0, 1)
    found = select_masks(label_map, probabilities, image_size, FilterConfig())
    assert len(expected) > 3
    np.testing.assert_array_equal(dense(found, image_size), expected)
    for (x0, y0, x1, y1), crop in zip(found.regions, found.crops, strict=True):
        assert crop.shape == (y1 - y0, x1 - x0)
        assert crop[0].any()
        assert crop[-1].any()
        assert crop[:, 0].any()
        assert crop[:, -1].any()


def test_area_is_taken_before_holes_are_filled():
    mask = rectangle((64, 64), 10, 20, 10, 22)  # 120 pixels when filled
    mask[12:19, 13:16] = False  # a hole of 21
    label_map, probabilities = partition(mask)
    assert mask.sum() == 99
    assert len(select_masks(label_map, probabilities, (64, 64), FilterConfig()).crops) == 0
    found = select_masks(label_map, probabilities, (64, 64), FilterConfig(min_area=99))
    assert [int(crop.sum()) for crop in found.crops] == [120]


@pytest.mark.parametrize(("columns", "kept"), [(40, True), (64, False)])
def test_a_third_corner_makes_background(columns, kept):
    # A bar along the top covers two corners; an L that goes down the left side covers three.
    mask = rectangle((64, 64), 0, 10, 0, 64)
    if columns == 64:
        mask |= rectangle((64, 64), 0, 64, 0, 10)
    found = select_masks(*partition(mask), (64, 64), FilterConfig())
    assert any(crop.sum() == mask.sum() for crop in found.crops) == kept
    assert len(select_masks(*partition(mask), (64, 64), FilterConfig(max_corners=4)).crops) == 2


@pytest.mark.parametrize(("moved", "kept"), [(8, True), (9, False)])
def test_what_the_crf_changed_too_much_goes(moved, kept):
    # 24 columns moved by 8: IoU 16 / 32, exactly the limit.
    label_map = rectangle((64, 64), 10, 40, 10, 34).astype(np.int32)
    probabilities = one_hot(rectangle((64, 64), 10, 40, 10 + moved, 34 + moved).astype(np.int32))
    found = select_masks(label_map, probabilities, (64, 64), FilterConfig())
    assert [region.tolist() for region in found.regions] == ([[18, 10, 42, 40]] if kept else [])


def test_score_is_the_mean_probability_inside():
    mask = rectangle((32, 32), 4, 20, 4, 20)
    label_map = mask.astype(np.int32)
    inside = np.where(np.arange(32) < 12, 0.9, 0.7)[None, :] * np.ones((32, 1))
    probability = np.where(mask, inside, 0.1).astype(np.float32)
    found = select_masks(label_map, np.stack([1 - probability, probability]), (32, 32), FilterConfig())
    assert found.scores.dtype == np.float32
    np.testing.assert_allclose(found.scores, [0.8], atol=1e-6)


def test_nothing_kept_gives_empty_masks():
    found = select_masks(np.zeros((4, 4), np.int32), np.ones((1, 32, 32), np.float32), (50, 50), FilterConfig())
    assert found.regions.shape == (0, 4)
    assert found.scores.shape == (0,)


@pytest.mark.parametrize("image_size", [(1, 1), (1, 300), (300, 1)])
def test_images_one_pixel_wide(image_size):
    # Two halves side by side or one above the other; each covers two of the four corners, counted twice.
    halves = np.repeat(np.array([0, 1], np.int32), 16) * np.ones((32, 1), np.int32)
    label_map = halves.T.copy() if image_size[1] == 1 else halves
    found = select_masks(label_map, one_hot(label_map), image_size, FilterConfig(min_area=1))
    np.testing.assert_array_equal(dense(found, image_size), published_small(label_map, image_size))


def published_small(label_map: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    masks = resize(one_hot(label_map), image_size) >= 0.5
    corners = masks[:, 0, 0].astype(int) + masks[:, 0, -1] + masks[:, -1, 0] + masks[:, -1, -1]
    return masks[(masks.sum((1, 2)) >= 1) & (corners < 3)]


@pytest.mark.parametrize("size", [(480, 480), (60, 45), (62, 98), (30, 45)])
def test_interpolate_regions_equals_one_hot_resize(size):
    label_map = np.random.default_rng(3).integers(0, 5, (60, 45)).astype(np.int32)
    reached = resize(one_hot(label_map), size) >= 0.5
    found = interpolate_regions(label_map, size)
    np.testing.assert_array_equal(found >= 0, reached.any(0))
    # Where two regions reach exactly 0.5, either may be named.
    assert np.take_along_axis(reached, found[None], 0)[0][found >= 0].all()


def test_winners():
    probabilities = np.array([[[0.6, 0.4, 0.5]], [[0.4, 0.3, 0.2]], [[0.0, 0.3, 0.3]]], np.float32)
    labels, value = winners(probabilities)
    assert labels.tolist() == [[0, -1, 0]]
    np.testing.assert_allclose(value, [[0.6, 0, 0.5]], rtol=1e-6)


def test_drop_duplicates_keeps_the_first():
    size = (20, 20)
    whole = rectangle(size, 0, 10, 0, 10)
    nearly = rectangle(size, 0, 10, 0, 9)  # IoU 0.9 with the whole
    part = rectangle(size, 0, 10, 0, 8)  # 0.8 with the whole, 0.89 with the one that went
    apart = rectangle(size, 11, 20, 11, 20)
    kept = drop_duplicates(masks_of([whole, nearly, part, apart, apart]), 0.9)
    assert [int(crop.sum()) for crop in kept.crops] == [100, 80, 81]
    assert len(drop_duplicates(masks_of([whole, nearly]), 0.91).crops) == 2
    assert kept.regions.shape == (3, 4)
    assert kept.scores.shape == (3,)


def test_drop_duplicates_compares_in_image_coordinates():
    square = np.ones((4, 4), np.uint8)
    masks = Masks(np.array([[0, 0, 4, 4], [4, 0, 8, 4], [4, 0, 8, 4]]), [square] * 3, np.ones(3, np.float32))
    assert drop_duplicates(masks, 0.5).regions.tolist() == [[0, 0, 4, 4], [4, 0, 8, 4]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"min_overlap": -0.1},
        {"min_overlap": float("nan")},
        {"min_area": 0},
        {"max_corners": 5},
        {"duplicate_iou": 0.0},
        {"duplicate_iou": 1.1},
    ],
)
def test_config_rejects(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        FilterConfig(**wrong)
