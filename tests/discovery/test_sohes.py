"""Self-exploration beside a slow reference that is written from the description, and where it must not fail."""

from __future__ import annotations

import re

import numpy as np
import pytest

from hassod_ros.coco import from_coco, to_coco
from hassod_ros.discovery.ancestors import possible_parents
from hassod_ros.discovery.clustering import merge_regions
from hassod_ros.discovery.crf import refine_label_maps
from hassod_ros.discovery.filters import FilterConfig, Masks
from hassod_ros.discovery.method import change, make_method
from hassod_ros.discovery.sohes import GRID, Regions, Sohes, SohesConfig, tiles_of, weigh
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances, Level

PATCH = 4


class Colours:
    """Mean colour of each patch, less grey; remembers what it was asked."""

    name, patch_size, dim, weights_sha256 = "colours", PATCH, 3, "0"

    def __init__(self) -> None:
        self.batches: list[tuple[int, ...]] = []

    def __call__(self, images: np.ndarray) -> np.ndarray:
        self.batches.append(images.shape)
        b, h, w, _ = images.shape
        mean = images.reshape(b, h // PATCH, PATCH, w // PATCH, PATCH, 3).mean((2, 4), dtype=np.float32)
        return np.ascontiguousarray((mean - 100).transpose(0, 3, 1, 2))


def scene(seed: int, height: int = 90, width: int = 120) -> np.ndarray:
    """Rectangles in rectangles on noise."""
    random = np.random.default_rng(seed)
    image = np.full((height, width, 3), random.integers(60, 200, 3), np.uint8)
    for _ in range(14):
        h, w = random.integers(4, height // 2), random.integers(4, width // 2)
        y, x = random.integers(0, height - h), random.integers(0, width - w)
        image[y : y + h, x : x + w] = random.integers(0, 256, 3)
    noise = random.integers(-12, 13, image.shape)
    return np.clip(image.astype(int) + noise, 0, 255).astype(np.uint8)


def config(**values) -> SohesConfig:
    return SohesConfig(**{"size": 64, "tiles": (), "small": 0.1, "crf": None, "contours": False} | values)


def reference_partitions(grid: np.ndarray, thresholds: tuple[float, ...]) -> list[list[frozenset]]:
    """Regions as sets of patches at each threshold: the best pair of neighbours merges, again and again."""
    _, h, w = grid.shape
    members = {i: {(i // w, i % w)} for i in range(h * w)}
    sums = {i: grid[:, i // w, i % w].astype(np.float64) for i in members}
    links = {
        i: {j for j in ((i + 1) if (i + 1) % w else None, i + w if i + w < h * w else None) if j is not None}
        for i in members
    }
    for i, others in list(links.items()):
        for j in others:
            links[j] = links[j] | {i}

    def likeness(i: int, j: int) -> float:
        return float(sums[i] @ sums[j] / np.sqrt((sums[i] @ sums[i]) * (sums[j] @ sums[j])))

    similar = {(i, j): likeness(i, j) for i in links for j in links[i] if i < j}
    found = []
    for threshold in thresholds:
        while similar:
            i, j = max(similar, key=similar.__getitem__)
            if similar[i, j] < threshold:
                break
            members[i] |= members.pop(j)
            sums[i] = sums[i] + sums.pop(j)
            around = (links.pop(j) | links[i]) - {i, j}
            similar = {pair: value for pair, value in similar.items() if i not in pair and j not in pair}
            links[i] = around
            for k in around:
                links[k] = (links[k] - {j}) | {i}
                similar[min(i, k), max(i, k)] = likeness(i, k)
        found.append([frozenset(each) for each in members.values()])
    return found


def as_sets(labels: np.ndarray) -> set[frozenset]:
    return {frozenset(map(tuple, np.argwhere(labels == r).tolist())) for r in range(1, int(labels.max()) + 1)}


def test_candidates_equal_the_reference():
    image, features = scene(1), Colours()
    method = Sohes(config(small=0.15))
    (found,) = method.partition([image], features)

    (grid,) = Colours()(np.asarray(_square(image, 64))[None])
    partitions = reference_partitions(grid, method.config.thresholds)
    expected = {region for regions in partitions for region in regions if len(region) >= 4}
    assert set().union(*map(as_sets, found[0].label_maps)) == expected

    limit = 0.15 * grid[0].size
    small = {region for region in expected if len(region) < limit}
    outermost = [a for a in small if not any(a < b for b in small)]
    assert len(outermost) >= 3
    assert len(found) - 1 <= len(outermost)
    boxes = {region: _box_of(region, grid.shape[1:], image.shape[:2], method.config.margin) for region in outermost}
    shares = {region: np.array(box) / np.tile(image.shape[1::-1], 2) for region, box in boxes.items()}
    close = found[1]  # the reference is slow: one crop
    (region,) = (each for each in outermost if np.allclose(close.box, shares[each]))
    inner = _inside(region, boxes[region], grid.shape[1:], image.shape[:2])
    view = _zoom(image, boxes[region], GRID * PATCH)
    kept = set()
    for regions in reference_partitions(Colours()(view[None])[0], method.config.thresholds):
        kept |= {r for r in regions if len(r) >= 4 and sum(inner[p] for p in r) >= 0.9 * len(r)}
    assert set().union(*map(as_sets, close.label_maps)) == kept


def _square(image: np.ndarray, side: int):
    from PIL import Image

    return Image.fromarray(image).resize((side, side), Image.Resampling.LANCZOS)


def _zoom(image: np.ndarray, box: tuple[int, ...], side: int) -> np.ndarray:
    import cv2

    x0, y0, x1, y1 = box
    return cv2.resize(image[y0:y1, x0:x1], (side, side), interpolation=cv2.INTER_CUBIC)


def _box_of(region: frozenset, grid: tuple[int, int], size: tuple[int, int], margin: float) -> tuple[int, ...]:
    ends = []
    for axis in (1, 0):
        low, high = min(p[axis] for p in region), max(p[axis] for p in region) + 1
        more, scale = margin * (high - low), size[axis] / grid[axis]
        ends.append((max(0, int(np.floor((low - more) * scale))), min(size[axis], int(np.ceil((high + more) * scale)))))
    (x0, x1), (y0, y1) = ends
    return x0, y0, x1, y1


def _inside(region: frozenset, box: tuple[int, ...], grid: tuple[int, int], size: tuple[int, int]) -> dict:
    x0, y0, x1, y1 = box
    inside = {}
    for r in range(GRID):
        for c in range(GRID):
            y = y0 + (r + 0.5) * (y1 - y0) / GRID
            x = x0 + (c + 0.5) * (x1 - x0) / GRID
            inside[r, c] = (int(y * grid[0] / size[0]), int(x * grid[1] / size[1])) in region
    return inside


@pytest.mark.parametrize("seed", [0, 1])
def test_masks_hold_no_duplicates_and_form_the_coverage_forest(seed):
    image, method = scene(seed), Sohes(config())
    (partition,) = method.partition([image], Colours())
    found = method.masks(image, partition)
    assert len(found) >= 8
    dense = found.dense().reshape(len(found), -1).astype(np.int64)
    areas, common = dense.sum(1), dense @ dense.T
    iou = common / (areas[:, None] + areas[None] - common)
    assert (iou[~np.eye(len(found), dtype=bool)] < 0.9).all()
    covered = common / areas[:, None]
    allowed = possible_parents(Masks(found.boxes, list(found.masks), found.scores), found.image_size)
    depths = []
    for i in range(len(found)):
        above = [j for j in range(len(found)) if covered[i, j] >= 0.9 and covered[j, i] < 0.9 and areas[j] > areas[i]]
        above = [j for j in above if allowed[i, j]]
        assert found.parents[i] == (min(above, key=lambda j: (areas[j], j)) if above else -1)
        depth, at = 0, i
        while (at := found.parents[at]) >= 0:
            depth += 1
        depths.append(depth)
    assert found.levels.tolist() == [min(depth, Level.SUBPART) for depth in depths]


def test_a_forest_deeper_than_three_survives_coco():
    image = np.random.default_rng(0).integers(0, 256, (80, 80, 3), np.uint8)
    maps = np.zeros((5, 80, 80), np.uint16)
    for level, side in enumerate((4, 9, 18, 34, 60)):
        maps[level, 2 : 2 + side, 2 : 2 + side] = 1
    found = Sohes(config()).masks(image, [Regions((0.0, 0.0, 1.0, 1.0), maps)])
    by_size = np.argsort(found.areas)
    assert found.parents[by_size].tolist() == [*by_size[1:], -1]
    assert found.levels[by_size].tolist() == [2, 2, 2, 1, 0]
    again = from_coco(to_coco(found, 1), found.image_size)
    assert again.parents.tolist() == found.parents.tolist()


def test_what_merges_wholly_is_one_region():
    class One(Colours):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            return np.ones_like(super().__call__(images))

    image = scene(0)  # a blank picture would show nothing
    method = Sohes(config())
    (partition,) = method.partition([image], One())
    assert [each.label_maps.shape for each in partition] == [(1, 16, 16)]  # six equal maps are one
    found = method.masks(image, partition)
    assert found.boxes.tolist() == [[0, 0, 120, 90]]
    assert found.areas.tolist() == [120 * 90]


def test_no_candidate_is_no_instance():
    class Lone(Colours):
        def __call__(self, images: np.ndarray) -> np.ndarray:
            grid = super().__call__(images)
            sign = (np.indices(grid.shape[2:]).sum(0) % 2 * 2 - 1).astype(np.float32)
            return np.ones_like(grid) * sign  # a chessboard: no two neighbours are alike

    image, method = scene(1), Sohes(config())
    (partition,) = method.partition([image], Lone())
    assert [len(each.label_maps) for each in partition] == [0]
    assert len(method.masks(image, partition)) == 0


def striped(image: np.ndarray, y: int, x: int, height: int, width: int) -> np.ndarray:
    """A thing of stripes that differ among themselves as little as they differ from the ground much; its mask."""
    for i in range(0, width, width // 4):
        image[y : y + height, x + i : x + i + width // 4] = (250, 200 - i, 40 + i)
    mask = np.zeros(image.shape[:2], bool)
    mask[y : y + height, x : x + width] = True
    return mask


def best(found: Instances, mask: np.ndarray) -> float:
    """Largest IoU of an instance with a mask."""
    dense = found.dense() > 0
    return float(((dense & mask).sum((1, 2)) / (dense | mask).sum((1, 2))).max(initial=0))


def test_regions_merge_across_weak_contours():
    class Unlike(Colours):
        """No two colours are alike: nothing but equal patches merges at any threshold."""

        def __call__(self, images: np.ndarray) -> np.ndarray:
            grid = super().__call__(images)
            return np.stack([np.cos(grid.sum(1) * k) for k in range(1, 30)], axis=1).astype(np.float32)

    image = np.full((96, 128, 3), (20, 40, 90), np.uint8)
    thing = striped(image, 24, 32, 48, 64)
    (partition,) = Sohes(config(small=0)).partition([image], Unlike())
    assert best(Sohes(config(contours=False)).masks(image, partition), thing) < 0.6
    assert best(Sohes(config(contours=True)).masks(image, partition), thing) > 0.9


def test_what_a_tile_cuts_off_is_no_union():
    image = np.full((96, 128, 3), (20, 40, 90), np.uint8)
    thing = striped(image, 24, 32, 48, 64)
    maps = np.zeros((1, 24, 16), np.uint16)  # the left half: two stripes
    maps[0, 6:18, 8:12], maps[0, 6:18, 12:] = 1, 2
    half = thing & (np.arange(128) < 64)
    method = Sohes(config(contours=True))
    assert best(method.masks(image, [Regions((0.0, 0.0, 0.5, 1.0), maps)]), half) < 0.6
    assert best(method.masks(image[:, :64], [Regions((0.0, 0.0, 1.0, 1.0), maps)]), half[:, :64]) > 0.9


def test_the_likeliest_come_first():
    image, method = scene(1), Sohes(config(contours=True))
    (partition,) = method.partition([image], Colours())
    scores = method.masks(image, partition).scores
    assert len(np.unique(scores)) > 8
    assert (np.diff(scores) <= 0).all()
    assert 0 <= scores.min() < 0.1 < scores.max() <= 1  # what fills the image has no outline
    few = Sohes(config(contours=True, most=5)).masks(image, partition)
    assert few.scores.tolist() == scores[:5].tolist()
    assert few.parents.max() < 5


def test_crops_of_all_images_share_batches():
    images, features = [scene(seed, 60 + 10 * seed, 80) for seed in range(3)], Colours()
    method = Sohes(config(crop_batch=7))
    together = method.partition(images, features)
    whole, *crops = features.batches
    assert whole == (3, 64, 64, 3)
    assert {shape[1:] for shape in crops} == {(GRID * PATCH, GRID * PATCH, 3)}
    assert all(shape[0] == 7 for shape in crops[:-1])
    assert sum(shape[0] for shape in crops) > 7
    for image, found in zip(images, together, strict=True):
        (alone,) = method.partition([image], Colours())
        assert [each.box for each in alone] == [each.box for each in found]
        assert all(np.array_equal(a.label_maps, b.label_maps) for a, b in zip(alone, found, strict=True))


def test_tiles_are_looked_at_as_the_whole_is():
    images, features = [scene(seed, 90, 120) for seed in range(3)], Colours()
    method = Sohes(config(small=0.0, tiles=((2, 64), (1, 32))))
    together = method.partition(images, features)
    assert features.batches == [(3, 64, 64, 3)] * 5 + [(3, 32, 32, 3)]
    boxes = [(0, 0, 75, 57), (45, 0, 120, 57), (0, 33, 75, 90), (45, 33, 120, 90)]
    found = 0
    for image, (whole, *tiles, again) in zip(images, together, strict=True):
        assert whole.box == again.box == (0, 0, 1, 1)
        assert again.label_maps.shape[1:] == (8, 8)
        assert {tuple(np.round(np.array(each.box) * (120, 90, 120, 90))) for each in tiles} <= set(boxes)
        for box in boxes:
            x0, y0, x1, y1 = box
            (grid,) = Colours()(_zoom(image, box, 64)[None])
            kept = set()
            for labels in merge_regions(grid, method.config.thresholds):
                for r in np.unique(labels):
                    mine = labels == r
                    ends = [mine[:, 0].any(), mine[0].any(), mine[:, -1].any(), mine[-1].any()]
                    if mine.sum() >= 4 and not np.any(np.array(ends) & [x0 > 0, y0 > 0, x1 < 120, y1 < 90]):
                        kept.add(frozenset(map(tuple, np.argwhere(mine).tolist())))
            (mine,) = [t.label_maps for t in tiles if np.allclose(t.box, np.array(box) / (120, 90, 120, 90))] or [[]]
            assert set().union(*map(as_sets, mine)) == kept
            found += len(kept)
    assert found > 10


def test_what_is_no_region_of_the_whole_image_is_found_in_a_tile():
    image = scene(3, 160, 160) // 16 + np.array([30, 120, 30], np.uint8)
    image[43:50, 43:50] = (20, 20, 250)  # smaller than a patch of the whole image, and in no region of its own
    square = np.zeros((160, 160), bool)
    square[43:50, 43:50] = True

    def best(*tiles: tuple[int, int]) -> float:
        method = Sohes(config(small=0.0, tiles=tiles))
        (partition,) = method.partition([image], Colours())
        masks = method.masks(image, partition).dense()
        return float(((masks & square).sum((1, 2)) / (masks | square).sum((1, 2))).max(initial=0))

    assert best((4, 64)) > 0.5 > 0.3 > best()


def test_masks_are_refined_at_few_pixels_and_in_the_shape_of_their_view(monkeypatch):
    seen = []

    def spy(image: np.ndarray, maps: np.ndarray, *rest, **named) -> list[np.ndarray]:
        seen.append(image.shape[:2])
        return refine_label_maps(image, maps, *rest, **named)

    monkeypatch.setattr("hassod_ros.discovery.sohes.refine_label_maps", spy)
    image = scene(1, 400, 800)
    method = Sohes(SohesConfig(size=64, tiles=((2, 64),)))
    (partition,) = method.partition([method.prepare(image, PATCH)], Colours())
    assert len(method.masks(image, partition))
    assert seen[0] == (160, 320)
    assert len(seen) > 1
    assert set(seen[1:]) == {(80, 160)}  # of 250 x 500


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (3, 2)])
def test_no_tile_is_the_whole_picture_or_stands_twice(size):
    boxes = [tile.box for tile in tiles_of(size, 4, 8)]
    assert (0, 0, *size[::-1]) not in boxes
    assert len(set(boxes)) == len(boxes)
    assert all(x0 < x1 <= size[1] and y0 < y1 <= size[0] for x0, y0, x1, y1 in boxes)


def test_nothing_is_enlarged_if_small_is_0():
    features = Colours()
    (found,) = Sohes(config(small=0.0)).partition([scene(0)], features)
    assert len(found) == len(features.batches) == 1


def test_small_things_are_found_from_close_up():
    image = scene(3, 160, 160) // 16 + np.array([30, 120, 30], np.uint8)
    image[40:80, 40:80] = (210, 190, 60)  # 16 patches of 10 pixels
    image[47:54, 57:64] = (20, 20, 250)  # smaller than a patch
    method = Sohes(config(small=0.1))
    (partition,) = method.partition([image], Colours())
    square = np.zeros((160, 160), bool)
    square[47:54, 57:64] = True

    def best(regions: list[Regions]) -> float:
        masks = method.masks(image, regions).dense()
        return float(((masks & square).sum((1, 2)) / (masks | square).sum((1, 2))).max())

    assert best(partition) > 0.6 > 0.3 > best(partition[:1])


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 3)])
def test_images_of_a_pixel(size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), np.uint8)
    method = Sohes(config(small=1.0, filters=FilterConfig(min_area=1, max_corners=4, duplicate_iou=0.9)))
    (partition,) = method.partition([method.prepare(image, PATCH)], Colours())
    assert method.masks(image, partition).image_size == size


def test_crops_of_one_pixel():
    class Blocks(Colours):
        """Each block of 2 x 2 patches is unlike its neighbours; crops, of 32 x 32, are of one piece."""

        def __call__(self, images: np.ndarray) -> np.ndarray:
            grid = super().__call__(images)
            blocks = (np.indices(grid.shape[2:]) // 2).sum(0) % 2 * 2 - 1
            return np.ones_like(grid) * np.asarray(blocks if grid.shape[2] < GRID else 1, np.float32)

    image = np.random.default_rng(0).integers(0, 256, (2, 3, 3), np.uint8)
    filters = FilterConfig(min_area=1, max_corners=4)
    method = Sohes(config(margin=0.0, containment=0.01, filters=filters))
    (partition,) = method.partition([image], Blocks())
    sizes = [np.subtract(each.box[2:], each.box[:2]) * (3, 2) for each in partition[1:]]
    assert any(np.allclose(size, 1) for size in sizes)
    found = method.masks(image, partition)
    assert len(found) > 0
    assert found.image_size == (2, 3)


def test_masks_of_crops_stay_inside_images_of_another_size():
    image = scene(4, 200, 300)
    method = Sohes(config(detail=100, small=0.3))
    prepared = method.prepare(image, PATCH)
    assert prepared.shape == (67, 100, 3)
    (partition,) = method.partition([prepared], Colours())
    assert len(partition) > 2
    assert any(each.box[0] == 0 or each.box[2] == 1 for each in partition[1:])  # at the border
    regions = method.masks(image, partition).regions
    assert (regions >= 0).all()
    assert (regions <= [300, 200, 300, 200]).all()


def test_mean_of_features_is_their_sum_to_a_cosine():
    grid = np.random.default_rng(0).normal(size=(5, 6, 7)).astype(np.float32)
    np.testing.assert_array_equal(merge_regions(weigh(grid) / 42, [0.3, 0.0]), merge_regions(weigh(grid), [0.3, 0.0]))
    units = weigh(grid * np.random.default_rng(1).uniform(1, 9, (6, 7)).astype(np.float32), "mean")
    np.testing.assert_allclose(np.linalg.norm(units, axis=0), 1, rtol=1e-5)
    np.testing.assert_allclose(units, weigh(grid, "mean"), rtol=1e-4)  # strength is gone


def test_position_counts_as_much_as_asked():
    grid = np.random.default_rng(0).normal(size=(5, 6, 8)).astype(np.float32)
    placed, units = weigh(grid, position=0.4), weigh(grid, "mean")
    for (y, x), (v, u) in [((0, 0), (0, 1)), ((5, 7), (0, 0)), ((2, 3), (4, 3))]:
        near = (np.cos(np.pi * (x - u) / 8) + np.cos(np.pi * (y - v) / 6)) / 2
        expected = 0.6 * units[:, y, x] @ units[:, v, u] + 0.4 * near
        assert placed[:, y, x] @ placed[:, v, u] == pytest.approx(expected, abs=1e-5)


def test_options_reach_the_method():
    options = {"small": 0.02, "cover": 0.8, "tiles": [[2, 64]], "thresholds": [0.3, 0.1], "filters.min_area": 9}
    method = make_method("sohes", options)
    assert method.config == change(SohesConfig(), options | {"tiles": ((2, 64),), "thresholds": (0.3, 0.1)})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"small": 2}, "small must lie in [0, 1], got 2"),
        ({"cover": 0}, "cover must be above 0"),
        ({"containment": 1.5}, "containment must be above 0"),
        ({"centring": -0.1}, "centring must lie in [0, 1]"),
        ({"position": -0.1}, "position must lie in [0, 1]"),
        ({"pooling": "max"}, "there is no pooling 'max'; choose one of sum, mean"),
        ({"thresholds": [0.1, 0.6]}, "must descend"),
        ({"min_patches": 0}, "min_patches must be at least 1"),
        ({"most": 0}, "most must be at least 1, got 0; null keeps all masks"),
        ({"tiles": [[2, 0]]}, "tiles are pairs (number along each side, px), such as (2, 480), got ((2, 0),)"),
        ({"tiles": [[2]]}, "tiles are pairs"),
        ({"crf_method": "none"}, "there is no CRF method 'none'"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(InputError, match=re.escape(message)):
        make_method("sohes", options)


def test_not_an_image():
    with pytest.raises(InputError, match="discovery needs"):
        Sohes().prepare(np.zeros((4, 4), np.uint8), 8)


def test_the_least_share_is_of_the_image_also_in_a_crop():
    image = scene(5)
    filters = FilterConfig(min_area=1, max_corners=4, min_share=0.05)
    method = Sohes(config(small=0.3, filters=filters))
    (partition,) = method.partition([image], Colours())
    assert len(partition) > 1
    areas = [int(mask.sum()) for mask in method.masks(image, partition).masks]
    assert areas
    assert min(areas) >= 0.05 * image.shape[0] * image.shape[1]
