"""Segment without any model: HASSOD's first stage on handcrafted features, tuned for a moving camera."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from hassod_ros.discovery.crf import CRFConfig
from hassod_ros.discovery.features import HANDCRAFTED, load_features
from hassod_ros.discovery.hassod import HassodConfig, discover
from hassod_ros.discovery.postprocess import FilterConfig
from hassod_ros.instances import Instances

# A quarter of the paper's pixels, half its CRF steps and no near-duplicates: several times faster, edges a little
# coarser.
FAST = HassodConfig(
    size=240,
    keep_aspect=True,
    crf=CRFConfig(iterations=5, stop_at=1e-3),
    filters=FilterConfig(duplicate_iou=0.9),
)


class TrainingFreeSegmenter:
    """Wholes, parts and subparts by colour and texture alone.

    It needs no weights and no torch, and knows nothing of objects: a stand-in until there is a model.

    Args:
        config: Settings of the discovery. Default: `FAST`.

    Attributes:
        config: As given.

    """

    def __init__(self, config: HassodConfig = FAST) -> None:
        self.config = config
        self._features = load_features(HANDCRAFTED)

    def __call__(self, image: np.ndarray, *, color_order: str = "RGB") -> Instances:
        """Instances of one (H, W, 3) uint8 image of any size, by descending score.

        Raises:
            InputError: The image has another shape or dtype.

        """
        rgb = image if color_order == "RGB" else cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        instances = discover(rgb, self._features, self.config)
        return instances.select(np.argsort(-instances.scores, kind="stable"))

    def segment(self, images: Sequence[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        """Instances of several images, one after the other."""
        return [self(image, color_order=color_order) for image in images]

    def warm_up(self) -> None:
        """Compile what is compiled at first use."""
        self(np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8))

    def close(self) -> None:
        """Nothing to give back."""
