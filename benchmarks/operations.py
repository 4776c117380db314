"""How many operations a recipe's Mask2Former needs, counted without running it, and hours of GPUs from that.

A step is taken for three forward passes. Matching, losses, deformable sampling and loading are not counted, so that
hours are a lower bound; `--use` is the share of the GPUs' peak that training reaches.

Example:
    python benchmarks/operations.py config/recipes/sohes_paper.yaml --size 512x704 --gpus 8 --peak 312 --use 0.25

"""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from hassod_ros.commands import run, script_parser
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.model import Mask2Former
from hassod_ros.export.to_onnx import parse_size
from hassod_ros.learning.config import read_recipe


def main(arguments: list[str] | None = None) -> int:
    """Count and print; the status is that of `commands.run`."""
    parser = script_parser("operations", __doc__)
    parser.add_argument("recipe", help="YAML recipe with detector: mask2former")
    parser.add_argument("--size", type=parse_size, default="512x704", help="HxW of a picture in pixels")
    parser.add_argument("--gpus", type=int, default=8, help="how many")
    parser.add_argument("--peak", type=float, default=312.0, help="of each, in 10^12 operations a second")
    parser.add_argument("--use", type=float, default=0.25, help="share of the peak that is reached")
    given = parser.parse_args(arguments)

    def work() -> None:
        recipe = read_recipe(["--config", given.recipe], prog="operations", description="")
        forward = count(recipe.mask2former, given.size)
        pictures = recipe.burn_in.iterations * recipe.burn_in.batch_size
        stage = recipe.mean_teacher
        # The student learns from both batches, the teacher looks at one.
        views = stage.iterations * (stage.batch_size + stage.unlabelled_batch + stage.unlabelled_batch / 3)
        rate = given.gpus * given.peak * given.use
        print(f"{forward:.2f} x 10^12 operations forward, {3 * forward:.2f} a picture and step")
        for name, seen in (("burn_in", pictures), ("mean_teacher", views)):
            print(f"{name}: {seen / 1e6:.2f} million pictures, {3 * forward * seen / rate / 3600:.1f} hours")

    return run("operations", work)


def count(config: Mask2FormerConfig, size: tuple[int, int]) -> float:
    """10^12 operations of a forward pass; a multiplication with its addition is two."""
    with torch.device("meta"):
        model = Mask2Former(config).eval()
        image = torch.zeros(1, 3, *size)
    with FlopCounterMode(display=False) as counter:
        model.to("meta").decode(image, [size])
    return counter.get_total_flops() / 1e12


if __name__ == "__main__":
    raise SystemExit(main())
