import numpy as np
import pytest
from scipy import ndimage

from hassod_ros.masks import common_pixels, fill_holes, paste_filled, paste_masks, run_lengths, without_duplicates


def paste_by_grid_sample(probabilities, box, height, width):
    """Detectron2's definition, through an independent implementation."""
    torch = pytest.importorskip("torch")
    x = (torch.arange(width, dtype=torch.float64) + 0.5 - box[0]) / (box[2] - box[0]) * 2 - 1
    y = (torch.arange(height, dtype=torch.float64) + 0.5 - box[1]) / (box[3] - box[1]) * 2 - 1
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), dim=-1)[None]
    map_ = torch.from_numpy(probabilities.astype(np.float64))[None, None]
    return torch.nn.functional.grid_sample(map_, grid, align_corners=False)[0, 0].numpy()


@pytest.mark.parametrize("box", [(3.3, 2.8, 10.1, 9.9), (0, 0, 40, 30), (5.5, 1.25, 36.75, 29.5), (7.2, 7.1, 7.9, 8.6)])
def test_pasting_equals_bilinear_sampling_at_pixel_centres(box):
    probabilities = np.random.default_rng(1).random((2, 28, 28)).astype(np.float32)
    boxes = np.array([(1, 1, 5, 5), box], np.float32)
    mask = paste_masks(probabilities, boxes, 0.5)[1]
    expected = paste_by_grid_sample(probabilities[1], [float(value) for value in boxes[1]], 30, 40)
    x0, y0, x1, y1 = (*np.floor(boxes[1, :2]).astype(int), *np.ceil(boxes[1, 2:]).astype(int))
    window = expected[y0:y1, x0:x1]
    clear = np.abs(window - 0.5) > 1e-4  # float32 against float64
    assert mask.shape == window.shape
    assert mask.dtype == np.uint8
    np.testing.assert_array_equal(mask[clear], (window > 0.5)[clear])


def test_noise_is_pasted_as_sampled_into_boxes_of_any_size():
    """Many crossings in a row of pixels, also several between two pixels."""
    rng = np.random.default_rng(2)
    sides = np.exp(rng.uniform(np.log(0.4), np.log(60), (40, 2)))
    corners = rng.uniform(0, 1, (40, 2)) * (np.array([90, 70]) - sides)
    boxes = np.concatenate([corners, corners + sides], axis=1).astype(np.float32)
    maps = rng.random((40, 28, 28)).astype(np.float32)
    masks = paste_masks(maps, boxes, 0.5)
    for map_, box, mask in zip(maps, boxes, masks, strict=True):
        x0, y0, x1, y1 = (*np.floor(box[:2]).astype(int), *np.ceil(box[2:]).astype(int))
        expected = paste_by_grid_sample(map_, [float(value) for value in box], 70, 90)[y0:y1, x0:x1]
        clear = np.abs(expected - 0.5) > 1e-4
        assert mask.shape == expected.shape
        np.testing.assert_array_equal(mask[clear], (expected > 0.5)[clear])
    filled, kept = paste_filled(maps, boxes, 0.5)
    assert filled.tolist() == [row for row, mask in enumerate(masks) if mask.any()]
    assert all(np.array_equal(mask, masks[row]) for row, mask in zip(filled.tolist(), kept, strict=True))
    assert len(kept) < len(masks)


@pytest.mark.parametrize("seed", range(8))
def test_fill_holes_equals_scipy(seed):
    rng = np.random.default_rng(seed)
    mask = (rng.random((int(rng.integers(1, 40)), int(rng.integers(1, 40)))) < rng.uniform(0.3, 0.9)).astype(np.uint8)
    before = mask.copy()
    filled = fill_holes(mask)
    np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))
    np.testing.assert_array_equal(mask, before)
    assert filled.dtype == np.uint8


def random_crops(rng, height, width, count):
    regions, masks = [], []
    for n in range(count):
        y0, x0 = rng.integers(0, height), rng.integers(0, width)
        y1, x1 = rng.integers(y0 + 1, height + 1), rng.integers(x0 + 1, width + 1)
        if n % 3 == 0:  # from the upper to the lower border: runs go on in the next column
            y0, y1 = 0, height
        regions.append((x0, y0, x1, y1))
        masks.append((rng.random((y1 - y0, x1 - x0)) < rng.choice([0.02, 0.5, 0.9, 1.0])).astype(np.uint8))
    return np.array(regions, np.int64), masks


def pasted(region, mask, height, width):
    full = np.zeros((height, width), np.uint8, order="F")
    full[region[1] : region[3], region[0] : region[2]] = mask
    return full


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 12), (40, 31), (2, 70)])
def test_run_lengths_of_crops_are_those_of_whole_frames(size):
    rle = pytest.importorskip("pycocotools.mask")
    regions, masks = random_crops(np.random.default_rng(sum(size)), *size, 60)
    expected = [rle.encode(pasted(*pair, *size))["counts"] for pair in zip(regions, masks, strict=True)]
    assert run_lengths(regions, masks, size) == expected
    assert run_lengths(regions[:0], [], size) == []


def test_run_lengths_of_a_large_image_need_many_digits():
    rle = pytest.importorskip("pycocotools.mask")
    region, mask = np.array([[3000, 2000, 3001, 2001]]), np.ones((1, 1), np.uint8)
    (code,) = run_lengths(region, [mask], (4000, 6000))
    assert rle.toBbox({"size": [4000, 6000], "counts": code}).tolist() == [3000, 2000, 1, 1]


def test_common_pixels_and_duplicates_equal_those_of_whole_frames():
    rng = np.random.default_rng(5)
    regions, masks = random_crops(rng, 12, 15, 40)
    regions, masks = np.concatenate([regions, regions[:10]]), masks + masks[:10]
    full = np.stack([pasted(*pair, 12, 15) for pair in zip(regions, masks, strict=True)]).astype(bool)
    common = (full[:, None] & full[None]).sum((2, 3))
    union = (full[:, None] | full[None]).sum((2, 3))
    for i, j in rng.integers(0, 50, (200, 2)):
        assert common_pixels(regions[i], masks[i], regions[j], masks[j]) == common[i, j]
    kept = []
    for i in range(50):
        if full[i].any() and all(common[i, j] < 0.6 * union[i, j] for j in kept):
            kept.append(i)
    filled = [i for i in range(50) if full[i].any()]
    found = without_duplicates(regions[filled], [masks[i] for i in filled], 0.6)
    assert [filled[i] for i in found] == kept
    assert len(kept) < len(filled)
