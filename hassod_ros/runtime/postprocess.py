"""Raw detections of one image -> Instances: thresholds, boxes, masks, parents."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances, Level
from hassod_ros.masks import has_area, paste_filled, pixel_regions
from hassod_ros.outlines import follow_colors
from hassod_ros.runtime.evidence import Evidence, find_cues
from hassod_ros.runtime.model_info import LEVEL_SOURCES, ModelInfo
from hassod_ros.runtime.parents import find_parents
from hassod_ros.runtime.preprocess import Letterbox
from hassod_ros.spanning import spanning_instances


@dataclass(frozen=True, kw_only=True)
class RawDetections:
    """What a backend returns for B images, D rows each; only the first `count` rows mean something.

    Attributes:
        boxes: (B, D, 4) float32 xyxy in pixels of the network's input.
        scores: (B, D) float32 in [0, 1], descending.
        level_probabilities: (B, D, 3) float32 in the order of `Level`.
        masks: (B, D, M, M) float32 probabilities over the box; over the whole input, (B, D, h, w), where `mask_stride`
            is not 0.
        count: (B,) int32, valid rows.
        converged: (B,) bool; False where non-maximum suppression ran out of steps, so that a few overlapping boxes may
            be missing or superfluous.
        features: (B, C, rows, columns) float32, the finest pyramid level; None where they were not asked for.
        ancestors: (B, D, D) float32, probability that the column is an ancestor of the row; None where masks alone
            tell.
        mask_stride: Pixels of the network's input along a cell of masks that span it; 0: they lie in boxes.

    """

    boxes: np.ndarray
    scores: np.ndarray
    level_probabilities: np.ndarray
    masks: np.ndarray
    count: np.ndarray
    converged: np.ndarray
    features: np.ndarray | None = None
    ancestors: np.ndarray | None = None
    mask_stride: int = 0


@dataclass(frozen=True, kw_only=True)
class PostprocessOptions:
    """What becomes of raw detections.

    Attributes:
        score_thresholds: Least score for each level, in [0, 1].
        mask_threshold: Probability above which a pixel belongs to the mask, in (0, 1).
        parent_coverage: Share of a mask that its parent must contain, in (0, 1]; 0.75 is the paper's value for
            predicted masks.
        max_instances: The best so many are kept.
        level_source: "head": the level head decides. "coverage": the depth in the forest of the masks above the
            lowest threshold, as for pseudo-labels.
        color_weight: How far outlines follow the colours of the image, see `follow_colors`; 0: as the mask head draws
            them.
        evidence: Judges masks by the picture: scores become probabilities, scene is marked, and parents look like
            things. None: scores are the detector's, nothing is scene.

    """

    score_thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
    mask_threshold: float = 0.5
    parent_coverage: float = 0.75
    max_instances: int = 1000
    level_source: str = "head"
    color_weight: float = 0.0
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if len(self.score_thresholds) != len(Level) or not all(0 <= value <= 1 for value in self.score_thresholds):
            raise ValueError(f"score_thresholds must be {len(Level)} numbers in [0, 1], got {self.score_thresholds}")
        if not 0 < self.mask_threshold < 1:
            raise ValueError(f"mask_threshold must lie between 0 and 1, got {self.mask_threshold}")
        if not 0 < self.parent_coverage <= 1:
            raise ValueError(f"parent_coverage must lie in (0, 1], got {self.parent_coverage}")
        if self.level_source not in LEVEL_SOURCES:
            raise ValueError(f"level_source must be one of {LEVEL_SOURCES}, got {self.level_source!r}")
        if not 0 <= self.color_weight < np.inf:
            raise ValueError(f"color_weight must not be negative, got {self.color_weight}")
        if self.max_instances < 1:
            raise ValueError(f"max_instances must be at least 1, got {self.max_instances}")

    @classmethod
    def recommended(cls, info: ModelInfo) -> PostprocessOptions:
        """What a model's metadata recommends."""
        return cls(
            score_thresholds=info.score_thresholds,
            mask_threshold=info.mask_threshold,
            level_source=info.level_source,
            parent_coverage=info.parent_coverage,
            color_weight=info.color_weight,
            evidence=info.evidence,
        )


