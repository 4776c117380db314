"""Give an exported detector the output `features`, which inspection compares parts with; its weights stay as they are.

Files of today's to_onnx have it already.

Example:
    python export/add_features.py old.onnx --images photos/ --out model.onnx

"""

from __future__ import annotations

import argparse
import sys

from hassod_ros.errors import InputError
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.deploy.feature_output import add_features


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an .onnx file of to_onnx")
    parser.add_argument("--out", required=True, help="the new .onnx file; may be the same")
    parser.add_argument("--images", required=True, help="folder (or list) of photographs for parity")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Add the output; 0 on success, 2 if something given is wrong or a gate is not passed."""
    given = build_parser().parse_args(arguments)
    try:
        add_features(given.model, given.out, given.images)
    except InputError as error:
        print(f"add_features: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
