"""Training-free mode: discovery itself as a segmenter, for a first look at a new domain.

There is no detector and nothing to load, but each frame takes the time of clustering and CRF. Needs
`pip install 'hassod_ros[train]'`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hassod_ros.discovery.features import load_features, suited_options
from hassod_ros.discovery.features.base import HANDCRAFTED
from hassod_ros.discovery.hassod import HassodConfig, discover
from hassod_ros.discovery.method import change
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.runtime.preprocess import COLOR_ORDERS, Picture, as_array
from hassod_ros.runtime.selection import Selection

_WARM_UP_SIZE = (120, 160)


class TrainingFreeSegmenter:
    """The interface of `Segmenter` over `discover`.

    Args:
        features: Name of the feature extractor, see `load_features`. The default needs no weights.
        weights: File of its weights.
        device: Where it runs.
        size: Side of the square that an image is resized to, px; the paper's 480 is slower and finer.
        config: All settings, instead of `size` and the features' thresholds.

    Attributes:
        info: None; there is no model file.
        backend: "".
        batch: 1.

    Raises:
        InputError: The features or their weights cannot be loaded, or a setting is out of range.

    """

    info = None
    backend = ""
    batch = 1

    def __init__(
        self,
        features: str = HANDCRAFTED,
        weights: str | None = None,
        device: str | None = None,
        size: int = 320,
        config: HassodConfig | None = None,
    ) -> None:
        self._features = load_features(features, weights, device)
        if config is None:
            config = change(HassodConfig(size=size, keep_aspect=True), suited_options(features))
        self._config = config

    def __call__(self, image: Picture, *, color_order: str = "RGB") -> Instances:
        """Segment one (H, W, 3) uint8 image of any size, or an image file."""
        if color_order not in COLOR_ORDERS:
            raise InputError(f"color_order must be one of {', '.join(COLOR_ORDERS)}, not {color_order!r}")
        image = as_array(image, color_order)
        if color_order == "BGR":
            image = np.ascontiguousarray(image[..., ::-1])
        return discover(image, self._features, self._config)

    def segment(self, images: Sequence[Picture], *, color_order: str = "RGB") -> list[Instances]:
        """Segment several images, each of any size."""
        return [self(image, color_order=color_order) for image in images]

    def configure(self, selection: Selection) -> None:
        """Discovery has no scores that could be asked for."""

    def warm_up(self) -> None:
        """Compile what is compiled at its first use."""
        self(np.random.default_rng(0).integers(0, 256, (*_WARM_UP_SIZE, 3), np.uint8))

    def close(self) -> None:
        """Nothing is held."""
