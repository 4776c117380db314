"""ONNX file -> TensorRT engine in the engine cache of this machine, checked against ONNX Runtime.

Run it on the robot: an engine fits exactly one GPU and one version of TensorRT. Nodes find the engine in the cache; the
ONNX file is what is copied around.

Example:
    python export/to_tensorrt.py model.onnx --images photos/

"""

from __future__ import annotations

import argparse
import sys

from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.deploy.engine_check import build_and_check


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("to_tensorrt", __doc__)
    parser.add_argument("model", help="an .onnx file of to_onnx")
    parser.add_argument("--build-only", action="store_true", help="do not run it afterwards")
    parser.add_argument("--images", help="photographs to compare with ONNX Runtime on (needed without --build-only)")
    parser.add_argument("--cache", help="folder of engines (default: ~/.cache/hassod_ros/engines)")
    parser.add_argument("--workspace", type=whole_number(0), default=0, help="most MiB of scratch memory; 0 = no limit")
    parser.add_argument("--dla", type=whole_number(0), help="run on this DLA core what it can (default: on the GPU)")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Build; the status is that of `commands.run`."""
    given = build_parser().parse_args(arguments)

    def work() -> None:
        build_and_check(
            given.model,
            images=None if given.build_only else given.images,
            build_only=given.build_only,
            cache=given.cache,
            workspace=given.workspace << 20,
            dla_core=given.dla,
        )

    return run("to_tensorrt", work)


if __name__ == "__main__":
    sys.exit(main())
