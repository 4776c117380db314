"""The ViT of discovery -> one static ONNX file, so that discovery runs without torch, on TensorRT too.

Example:
    python export/features_to_onnx.py vit_base_patch8_224.dino --size 480x480 --images photos/ --out vit.onnx

"""

from __future__ import annotations

import argparse
import sys

from hassod_ros.commands import run, script_parser
from hassod_ros.export.to_onnx import parse_size
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.deploy.feature_export import export_features
    from hassod_ros.discovery.features.vit import load_vit


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("features_to_onnx", __doc__)
    parser.add_argument("name", help="a ViT that timm knows")
    parser.add_argument("--weights", help="file of weights (default: those that timm downloads)")
    parser.add_argument("--size", type=parse_size, default="480x480", help="HxW in pixels, multiples of the patch size")
    parser.add_argument("--batch", type=int, default=1, help="images per call")
    parser.add_argument("--images", required=True, help="photographs for the comparison with torch")
    parser.add_argument("--out", required=True, help="the .onnx file")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Export; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)

    def work() -> None:
        features = load_vit(given.name, weights=given.weights, device="cpu", precision="fp32")
        export_features(features, given.out, size=given.size, images=given.images, batch=given.batch)

    return run("features_to_onnx", work, after_stop="nothing was written")


if __name__ == "__main__":
    sys.exit(main())
