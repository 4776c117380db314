import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pycocotools import mask as rle

from hassod_ros.learning.run_lengths import decode, nearest


def _masks(height, width):
    random = np.random.default_rng(height * width)
    masks = np.zeros((6, height, width), np.uint8)
    masks[0] = 1
    masks[1, : height // 2, width // 3 :] = 1
    masks[2] = random.random((height, width)) < 0.5
    masks[3] = np.kron(random.random((height // 4 + 1, width // 4 + 1)) < 0.3, np.ones((4, 4)))[:height, :width]
    masks[4, -1, -1] = masks[4, 0, 0] = 1
    return masks  # the last one is empty


def _encoded(masks):
    codes = [code["counts"] for code in rle.encode(np.asfortranarray(masks.transpose(1, 2, 0)))]
    return np.frombuffer(b"".join(codes), np.uint8), np.cumsum([len(code) for code in codes])


@pytest.mark.parametrize(("height", "width"), [(40, 61), (7, 3), (1, 300), (300, 1), (256, 341)])
@pytest.mark.parametrize("scale", [1.0, 0.37, 0.5, 1.25, 2.0])
def test_decodes_to_what_pycocotools_and_torch_give(height, width, scale):
    masks = _masks(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    expected = F.interpolate(torch.from_numpy(masks)[None], size, mode="nearest-exact")[0]
    found = decode(*_encoded(masks), height, width, size)
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected.numpy())


def test_no_masks_are_no_masks():
    assert decode(np.zeros(0, np.uint8), np.zeros(0, np.int64), 5, 6, (10, 12)).shape == (0, 10, 12)


@pytest.mark.parametrize(("source", "target"), [(384, 416), (333, 224), (5, 1), (1, 7)])
def test_nearest_is_torchs(source, target):
    line = torch.arange(source, dtype=torch.float32)
    expected = F.interpolate(line[None, None], target, mode="nearest-exact")[0, 0]
    assert nearest(source, target).tolist() == expected.tolist()


@pytest.mark.parametrize("spoil", ["short", "long", "cut", "negative"])
def test_refuses_runs_that_do_not_add_up(spoil):
    masks = _masks(20, 30)
    codes, ends = _encoded(masks)
    height = {"short": 19, "long": 21}.get(spoil, 20)
    if spoil == "cut":  # in the middle of a number
        codes = np.frombuffer(b"P", np.uint8)
        ends = np.array([1])
    if spoil == "negative":
        codes = np.frombuffer(b"O", np.uint8)  # -1
        ends = np.array([1])
    with pytest.raises(ValueError, match="mask 0 do not add up to"):
        decode(codes, ends, height, 30, (20, 30))
