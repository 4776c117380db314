"""SOHES' self-exploration: regions of many grains, closer looks, a forest of any depth.

Cao et al., "SOHES: Self-supervised Open-world Hierarchical Entity Segmentation", ICLR 2024, phase 1. Public are the
steps, not all constants: patches merge globally at a set of thresholds, small regions are enlarged and clustered again,
masks are refined, coverage arranges them. Where a value below is "ours", the paper's is not public; the thresholds, the
least size of a region, the crops' size and the containment are those of UnSAM (Wang et al., NeurIPS 2024), whose
authors had reproduced SOHES. That overlapping tiles of the image are clustered, instead of crops around its small
regions, is ours: few small things are a region of the whole image, and what is none cannot be enlarged. That regions
merge across weak contours as well, the order of the masks, and which may be parents (`ancestors`), are ours too. With
`tiles` empty, `small` 0.01 and without `contours` it finds what SOHES' own step finds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import cv2
import numpy as np

from hassod_ros.discovery.ancestors import possible_parents
from hassod_ros.discovery.clustering import centred, check_thresholds, merge_regions
from hassod_ros.discovery.contours import merge_across
from hassod_ros.discovery.crf import interpolate, refine_label_maps
from hassod_ros.discovery.crf.config import CRFConfig
from hassod_ros.discovery.crf.config import Method as CRFMethod
from hassod_ros.discovery.features.base import Features, check_image
from hassod_ros.discovery.filters import FilterConfig, Masks, select_masks
from hassod_ros.discovery.hassod import arrange, resize
from hassod_ros.discovery.rank import ranked
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances

GRID = 32  # patches along a crop's side
_WHOLE = (0.0, 0.0, 1.0, 1.0)
_OVERLAP = 1.25  # side of a tile, in shares that would not overlap (ours)
_CRF = CRFConfig(stop_at=0.02)  # HASSOD's, until a step changes fewer pixels than that (ours)
# Px of the longer side at which masks are refined, as near to the view's own as may be (ours).
_CRF_WHOLE = (48, 320)
_CRF_TILE = (48, 160)
_CRF_CROP = (48, 128)
Pooling = Literal["sum", "mean"]


@dataclass(frozen=True)
class SohesConfig:
    """Settings of self-exploration.

    Raises:
        InputError: A value is out of its range.

    """

    size: int = 480  # side of the square that the whole image is clustered at, px
    detail: int = 1024  # px of an image's longer side from which crops are taken: larger images are shrunk first
    thresholds: tuple[float, ...] = (0.6, 0.5, 0.4, 0.3, 0.2, 0.1)  # merging thresholds, descending
    centring: float = 0.0  # share of the mean feature that is taken out first (ours, for other features than DINO's)
    pooling: Pooling = "sum"  # of the patches' features as they are (the paper), or of unit vectors: all count alike
    position: float = 0.0  # weight of the patches' places beside their looks; S2-UniSeg: 0.4
    min_patches: int = 4  # smaller regions are dropped
    contours: bool = True  # the finest regions of each view also merge across weak contours (ours)
    # (n, px): the image again in n x n (ours)
    tiles: tuple[tuple[int, int], ...] = ((1, 320), (1, 640), (2, 480), (3, 480))
    small: float = 0.0  # share of the image below which a region is clustered again from close up; 0.01 without tiles
    margin: float = 0.25  # of the region's box that a crop has more, on each side (ours)
    containment: float = 0.9  # share of a region found from close up that must lie in the small one
    cover: float = 0.9  # coverage that makes one mask a part of another
    most: int | None = None  # masks of an image, the likeliest; None: all
    crf: CRFConfig | None = _CRF  # None: regions stay as coarse as the patches
    crf_method: CRFMethod = "native"
    filters: FilterConfig = field(default_factory=lambda: FilterConfig(min_area=16, max_corners=4, duplicate_iou=0.9))
    crop_batch: int = 16  # crops that share one pass through the features

    def __post_init__(self) -> None:
        for name in ("size", "detail", "min_patches", "crop_batch"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.most is not None and self.most < 1:
            raise InputError(f"most must be at least 1, got {self.most}; null keeps all masks")
        check_thresholds(self.thresholds)
        object.__setattr__(self, "tiles", tuple(map(tuple, self.tiles)))  # YAML has lists
        if any(len(each) != 2 or not all(isinstance(n, int) and n >= 1 for n in each) for each in self.tiles):
            raise InputError(f"tiles are pairs (number along each side, px), such as (2, 480), got {self.tiles}")
        if self.pooling not in (known := get_args(Pooling)):
            raise InputError(f"there is no pooling {self.pooling!r}; choose one of {', '.join(known)}")
        for name, low, high in (("centring", 0, 1), ("position", 0, 1), ("small", 0, 1), ("margin", 0, 10)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"{name} must lie in [{low}, {high}], got {getattr(self, name)}")
        for name in ("containment", "cover"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, got {getattr(self, name)}")
        if self.crf_method not in (methods := get_args(CRFMethod)):
            raise InputError(f"there is no CRF method {self.crf_method!r}; choose one of {', '.join(methods)}")


@dataclass(frozen=True, eq=False)
class Regions:
    """Where candidates lie in a rectangle of an image.

    Attributes:
        box: x0 y0 x1 y1 of the rectangle, as shares of the image's width and height.
        label_maps: (T, h, w) uint16 over the rectangle, each map with candidates 1, 2, ... and 0 for all the rest.
        sides: Least and most px of its longer side at which masks are refined.

    """

    box: tuple[float, float, float, float]
    label_maps: np.ndarray
    sides: tuple[int, int] = _CRF_WHOLE


@dataclass(frozen=True, eq=False)
class Crop:
    """A part of an image that is looked at from close up.

    Attributes:
        box: x0 y0 x1 y1 in pixels.
        inside: (h, w) bool over its patches, where the region lies that the crop is about.
        cut: (h, w) bool, patches at which the crop ends and the image goes on. What reaches them is left out; None
            where it may.

    """

    box: tuple[int, int, int, int]
    inside: np.ndarray
    cut: np.ndarray | None = None


class Sohes:
    """Self-exploration as a discovery method, see `method.Method`: label maps in between.

    Args:
        config: Settings. Default: those of `SohesConfig`.

    """

    def __init__(self, config: SohesConfig | None = None) -> None:
        self.config = config or SohesConfig()

    def prepare(self, image: np.ndarray, patch_size: int) -> np.ndarray:
        """The image, shrunk where it is larger than the crops need: (H', W', 3) uint8."""
        check_image(image)
        factor = min(1.0, self.config.detail / max(image.shape[:2]))
        height, width = (max(1, round(side * factor)) for side in image.shape[:2])
        return resize(image, (height, width))

    def fit(self, images: Iterable[np.ndarray], features: Features) -> None:
        """Nothing is learned from the set."""

    def partition(self, prepared: Sequence[np.ndarray], features: Features, state: None = None) -> list[list[Regions]]:
        """For each image its candidates: first those of the whole image, then those of each tile and each crop.

        The tiles and crops of all images go through the features in common batches.
        """
        side = _whole_patches(self.config.size, features)
        grids = features(np.stack([resize(picture, (side, side)) for picture in prepared]))
        looks = [self.look(grid, (view.shape[0], view.shape[1])) for grid, view in zip(grids, prepared, strict=True)]
        found = [[Regions(_WHOLE, maps)] for maps, _ in looks]
        for count, size in self.config.tiles:
            side = _whole_patches(size, features)
            patches = side // features.patch_size
            tiles = [(i, tile) for i, view in enumerate(prepared) for tile in tiles_of(view.shape[:2], count, patches)]
            for i, regions in self._close_up(prepared, tiles, side, len(prepared), features):
                found[i].append(replace(regions, sides=_CRF_TILE))
        crops = [(i, crop) for i, (_, crops) in enumerate(looks) for crop in crops]
        for i, regions in self._close_up(prepared, crops, GRID * features.patch_size, self.config.crop_batch, features):
            found[i].append(replace(regions, sides=_CRF_CROP))
        return found

    def _close_up(
        self, prepared: Sequence[np.ndarray], crops: list[tuple[int, Crop]], side: int, batch: int, features: Features
    ) -> Iterator[tuple[int, Regions]]:
        """The candidates of crops, each with the number of its image, enlarged to side x side pixels in batches."""
        for start in range(0, len(crops), batch):
            some = crops[start : start + batch]
            views = np.stack([_enlarge(prepared[i], crop.box, side) for i, crop in some])
            for (i, crop), grid in zip(some, features(views), strict=True):
                maps = self.candidates(self.cluster(grid), crop)
                if len(maps):
                    height, width = prepared[i].shape[:2]
                    x0, y0, x1, y1 = crop.box
                    yield i, Regions((x0 / width, y0 / height, x1 / width, y1 / height), maps)

    def masks(self, image: np.ndarray, partition: Sequence[Regions]) -> Instances:
        """The masks of an image's candidates: refined by the CRF, without duplicates, arranged into a forest.

        A region that the CRF changes beyond recognition is dropped (`filters.min_overlap`), and so is a mask that
        a likelier one resembles (`filters.duplicate_iou`). Trees may be of any depth: `parents` tell it, `levels` end
        with the subparts. The scores are those of `rank.ranked`.

        Args:
            image: (H, W, 3) uint8 RGB.
            partition: Of `partition`.

        Returns:
            Instances, the likeliest first; none where nothing passes the filters or can be seen (see `visibility`).

        """
        check_image(image)
        nothing = Masks(np.zeros((0, 4), np.int64), [], np.zeros(0, np.float32))
        found = [Masks.concatenate([nothing, *self._refine(image, each)]) for each in partition]
        views = np.repeat(np.arange(len(found)), [len(part.crops) for part in found])
        masks = ranked(image, Masks.concatenate([nothing, *found]), views, self.config.filters.duplicate_iou)
        return arrange(
            image, masks.select(np.arange(len(masks.crops))[: self.config.most]), self.config.cover, possible_parents
        )

    def look(self, grid: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, list[Crop]]:
        """Candidates in the features (C, h, w) of a whole image, as in `Regions`, and what to enlarge of it.

        A small region inside another small one is seen in the crop of the outer one: only the outermost are enlarged.

        Args:
            grid: The features.
            size: (H, W) of the picture that crops are taken from.

        """
        maps = self.cluster(grid)
        limit = self.config.small * maps[0].size
        crops: list[Crop] = []
        for labels, coarser in zip(maps, [*maps[1:], None], strict=True):
            areas = np.bincount(labels.ravel())
            small = (areas >= self.config.min_patches) & (areas < limit)
            if coarser is not None:  # partitions are nested: any patch tells which region holds this one
                _, first = np.unique(labels, return_index=True)
                small &= np.bincount(coarser.ravel())[coarser.ravel()[first]] >= limit
            crops += crops_around(labels, np.flatnonzero(small), size, self.config.margin)
        return self.candidates(maps), crops

    def cluster(self, grid: np.ndarray) -> np.ndarray:
        """(T, h, w) label maps of features (C, h, w)."""
        grid = centred(grid, self.config.centring)
        return merge_regions(weigh(grid, self.config.pooling, self.config.position), self.config.thresholds)

    def candidates(self, maps: np.ndarray, crop: Crop | None = None) -> np.ndarray:
        """Those regions of (T, h, w) label maps that are large enough and wanted, numbered as in `Regions`.

        Args:
            maps: Of `cluster`.
            crop: What they show. Default: the whole image.

        Returns:
            Of the maps those with a candidate; one that repeats the map before it is left out.

        """
        kept: list[np.ndarray] = []
        for labels in maps:
            areas = np.bincount(labels.ravel())
            keep = areas >= self.config.min_patches
            if crop is not None:
                keep &= np.bincount(labels[crop.inside], minlength=len(areas)) >= self.config.containment * areas
                if crop.cut is not None:
                    keep[labels[crop.cut]] = False
            numbered = np.where(keep, np.cumsum(keep), 0).astype(np.uint16)[labels]
            if keep.any() and not (kept and np.array_equal(numbered, kept[-1])):
                kept.append(numbered)
        return np.stack(kept) if kept else np.zeros((0, *maps.shape[1:]), np.uint16)

    def _refine(self, image: np.ndarray, regions: Regions) -> Iterator[Masks]:
        """The masks of one rectangle in pixels of the image: a set for each label map, one of unions."""
        if not len(regions.label_maps):
            return
        config = self.config
        x0, x1 = _span(regions.box[0], regions.box[2], image.shape[1])
        y0, y1 = _span(regions.box[1], regions.box[3], image.shape[0])
        view = image[y0:y1, x0:x1]
        small = resize(view, _within(y1 - y0, x1 - x0, *regions.sides))
        maps = regions.label_maps.astype(np.int32)
        least = math.ceil(config.filters.min_share * image.shape[0] * image.shape[1])  # of the image, not of the crop
        filters = replace(config.filters, min_area=max(config.filters.min_area, least), min_share=0.0)
        if config.crf is None:
            refined = [interpolate(labels, small.shape[:2]) for labels in maps]
        else:
            refined = refine_label_maps(small, maps, config.crf, method=config.crf_method)
        for labels, probabilities in zip(maps, refined, strict=True):
            masks = select_masks(labels, probabilities, (y1 - y0, x1 - x0), filters, first=1)
            yield Masks(masks.regions + np.array([x0, y0, x0, y0]), masks.crops, masks.scores)
        if config.contours:
            cut = x0 > 0, y0 > 0, x1 < image.shape[1], y1 < image.shape[0]
            masks = merge_across(small, refined[0], (y1 - y0, x1 - x0), cut, filters)
            yield Masks(masks.regions + np.array([x0, y0, x0, y0]), masks.crops, masks.scores)


def weigh(features: np.ndarray, pooling: Pooling = "sum", position: float = 0.0) -> np.ndarray:
    """Features whose sums are compared as the options ask.

    The cosine of two sums is that of the two means: what differs is what a patch counts. With `sum` a strong feature
    counts more (the paper); with `mean` all patches count alike, because they have unit length.

    Args:
        features: (C, h, w) float32.
        pooling: See above.
        position: Weight w of the place. Between two patches of unit length the similarity is (1 - w) times that of
            their features plus w times (cos(pi dx) + cos(pi dy)) / 2, dx and dy being shares of the image's sides: 1 at
            one place, -1 from corner to corner.

    Returns:
        (C, h, w) float32; (C + 4, h, w) with a position.

    """
    if pooling == "sum" and not position:
        return features
    units = features / np.maximum(np.linalg.norm(features, axis=0, keepdims=True), np.float32(1e-12))
    if not position:
        return units
    angles = [np.pi * (np.arange(n, dtype=np.float32) + 0.5) / n for n in features.shape[1:]]
    y, x = np.meshgrid(*angles, indexing="ij")
    places = np.stack([np.cos(x), np.sin(x), np.cos(y), np.sin(y)]) * np.float32((position / 2) ** 0.5)
    return np.concatenate([units * np.float32((1 - position) ** 0.5), places])


def crops_around(labels: np.ndarray, chosen: np.ndarray, size: tuple[int, int], margin: float) -> list[Crop]:
    """The crops around some regions of a label map.

    Args:
        labels: (h, w) int32 over the whole picture.
        chosen: Numbers of the regions.
        size: (H, W) of the picture in pixels.
        margin: Share of a region's box that is added on each side, as far as the picture goes.

    """
    if not len(chosen):
        return []
    shape = np.array(labels.shape[::-1])  # width, height
    rows, columns = np.nonzero(np.isin(labels, chosen))
    place = np.searchsorted(chosen, labels[rows, columns])
    low, high = np.tile(shape, (len(chosen), 1)), np.zeros((len(chosen), 2), np.int64)
    np.minimum.at(low, place, np.stack([columns, rows], axis=1))
    np.maximum.at(high, place, np.stack([columns, rows], axis=1) + 1)
    more, pixels = margin * (high - low), np.array(size[::-1])
    low = np.clip(np.floor((low - more) * pixels / shape), 0, pixels - 1).astype(np.int64)
    high = np.clip(np.ceil((high + more) * pixels / shape), low + 1, pixels).astype(np.int64)
    cells = (np.arange(GRID) + 0.5) / GRID
    patches = ((low[:, :, None] + cells * (high - low)[:, :, None]) * (shape / pixels)[None, :, None]).astype(np.int64)
    return [
        Crop((x0, y0, x1, y1), labels[np.ix_(down, across)] == region)
        for (x0, y0), (x1, y1), (across, down), region in zip(low.tolist(), high.tolist(), patches, chosen, strict=True)
    ]


def tiles_of(size: tuple[int, ...], count: int, patches: int) -> list[Crop]:
    """Overlapping tiles of a picture, in rows; none that is the whole picture, unless one is asked for.

    Args:
        size: (H, W) of the picture in pixels.
        count: Tiles along each side.
        patches: Along each side of a tile.

    """
    tiles = []
    for y0, y1 in _spans(size[0], count):
        for x0, x1 in _spans(size[1], count):
            cut = np.zeros((patches, patches), bool)
            cut[0], cut[-1] = y0 > 0, y1 < size[0]
            cut[:, 0] |= x0 > 0
            cut[:, -1] |= x1 < size[1]
            if count == 1 or cut.any():
                tiles.append(Crop((x0, y0, x1, y1), np.ones_like(cut), cut))
    return tiles


def _whole_patches(side: int, features: Features) -> int:
    """The multiple of a patch, at least one, that is nearest to so many pixels."""
    return max(1, round(side / features.patch_size)) * features.patch_size


def _enlarge(image: np.ndarray, box: tuple[int, int, int, int], side: int) -> np.ndarray:
    x0, y0, x1, y1 = box
    return cv2.resize(image[y0:y1, x0:x1], (side, side), interpolation=cv2.INTER_CUBIC)


def _span(low: float, high: float, side: int) -> tuple[int, int]:
    """First pixel, and one past the last, of a span in shares of a side; at least one pixel."""
    first = min(round(low * side), side - 1)
    return first, max(first + 1, round(high * side))


def _spans(side: int, count: int) -> list[tuple[int, int]]:
    """Where the tiles along a side of so many pixels begin and end; each once."""
    length = min(side, math.ceil(side / count * _OVERLAP))
    starts = [round(i * (side - length) / max(count - 1, 1)) for i in range(count)]
    return [(start, start + length) for start in dict.fromkeys(starts)]


def _within(height: int, width: int, least: int, most: int) -> tuple[int, int]:
    """The shape with a longer side of at least and at most so many pixels."""
    longer = max(height, width)
    factor = min(max(longer, least), most) / longer
    return max(1, round(height * factor)), max(1, round(width * factor))
