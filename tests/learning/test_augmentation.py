from dataclasses import replace

import torch
from torchvision import tv_tensors

from hassod_ros.learning.augmentation import Sample, StrongView, boxes_of, copy_paste, drop_empty


def _sample(boxes, levels=None, size=(40, 60), value=0):
    masks = torch.zeros((len(boxes), *size), dtype=torch.bool)
    for mask, (x0, y0, x1, y1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    image = torch.full((3, *size), value, dtype=torch.uint8)
    levels = torch.tensor(levels or [0] * len(boxes), dtype=torch.int64)
    return Sample(tv_tensors.Image(image), masks, levels, torch.full((len(boxes),), -1))


def test_boxes_are_extents_one_past_the_end():
    boxes = [(0, 0, 1, 1), (3, 5, 60, 40), (10, 39, 12, 40)]
    assert boxes_of(_sample(boxes).masks).tolist() == [list(map(float, box)) for box in boxes]
    assert boxes_of(_sample([]).masks).shape == (0, 4)


def test_drop_empty_drops_the_level_too():
    sample = _sample([(0, 0, 5, 5), (0, 0, 0, 0), (1, 1, 2, 2)], levels=[0, 1, 2])
    assert drop_empty(sample).levels.tolist() == [0, 2]


def test_copy_paste_draws_one_to_n_minus_one_instances_scaled_into_the_target():
    source = _sample([(5 * i, 0, 5 * i + 5, 40) for i in range(4)], levels=[0, 1, 2, 1], size=(40, 20), value=200)
    target = _sample([], size=(100, 150))
    counts, widths = set(), set()
    for seed in range(60):
        torch.manual_seed(seed)
        result = copy_paste(target, source)
        counts.add(len(result.masks))
        boxes = boxes_of(result.masks)
        widths.update((boxes[:, 2] - boxes[:, 0]).tolist())
        # Stretched to the target's sides: a mask of a quarter of the width and all of the height.
        assert ((boxes[:, 3] - boxes[:, 1]) >= 30).all()
        pasted = result.masks.any(0)
        assert (result.image[0][pasted] >= 199).all()  # truncated, as released
        assert (result.image[0][~pasted] == 0).all()
    assert counts == {1, 2, 3}
    assert 10 < min(widths) < 16  # a mask grows by what it touches
    assert 33 < max(widths) <= 45


def test_pasted_masks_and_pixels_are_as_released():
    """The released code stretches bilinearly without antialiasing and takes every mask pixel that is not 0."""
    random = torch.Generator().manual_seed(1)
    masks = torch.rand((3, 37, 41), generator=random) > 0.9
    image = torch.randint(0, 256, (3, 37, 41), generator=random, dtype=torch.uint8)
    source, target = (
        Sample(tv_tensors.Image(image), masks, torch.zeros(3).long(), torch.full((3,), -1)),
        _sample([], size=(64, 80)),
    )
    for seed in range(30):
        torch.manual_seed(seed)
        chosen = torch.randperm(3)[: int(torch.randint(1, 3, ()))]
        share = float(torch.empty(()).uniform_(0.3, 1.0))
        height, width = int(64 * share), int(80 * share)
        top, left = int(torch.randint(64 - height + 1, ())), int(torch.randint(80 - width + 1, ()))
        stretch = {"size": (height, width), "mode": "bilinear", "align_corners": False}
        expected = torch.nn.functional.interpolate(masks[chosen][None].float(), **stretch)[0].bool()
        # In float64 a whole number stays one; in float32 it falls below by chance, with the number of threads.
        pixels = (torch.nn.functional.interpolate(image[None].double(), **stretch)[0] + 1e-3).byte()
        torch.manual_seed(seed)
        result = copy_paste(target, source)
        window = (..., slice(top, top + height), slice(left, left + width))
        assert torch.equal(result.masks[window], expected)
        assert torch.equal(result.image[window] * expected.any(0), pixels * expected.any(0))
        assert result.masks.sum() == expected.sum()


def test_parents_follow_their_masks_through_a_paste():
    target = replace(_sample([(0, 0, 30, 40), (2, 2, 10, 10)], levels=[0, 1]), parents=torch.tensor([-1, 0]))
    family = _sample([(0, 0, 60, 40), (0, 0, 40, 40), (0, 0, 20, 40), (0, 0, 10, 40)], levels=[0, 1, 2, 2], value=9)
    source = replace(family, parents=torch.tensor([-1, 0, 1, 2]))
    seen = set()
    for seed in range(60):
        torch.manual_seed(seed)
        result = copy_paste(target, source)
        parents, levels = result.parents.tolist(), result.levels.tolist()
        assert len(parents) == len(levels) == len(result.masks)
        for child, parent in enumerate(parents):
            assert parent < len(parents)
            if parent >= 0:
                assert levels[parent] <= levels[child]
                assert parent != child
        pasted = len(parents) - sum(1 for mask in result.masks if (result.image[0][mask] == 0).any())
        seen.add(pasted)
    assert len(seen) > 1  # more and fewer of them were pasted


def test_of_a_selection_the_nearest_ancestor_that_is_left_is_the_parent():
    family = replace(_sample([(0, 0, 9, 9)] * 4, levels=[0, 1, 2, 2]), parents=torch.tensor([-1, 0, 1, 2]))
    assert family.select(torch.tensor([3, 0])).parents.tolist() == [1, -1]
    assert family.select(torch.tensor([3, 1])).parents.tolist() == [1, -1]
    assert drop_empty(family).parents.tolist() == [-1, 0, 1, 2]


def test_copy_paste_takes_a_lone_instance():
    result = copy_paste(_sample([]), _sample([(0, 0, 60, 40)], levels=[2], value=9))
    assert result.levels.tolist() == [2]


def test_copy_paste_takes_what_it_hides_from_the_masks_below():
    target, source = _sample([(0, 0, 60, 40)], value=1), _sample([(0, 0, 60, 40)], value=2)
    for seed in range(20):
        torch.manual_seed(seed)
        result = copy_paste(target, source)
        if len(result.masks) == 2:
            assert not (result.masks[0] & result.masks[1]).any()
            assert (result.masks[0] | result.masks[1]).all()
            assert result.masks[1].sum() < 0.5 * 40 * 60
        else:  # the pasted one would have hidden half of the target's
            assert result is target
    assert target.masks.all()
    assert (target.image == 1).all()


def test_copy_paste_refuses_to_hide_half_of_any_mask():
    # The source fills its picture: wherever it lands at 0.3 or more, it hides tiny masks spread over the target.
    target = _sample([(x, y, x + 2, y + 2) for x in range(0, 60, 4) for y in range(0, 40, 4)])
    assert copy_paste(target, _sample([(0, 0, 60, 40)], value=9)) is target


def test_pasted_masks_keep_their_levels_and_parents():
    nested = _sample([(0, 0, 40, 40), (0, 0, 40, 20), (50, 0, 60, 40)], levels=[0, 0, 0])
    for seed in range(200):
        torch.manual_seed(seed)
        result = copy_paste(_sample([]), nested)
        if len(result.masks) == 2 and (result.masks[0] & result.masks[1]).any():
            assert result.levels.tolist() == [0, 0]  # though one covers the other
            return
    raise AssertionError("the nested pair was never drawn")


def test_strong_view_changes_colours_and_erases_but_keeps_shape_and_type():
    image = tv_tensors.Image(torch.full((3, 64, 80), 120, dtype=torch.uint8))
    view = StrongView()
    torch.manual_seed(0)
    views = [view(image) for _ in range(30)]
    assert all(each.shape == image.shape and each.dtype == torch.uint8 for each in views)
    # A flat picture stays flat but for the noise in the erased rectangles.
    noisy = torch.stack([(each.float() - each.float().median()).abs().amax(0) > 3 for each in views]).float()
    shares = noisy.mean((1, 2))
    assert 0 in shares.tolist()
    assert 0.02 < shares.max() < 0.5
    assert len({int(each.float().median()) for each in views}) > 5
    torch.manual_seed(0)
    assert torch.equal(view(image), views[0])
