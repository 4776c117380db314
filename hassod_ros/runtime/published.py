"""Weights that others published, by name: where they are, on which terms, and where their exported files are kept.

Names and the folder are known to every robot; fetching and exporting (`fetch_model`) needs torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hassod_ros.files import expanded

FOLDER_VARIABLE = "HASSOD_ROS_MODELS"
SIZES = ((480, 640), (544, 960))  # (H, W) of a robot's pictures; the first is that of the plain name

_DINO = "https://dl.fbaipublicfiles.com/dino/"
_CUTLER_TERMS = "CC BY-NC 4.0: not for commercial use"
_DINO_TERMS = "Apache-2.0"


@dataclass(frozen=True, kw_only=True)
class Published:
    """A file that somebody published.

    Attributes:
        url: Where it is; `drive:ID` on Google Drive.
        terms: What its authors allow.
        asks: Whether these terms have to be accepted first.
        about: What it is, in a few words.
        detector: It is a detector that is exported; otherwise weights of features, kept as they are.
        has_levels: The detector has a level head.

    """

    url: str
    terms: str
    about: str
    asks: bool = False
    detector: bool = False
    has_levels: bool = False


PUBLISHED = {
    "hassod-r50": Published(
        url="drive:1pZ1yP3cs-Ezrw3OVJxi4arUFkxQ8W5fo",
        terms="Apache-2.0 by its README; its training code derives from CutLER (non-commercial, CC BY-NC-SA 4.0)",
        about="HASSOD's detector (Cao et al., 2023): Cascade Mask R-CNN, ResNet-50, with level heads",
        detector=True,
        has_levels=True,
    ),
    "cutler-r50": Published(
        url="https://dl.fbaipublicfiles.com/cutler/checkpoints/cutler_cascade_final.pth",
        terms=_CUTLER_TERMS,
        about="CutLER's detector (Wang et al., 2023): Cascade Mask R-CNN, ResNet-50; levels follow from the masks",
        asks=True,
        detector=True,
    ),
    "dino-vits8": Published(
        url=_DINO + "dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth",
        terms=_DINO_TERMS,
        about="DINO's ViT-S/8, features for discovery (vit_small_patch8_224.dino)",
    ),
    "dino-vitb8": Published(
        url=_DINO + "dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
        terms=_DINO_TERMS,
        about="DINO's ViT-B/8, features for discovery (vit_base_patch8_224.dino)",
    ),
    "dino-r50": Published(
        url=_DINO + "dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
        terms=_DINO_TERMS,
        about="DINO's ResNet-50, a trunk to train a detector from",
    ),
}


def model_folder() -> Path:
    """Where fetched models are: `$HASSOD_ROS_MODELS`, else `hassod_ros/models` in the user's cache."""
    if given := os.environ.get(FOLDER_VARIABLE):
        return Path(given)
    return expanded(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "hassod_ros" / "models"


def exported_names() -> dict[str, Path]:
    """Every name of an exported published detector -> its file, whether it was fetched or not."""
    names = {}
    for name, published in PUBLISHED.items():
        if published.detector:
            for precision in ("", "-int8"):
                names[f"{name}{precision}"] = exported_file(name, SIZES[0], precision)
                for height, width in SIZES:
                    names[f"{name}-{width}x{height}{precision}"] = exported_file(name, (height, width), precision)
    return names


def exported_file(name: str, size: tuple[int, int], precision: str = "") -> Path:
    """The file of a published detector, exported for (H, W); `precision` is "" or "-int8"."""
    return model_folder() / f"{name}-{size[1]}x{size[0]}{precision}.onnx"