def to_instances(
    raw: RawDetections, index: int, placed: Letterbox, options: PostprocessOptions, pixels: np.ndarray | None = None
) -> Instances:
    """Instances of image `index` of a batch, by descending score.

    `pixels`, the network's input (h, w, 3) uint8, is needed where `color_weight` is not 0, and for evidence.

    Parents come from the masks: of those that cover the child, the deepest one (see `coverage_forest`), with evidence
    the smallest that may be one (see `Evidence`). With levels of the head only masks of a higher level are candidates;
    where masks and levels disagree, the level stands and the instance has no parent. Of a detector that tells
    ancestors, they arrange the masks (see `ancestor_forest`).
    """
    if raw.ancestors is not None:
        return _arranged(raw.ancestors[index], raw, index, placed, options)
    by_head = options.level_source == "head"
    lowest = (min(options.score_thresholds),) * len(Level)
    least = np.asarray(options.score_thresholds if by_head else lowest, np.float32)
    # Evidence changes scores: thresholds come after it.
    seen = (0.0,) * len(Level) if options.evidence else tuple(least.tolist())
    rows, levels = select_rows(raw, index, replace(options, score_thresholds=seen))
    visible, boxes, maps = find_maps(raw, index, rows, placed, options, pixels)
    rows, levels = rows[visible], levels[visible]
    scores, scene, allowed = np.clip(raw.scores[index, rows], 0, 1), np.zeros(len(rows), bool), None
    if options.evidence:
        judged = options.evidence.judge(maps_cues(raw, index, rows, maps, placed, options, pixels))
        order = np.argsort(-judged.scores, kind="stable")
        order = order[judged.scores[order] >= least[levels[order]]]
        judged, levels, boxes, maps = judged.select(order), levels[order], boxes[order], maps[order]
        scores, scene, allowed = judged.scores, judged.scene, judged.allowed
    filled, masks = paste_filled(maps, boxes, options.mask_threshold)
    filled, masks = filled[: options.max_instances], masks[: options.max_instances]
    boxes, scores, scene, levels = boxes[filled], scores[filled], scene[filled], levels[filled]
    if allowed is None or options.evidence is None:
        parents, levels = find_parents(boxes, masks, levels if by_head else None, options.parent_coverage)
    else:
        parents, levels = coverage_forest(
            pixel_regions(boxes),
            masks,
            cover=options.parent_coverage,
            levels=levels if by_head else None,
            allowed=allowed[np.ix_(filled, filled)],
            same=options.evidence.same,
        )
    instances = Instances(
        image_size=placed.image_size,
        boxes=boxes,
        masks=masks,
        scores=scores,
        levels=levels,
        parents=parents,
        scene=scene,
    )
    return instances if by_head else _above(instances, options)


def _arranged(
    ancestors: np.ndarray, raw: RawDetections, index: int, placed: Letterbox, options: PostprocessOptions
) -> Instances:
    """Instances of image `index` with masks that span the input, arranged by their `ancestors` (D, D)."""
    count = int(raw.count[index])
    scores = np.clip(raw.scores[index, :count], 0, 1)
    rows = np.flatnonzero(scores >= min(options.score_thresholds))
    height, width = (-(-side // raw.mask_stride) for side in placed.content_size)
    instances = spanning_instances(
        raw.masks[index, rows, :height, :width],
        scores[rows],
        ancestors[np.ix_(rows, rows)],
        size=placed.image_size,
        inner=placed.content_size,
        stride=raw.mask_stride,
        threshold=options.mask_threshold,
        cover=options.parent_coverage,
        most=options.max_instances,
    )
    return _above(instances, options)


def _above(instances: Instances, options: PostprocessOptions) -> Instances:
    """A level that only the forest told may ask for more than the lowest threshold."""
    passes = instances.scores >= np.asarray(options.score_thresholds, np.float32)[instances.levels]
    return instances if passes.all() else instances.select(np.flatnonzero(passes))


def select_rows(raw: RawDetections, index: int, options: PostprocessOptions) -> tuple[np.ndarray, np.ndarray]:
    """Rows (n,) of image `index` that pass their level's threshold, best first, and their levels (n,) uint8."""
    count = int(raw.count[index])
    scores = raw.scores[index, :count]
    levels = raw.level_probabilities[index, :count].argmax(axis=1).astype(np.uint8)
    # Written so that a NaN score fails.
    rows = np.flatnonzero(scores >= np.asarray(options.score_thresholds, np.float32)[levels])
    rows = rows[np.argsort(-scores[rows], kind="stable")]
    rows = rows if options.evidence else rows[: options.max_instances]
    return rows, levels[rows]


def find_maps(
    raw: RawDetections,
    index: int,
    rows: np.ndarray,
    placed: Letterbox,
    options: PostprocessOptions,
    pixels: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which of `rows` of image `index` lie in it, (n,) places in `rows`; their boxes in image pixels; n maps."""
    boxes = placed.to_image(raw.boxes[index, rows])
    visible = np.flatnonzero(has_area(boxes))
    maps = raw.masks[index, rows[visible]]
    if options.color_weight:
        if pixels is None:
            raise ValueError("color_weight needs the pixels of the network's input")
        height, width = placed.content_size
        maps = follow_colors(maps, pixels[:height, :width], raw.boxes[index, rows[visible]], options.color_weight)
    return visible, boxes[visible], maps


def maps_cues(
    raw: RawDetections,
    index: int,
    rows: np.ndarray,
    maps: np.ndarray,
    placed: Letterbox,
    options: PostprocessOptions,
    pixels: np.ndarray | None,
) -> np.ndarray:
    """What the picture shows of the masks `maps` (n, M, M) of `rows` (n,) of image `index`: (n, C), see `find_cues`."""
    if pixels is None:
        raise ValueError("evidence needs the pixels of the network's input")
    height, width = placed.content_size
    boxes = np.clip(raw.boxes[index, rows], 0, np.array([width, height] * 2, np.float32))
    scores = np.clip(raw.scores[index, rows], 0, 1)
    return find_cues(maps, boxes, scores, pixels[:height, :width], options.mask_threshold)
