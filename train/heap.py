r"""Train HEAP's head on photographs without labels: what is foreground, and which regions belong together.

A killed run continues where it stopped when the same command is given again.

Example:
    python train/heap.py --images photos --out heap.npz --features vit_small_patch16_224.dino
    python train/evaluate.py --task saliency --annotations ECSSD --method heap --state heap.npz \
        --features vit_small_patch16_224.dino

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from hassod_ros.commands import run, script_parser
from hassod_ros.discovery.features import DEFAULT
from hassod_ros.footage.store import as_images


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        # torch loads slowly: --help answers without it
        from hassod_ros.discovery.heap_head.run import HeapRequest, train_heap
        from hassod_ros.discovery.method import parse_option

        images = as_images(options.images, options.out.with_name(f"{options.out.stem}.frames"))
        settings = dict(map(parse_option, options.set))
        given = {key: value for key, value in vars(options).items() if key not in ("set", "images")}
        print(train_heap(HeapRequest(**given, images=images, options=settings)))

    return run("heap", work)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("heap", __doc__)
    parser.add_argument("--images", type=Path, required=True, help="folder of images, list, recording or video")
    parser.add_argument(
        "--out", type=Path, required=True, help="state to write, HEAP.npz; HEAP.run holds features, TensorBoard files"
    )
    parser.add_argument(
        "--features", default=DEFAULT, help="ViT by timm's name, tiny (needs --weights), handcrafted, or joined by +"
    )
    parser.add_argument("--weights", type=Path, help=".pth or .safetensors file (default: downloaded by name)")
    parser.add_argument("--device", help="cpu or cuda (default: cuda where there is a GPU)")
    parser.add_argument("--precision", help="bf16 or fp32 (default: bf16 where the hardware computes in it)")
    parser.add_argument(
        "--set",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        help="setting, such as size=320, head.tokens=16 or head.iterations=2000; repeatable (default: none)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
