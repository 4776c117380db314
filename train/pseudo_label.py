"""Label images without supervision: wholes, parts and subparts as COCO JSON.

A killed run continues where it stopped when the same command is given again.

Example:
    python train/pseudo_label.py --images photos --out labels.json
    python train/pseudo_label.py --images photos --out labels.json --features handcrafted --set filters.min_area=400

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.discovery.features import DEFAULT
from hassod_ros.errors import InputError
from hassod_ros.footage.store import as_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        # Ray and torch load slowly: --help answers without them.
        from hassod_ros.discovery.pseudo_label import Request, pseudo_label
        from hassod_ros.learning.annotations import packed

        images = as_images(options.images, options.out.with_name(f"{options.out.stem}.frames"))
        named = {name: dict(getattr(options, name)) for name in ("options", "scene_options")}
        print(pseudo_label(Request(**vars(options) | {"images": images, **named})))
        packed([options.out])  # the arrays that training maps, so that none of its runs waits for them

    return run("pseudo_label", work)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("pseudo_label", __doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, list, recording or video")
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        help="COCO JSON file to write, LABELS.json; LABELS.failures.json lists failures",
    )
    parser.add_argument("--method", default="hassod", help="discovery method: hassod, sohes, lightcluster or heap")
    parser.add_argument(
        "--state",
        type=Path,
        metavar="STATE.npz",
        help="what lightcluster or heap has learned (default: learns from the images first, LABELS.METHOD.npz)",
    )
    parser.add_argument(
        "--scene",
        metavar="METHOD",
        help="lightcluster or heap tells which masks are scene, and these go (default: none)",
    )
    parser.add_argument(
        "--scene-set",
        dest="scene_options",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_option,
        help="of --scene: fate=mark keeps such masks, flagged and nobody's parent; foreground=0.5 is the mean below "
        "which a mask is one, area=0.03 the least share of the image (default: none)",
    )
    parser.add_argument(
        "--features",
        default=DEFAULT,
        help="ViT by timm's name, tiny (needs --weights), handcrafted, or some joined by +",
    )
    parser.add_argument("--weights", type=Path, help=".pth or .safetensors file (default: downloaded by name)")
    parser.add_argument(
        "--crf",
        dest="options",
        metavar="native|pydensecrf",
        action="append",
        default=[],
        type=lambda method: ("crf_method", method),
        help="who computes the CRF: the same as --set crf_method=NAME (default: native)",
    )
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is a GPU)")
    parser.add_argument("--precision", help="bf16 or fp32 (default: bf16 where the hardware computes in it)")
    parser.add_argument(
        "--ray", metavar="ADDRESS", help="Ray cluster, such as 10.0.0.1:6379 or auto (default: this machine alone)"
    )
    parser.add_argument(
        "--ray-token",
        type=Path,
        metavar="FILE",
        help="token of that cluster (default: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token where it asks)",
    )
    parser.add_argument("--cpus", type=whole_number(1), help="CPUs to use on this machine (default: all)")
    parser.add_argument(
        "--batch", type=whole_number(1), help="images per pass through the features (default: 8 on GPU, 1 on CPU)"
    )
    parser.add_argument("--shard", type=whole_number(1), default=32, help="images per shard of saved work")
    parser.add_argument(
        "--set",
        dest="options",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_option,
        help="option of the method, such as thresholds=[0.4,0.2] or filters.min_area=400; repeatable (default: none)",
    )
    return parser


def _option(text: str) -> tuple[str, Any]:
    from hassod_ros.discovery.method import parse_option

    try:
        return parse_option(text)
    except InputError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


if __name__ == "__main__":
    sys.exit(main())
