"""PyTorch, for workstations: runs a checkpoint as it is, without an export. Also what an export is held against."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from operator import attrgetter, itemgetter
from typing import Any

import numpy as np
import torch

from hassod_ros.detection.base import Detector
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.fpn import STRIDES
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.detection.detections import Detections
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.found import Found, extents
from hassod_ros.detection.mask2former.model import STRIDE, Mask2Former
from hassod_ros.errors import InputError
from hassod_ros.files import revision, sha256
from hassod_ros.hierarchy import ANY
from hassod_ros.instances import Level
from hassod_ros.runtime.backends.base import blank_images, check_images
from hassod_ros.runtime.evidence import Evidence
from hassod_ros.runtime.model_info import ModelInfo
from hassod_ros.runtime.postprocess import RawDetections

PREDICTED_COVER = 0.75  # share of a predicted mask that its parent contains, HASSOD's


class TorchBackend:
    """See `Backend`.

    Args:
        model: Detector in evaluation mode.
        info: Its metadata; batch and input size are what `infer` takes.
        device: Where it runs.
        features: See `Backend.load`.

    """

    def __init__(self, model: Detector, info: ModelInfo, device: str = "cpu", *, features: bool = False) -> None:
        self.info = info
        self.name = f"torch {torch.__version__} {device}"
        self._model: Detector | None = model.to(device)
        self._device = device
        self._features = features

    @classmethod
    def load(
        cls,
        path: str | os.PathLike,
        *,
        config: DetectorConfig | Mask2FormerConfig | None = None,
        input_size: tuple[int, int] = (480, 640),
        batch: int = 1,
        device: str | None = None,
        features: bool = False,
    ) -> TorchBackend:
        """Load a checkpoint.

        Args:
            path: See `open_detector`.
            config: See `open_detector`.
            input_size: (H, W) that images are fitted into.
            batch: Images per call.
            device: A torch device. Default: CUDA where there is one.
            features: See `Backend.load`.

        Raises:
            InputError: The checkpoint cannot be read, or the device has too little memory or does not exist.

        """
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        model = open_detector(path, config)
        info = describe(model, input_size=input_size, batch=batch, weights_sha256=sha256(path))
        try:
            return cls(model, info, device, features=features)
        except torch.OutOfMemoryError as error:
            raise InputError(f"{path} does not fit into the memory of {device}; choose another device") from error
        except (RuntimeError, AssertionError) as error:  # torch's answers to a device that is not there
            raise InputError(f"torch cannot use the device {device!r} ({error}); choose another") from error

    @torch.inference_mode()
    def infer(self, images: np.ndarray) -> RawDetections:
        """See `Backend.infer`."""
        check_images(images, self.info)
        if self._model is None:
            raise RuntimeError("this backend is closed")
        pixels = torch.from_numpy(images).to(self._device).permute(0, 3, 1, 2).float()
        found, features = _observe(self._model, pixels)
        if self.info.mask_stride:
            cells = [-(-side // self.info.mask_stride) for side in self.info.input_size]
            raw = stack_found(found, self.info.detections, (cells[0], cells[1]), self._model.config.mask_threshold)
        else:
            raw = stack_detections(found, self.info.detections, self.info.mask_size)
        return replace(raw, features=features.float().cpu().numpy()) if self._features else raw

    def warm_up(self) -> None:
        """See `Backend.warm_up`."""
        self.infer(blank_images(self.info))

    def close(self) -> None:
        """See `Backend.close`."""
        self._model = None


def describe(
    model: Detector,
    *,
    input_size: tuple[int, int],
    batch: int,
    weights_sha256: str,
    precision: str = "fp32",
    recipe: str = "",
    score_thresholds: tuple[float, ...] = (0.5, 0.5, 0.5),
    level_source: str = "head",
    parent_coverage: float | None = None,
    color_weight: float = 0.0,
    evidence: Evidence | None = None,
) -> ModelInfo:
    """The metadata of a detector that runs at one batch and input size; by default `parent_coverage` is its own."""
    config = model.config
    own: dict[str, Any]
    if isinstance(model, Mask2Former):
        own = {
            "architecture": f"mask2former_{config.backbone}",
            "proposals": config.queries,
            "detections": min(config.detections, config.queries),
            "level_source": "coverage",  # it has no level head
            "parent_coverage": max(config.cover, ANY) if parent_coverage is None else parent_coverage,
            "nms_threshold": 1.0,  # nothing is suppressed
            "mask_stride": STRIDE,
        }
    else:
        own = {
            "architecture": f"cascade_mask_rcnn_{config.backbone}",
            "proposals": config.rpn_post_nms[1],
            "detections": min(config.detections, config.rpn_post_nms[1]),
            "level_source": level_source,
            "parent_coverage": PREDICTED_COVER if parent_coverage is None else parent_coverage,
            "nms_threshold": config.nms,
            "rpn_nms": config.rpn_nms,
            "mask_size": 2 * config.mask_pool,
        }
    return ModelInfo(
        **own,
        input_size=input_size,
        batch=batch,
        weights_sha256=weights_sha256,
        revision=revision(),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        recipe=recipe,
        precision=precision,
        mean=tuple(config.pixel_mean),
        std=tuple(config.pixel_std),
        score_thresholds=score_thresholds,
        color_weight=color_weight,
        evidence=evidence,
        feature_stride=STRIDES[0],
        mask_threshold=config.mask_threshold,
    )


def _observe(model: Detector, pixels: torch.Tensor) -> tuple[Sequence[Any], torch.Tensor]:
    """What a detector finds, and its finest features, taken where they pass by: the trunk runs once."""
    passing: list[torch.Tensor] = []
    module: Any
    finest: Callable[[Any], torch.Tensor]
    if isinstance(model, Mask2Former):
        module, finest = model.body.pixel_decoder, attrgetter("mask_features")
    else:
        module, finest = model.backbone, itemgetter(0)
    hook = module.register_forward_hook(lambda module, given, made: passing.append(finest(made)))
    try:
        return model(pixels), passing[0]
    finally:
        hook.remove()


def stack_detections(found: Sequence[Detections], rows: int, side: int) -> RawDetections:
    """Detections of B images as arrays of `rows` rows each, the rest zeros."""
    batch = len(found)
    raw = RawDetections(
        boxes=np.zeros((batch, rows, 4), np.float32),
        scores=np.zeros((batch, rows), np.float32),
        level_probabilities=np.zeros((batch, rows, len(Level)), np.float32),
        masks=np.zeros((batch, rows, side, side), np.float32),
        count=np.array([len(each) for each in found], np.int32),
        converged=np.ones(batch, bool),  # torchvision's suppression always is
    )
    for i, each in enumerate(found):
        n = len(each)
        raw.boxes[i, :n] = each.boxes.cpu().numpy()
        raw.scores[i, :n] = each.scores.cpu().numpy()
        levels = each.level_probabilities.cpu().numpy()
        # A detector without level heads finds wholes only.
        raw.level_probabilities[i, :n] = levels if levels.shape[1] else np.eye(len(Level), dtype=np.float32)[0]
        raw.masks[i, :n] = each.mask_probabilities.cpu().numpy()
    return raw


def stack_found(found: Sequence[Found], rows: int, cells: tuple[int, int], threshold: float) -> RawDetections:
    """Detections of B images with masks of (h, w) cells as arrays of `rows` rows each, the rest zeros."""
    batch = len(found)
    raw = RawDetections(
        boxes=np.zeros((batch, rows, 4), np.float32),
        scores=np.zeros((batch, rows), np.float32),
        level_probabilities=np.tile(np.eye(len(Level), dtype=np.float32)[0], (batch, rows, 1)),
        masks=np.zeros((batch, rows, *cells), np.float32),
        count=np.array([len(each) for each in found], np.int32),
        converged=np.ones(batch, bool),
        ancestors=np.zeros((batch, rows, rows), np.float32),
        mask_stride=STRIDE,
    )
    assert raw.ancestors is not None
    for i, each in enumerate(found):
        n = len(each)
        raw.boxes[i, :n] = STRIDE * extents(each.masks > threshold).cpu().numpy()
        raw.scores[i, :n] = each.scores.cpu().numpy()
        raw.masks[i, :n] = each.masks.cpu().numpy()
        raw.ancestors[i, :n, :n] = each.ancestors.cpu().numpy()
    return raw
