"""The ViT of discovery -> one static ONNX file, so that discovery runs without torch, on TensorRT too.

With a trained head of HEAP the file is a model that a robot takes like a detector.

Example:
    python export/features_to_onnx.py vit_base_patch8_224.dino --size 480x480 --images photos/ --out vit.onnx
    python export/features_to_onnx.py vit_small_patch16_224.dino --heap heap.npz --images photos/ --out heap.onnx

"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, cast

from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.errors import InputError
from hassod_ros.export.to_onnx import parse_size

if TYPE_CHECKING:
    from hassod_ros.discovery.heap import Heap
    from hassod_ros.discovery.states import State


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("features_to_onnx", __doc__)
    parser.add_argument("name", help="a ViT that timm knows, or tiny")
    parser.add_argument("--weights", help="file of weights (default: those that timm downloads)")
    parser.add_argument("--heap", help="state of train/heap.py, to export its head as well (default: none)")
    parser.add_argument("--size", type=parse_size, default="480x480", help="HxW in pixels, multiples of the patch size")
    parser.add_argument("--batch", type=whole_number(1), default=1, help="images per call")
    parser.add_argument("--images", required=True, help="photographs for the comparison with torch")
    parser.add_argument("--out", required=True, help="the .onnx file")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Export; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)

    def work() -> None:
        # torch loads slowly: --help answers without it
        from hassod_ros.deploy.feature_export import export_features
        from hassod_ros.discovery.features import load_features
        from hassod_ros.discovery.features.vit import ViTFeatures
        from hassod_ros.discovery.method import open_learner

        features = load_features(given.name, given.weights, "cpu", "fp32")
        if not isinstance(features, ViTFeatures):
            raise InputError(f"{given.name} is no ViT; only a ViT is exported")
        heap = cast("tuple[Heap, State]", open_learner("heap", given.heap)) if given.heap else None
        export_features(features, given.out, size=given.size, images=given.images, batch=given.batch, heap=heap)

    return run("features_to_onnx", work, writes=(Path(given.out).parent,), after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
