"""What can be wished of an export; known without torch."""

from __future__ import annotations

import os
from dataclasses import dataclass

from hassod_ros.errors import InputError
from hassod_ros.runtime.evidence import Evidence
from hassod_ros.runtime.model_info import PRECISIONS

TARGETS = ("x86", "x86_avx2", "tensorrt")  # whose instructions int8 suits


@dataclass(frozen=True, kw_only=True)
class ExportOptions:
    """What to export and what to hold it against.

    Attributes:
        input_size: (H, W) in pixels, multiples of 32.
        proposals: K, regions that go through the stages of a cascade.
        detections: D, rows of the outputs.
        batch: Images per call.
        precision: "fp32", "fp16" or "int8".
        target: Of int8: "x86" (uint8 activations), "x86_avx2" (also 7-bit weights) or "tensorrt" (symmetric, float
            biases).
        images: Photographs for parity and calibration: a folder or a list of paths (`list_images`).
        store_half: Keep the weights of fp32 as float16, see `store_half`.
        annotations: COCO file of an annotated set; needed for fp16, int8 and `store_half`.
        annotated_images: Folder of its images.
        recipe: Name of the training recipe, for the metadata.
        score_thresholds: Recommended least score for each level.
        level_source: See `ModelInfo`; of a Mask2Former always "coverage".
        parent_coverage: Likewise. Default: 0.75, or what a Mask2Former's config says.
        color_weight: Likewise.
        evidence: Likewise.

    """

    input_size: tuple[int, int]
    images: str | os.PathLike
    proposals: int = 300
    detections: int = 50
    batch: int = 1
    precision: str = "fp32"
    target: str = "x86"
    store_half: bool = False
    annotations: str | os.PathLike | None = None
    annotated_images: str | os.PathLike | None = None
    recipe: str = ""
    score_thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
    level_source: str = "head"
    parent_coverage: float | None = None
    color_weight: float = 0.0
    evidence: Evidence | None = None

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; choose one of {', '.join(PRECISIONS)}")
        if self.target not in TARGETS:
            raise InputError(f"target is {self.target!r}; choose one of {', '.join(TARGETS)}")
        if self.batch < 1:
            raise InputError(f"batch is {self.batch}; give at least 1")
        if self.store_half and self.precision != "fp32":
            raise InputError(f"store_half is for fp32; {self.precision} has small weights already")
        lossy = "store_half" if self.store_half else self.precision
        if lossy != "fp32" and (self.annotations is None or self.annotated_images is None):
            raise InputError(f"{lossy} needs an annotated set to measure the loss; give annotations and images")
