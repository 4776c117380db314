"""HASSOD's first stage: one image in, its level-tagged pseudo-labels out (sections 3.1 and 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from PIL import Image

from hassod_ros.discovery.clustering import centred, check_thresholds, merge_regions
from hassod_ros.discovery.crf import interpolate, refine_label_maps
from hassod_ros.discovery.crf.config import PAPER, CRFConfig
from hassod_ros.discovery.crf.config import Method as CRFMethod
from hassod_ros.discovery.features.base import Features, check_image, features_of
from hassod_ros.discovery.filters import FilterConfig, Masks, drop_duplicates, select_masks
from hassod_ros.errors import InputError
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances
from hassod_ros.visibility import visible


@dataclass(frozen=True)
class HassodConfig:
    """Settings of the first stage; the defaults are the paper's.

    Raises:
        InputError: A value is out of its range.

    """

    size: int = 480  # side of the square that an image is resized to, px
    keep_aspect: bool = False  # instead a rectangle of the image's shape with as many pixels
    thresholds: tuple[float, ...] = (0.4, 0.2, 0.1)  # merging thresholds, descending
    centring: float = 0.0  # share of the mean feature that is taken out first (ours, for other features than DINO's)
    cover: float = 0.9  # coverage that makes one mask a part of another
    crf: CRFConfig | None = PAPER  # None: regions stay as coarse as the patches
    crf_method: CRFMethod = "native"
    filters: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        if self.size < 1:
            raise InputError(f"the input size must be at least 1 pixel, got {self.size}")
        check_thresholds(self.thresholds)
        if not 0 <= self.centring <= 1:
            raise InputError(f"centring must lie in [0, 1], got {self.centring}")
        if not 0 < self.cover <= 1:
            raise InputError(f"cover must be above 0 and at most 1, got {self.cover}")
        if self.crf_method not in (known := get_args(CRFMethod)):
            raise InputError(f"there is no CRF method {self.crf_method!r}; choose one of {', '.join(known)}")


class Hassod:
    """The first stage as a discovery method, see `method.Method`: label maps in between, 43 KB an image.

    Args:
        config: Settings. Default: the paper's.

    """

    def __init__(self, config: HassodConfig | None = None) -> None:
        self.config = config or HassodConfig()

    def prepare(self, image: np.ndarray, patch_size: int) -> np.ndarray:
        """The image as the feature extractor sees it: (H', W', 3) uint8, sides multiples of `patch_size`."""
        check_image(image)
        return resize(image, working_size(image.shape[:2], self.config, patch_size))

    def fit(self, images: Iterable[np.ndarray], features: Features) -> None:
        """Nothing is learned from the set."""

    def partition(self, prepared: Sequence[np.ndarray], features: Features, state: None = None) -> list[np.ndarray]:
        """(T, h, w) int32 label maps of each prepared image, one map for each threshold."""
        return [self.cluster(grid) for grid in features_of(prepared, features)]

    def cluster(self, grid: np.ndarray) -> np.ndarray:
        """(T, h, w) label maps of features (C, h, w)."""
        return merge_regions(centred(grid, self.config.centring), self.config.thresholds)

    def masks(self, image: np.ndarray, partition: np.ndarray) -> Instances:
        """The masks of an image's label maps: refined by the CRF, filtered, arranged into the coverage forest.

        What remains of all thresholds together forms the forest. The paper gives its pseudo-labels no score. Here it is
        the mean CRF probability inside the mask, at least 0.5: how clearly the region stands against the others of its
        threshold, not how likely it is an object.

        Args:
            image: (H, W, 3) uint8 RGB.
            partition: (T, h, w) label maps of `partition`.

        Returns:
            Instances with levels, parents and scores, in the order of the thresholds, the finest first; none where
            nothing passes the filters, as in a tiny image, or can be seen, as in a blank one (see `visibility`).

        """
        check_image(image)
        config = self.config
        small = resize(image, working_size(image.shape[:2], config))
        if config.crf is None:
            refined = [interpolate(label_map, small.shape[:2]) for label_map in partition]
        else:
            refined = refine_label_maps(small, partition, config.crf, method=config.crf_method)
        pairs = zip(partition, refined, strict=True)
        image_size = (image.shape[0], image.shape[1])
        masks = Masks.concatenate([select_masks(*pair, image_size, config.filters) for pair in pairs])
        if config.filters.duplicate_iou is not None:
            masks = drop_duplicates(masks, config.filters.duplicate_iou)
        return arrange(image, masks, config.cover)


def arrange(
    image: np.ndarray,
    masks: Masks,
    cover: float,
    allowed: Callable[[Masks, tuple[int, int]], np.ndarray] | None = None,
) -> Instances:
    """Masks of an image as a coverage forest, without those that cannot be seen.

    Args:
        image: (H, W, 3) uint8 RGB.
        masks: Of this image.
        cover: Coverage that makes one mask a part of another.
        allowed: Tells of N masks and the image's height and width (N, N) bool, whether each mask (row) may have each
            other (column) as parent. Default: all may.

    """
    size = image.shape[0], image.shape[1]
    masks = masks.select(np.flatnonzero(visible(image, masks.regions, masks.crops, size)))
    may = None if allowed is None else allowed(masks, size)
    parents, levels = coverage_forest(masks.regions, masks.crops, cover=cover, allowed=may)
    return Instances(
        image_size=size,
        boxes=masks.regions,
        masks=masks.crops,
        scores=masks.scores,
        levels=levels,
        parents=parents,
    )


def discover(image: np.ndarray, features: Features, config: HassodConfig | None = None) -> Instances:
    """Find the objects of an image and their parts, without labels.

    Args:
        image: (H, W, 3) uint8 RGB of any size; see `hassod_ros.images.read_image` for files of other kinds.
        features: Extractor, from `hassod_ros.discovery.features.load_features`.
        config: Settings. Default: the paper's.

    Returns:
        See `Hassod.masks`.

    Raises:
        InputError: The image is not (H, W, 3) uint8.

    """
    method = Hassod(config)
    (partition,) = method.partition([method.prepare(image, features.patch_size)], features)
    return method.masks(image, partition)


def discover_from_features(image: np.ndarray, features: np.ndarray, config: HassodConfig | None = None) -> Instances:
    """The rest of `discover`, from features (C, h, w) float32 of the prepared image that are already computed.

    Raises:
        InputError: The image is not (H, W, 3) uint8, or the features are not finite.

    """
    method = Hassod(config)
    return method.masks(image, method.cluster(features))


def working_size(image_size: tuple[int, ...], config: HassodConfig, multiple: int = 1) -> tuple[int, int]:
    """(H', W') that an image of (H, W) is resized to: the nearest multiples, at least one.

    Example:
        >>> working_size((720, 1280), HassodConfig(), 8), working_size((720, 1280), HassodConfig(keep_aspect=True), 8)
        ((480, 480), (360, 640))

    """
    stretch = (image_size[0] / image_size[1]) ** 0.5 if config.keep_aspect else 1.0
    height, width = (
        max(1, round(side / multiple)) * multiple for side in (config.size * stretch, config.size / stretch)
    )
    return height, width


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The image at (H', W') by Lanczos resampling, as the published code does it."""
    if image.shape[:2] == size:
        return image
    return np.asarray(Image.fromarray(image).resize(size[::-1], Image.Resampling.LANCZOS))
