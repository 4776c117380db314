"""How many operations a recipe's detector needs, counted without running it, and hours of GPUs from that.

A step is taken for three forward passes. Matching, losses, deformable sampling and loading are not counted; `--use` is
the share of the GPUs' peak that training reaches.

`--measure` finds that share here: steps of the recipe's whole model on one picture of a smaller size, with
everything but loading, in one thread, beside a product of large matrices in the same thread. What is not counted makes
such a step longer and the share smaller, so that it is in the hours. That a GPU loses the same share is assumed.

Example:
    python benchmarks/operations.py config/recipes/sohes_paper.yaml --size 512x704 --gpus 8 --peak 312 --use 0.25
    python benchmarks/operations.py config/recipes/sohes_paper.yaml --measure 192x256
    python benchmarks/operations.py config/recipes/hassod_coco.yaml --gpus 4 --peak 312 --use 0.036

"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from hassod_ros.commands import run, script_parser
from hassod_ros.detection.base import Targets
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.input_size import input_size
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.model import Mask2Former
from hassod_ros.export.to_onnx import parse_size
from hassod_ros.learning.config import Recipe, read_recipe

MATRIX = 2048  # side of the matrices of the product
STEPS = 3  # that are timed, after one that is not


def main(arguments: list[str] | None = None) -> int:
    """Count and print; the status is that of `commands.run`."""
    parser = script_parser("operations", __doc__)
    parser.add_argument("recipe", help="YAML recipe of a training run")
    parser.add_argument(
        "--size", type=parse_size, help="HxW of a picture in pixels (default: 4:3 at the recipe's sides, their mean)"
    )
    parser.add_argument("--gpus", type=int, default=8, help="how many")
    parser.add_argument("--peak", type=float, default=312.0, help="of each, in 10^12 operations a second")
    parser.add_argument("--use", type=float, default=0.25, help="share of the peak that is reached")
    parser.add_argument(
        "--measure", type=parse_size, metavar="HxW", help="measure that share on a picture of this size"
    )
    given = parser.parse_args(arguments)

    def work() -> None:
        recipe = read_recipe(["--config", given.recipe], prog="operations", description="")
        config = recipe.mask2former if recipe.detector == "mask2former" else recipe.model
        sides = recipe.data.short_sides
        sizes = [given.size] if given.size else [input_size((480, 640), side, recipe.data.max_side) for side in sides]
        forward = statistics.mean(count(config, size) for size in sizes)
        pictures = recipe.burn_in.iterations * recipe.burn_in.batch_size
        stage = recipe.mean_teacher
        # The student learns from both batches, of the labelled one maybe in two views; the teacher looks at one.
        labelled = stage.batch_size * (2 if stage.label_views == "both" else 1)
        views = stage.iterations * (labelled + stage.unlabelled_batch + stage.unlabelled_batch / 3)
        use = given.use if given.measure is None else measured_use(recipe, given.measure)
        rate = given.gpus * given.peak * use
        print(f"{forward:.2f} x 10^12 operations forward, {3 * forward:.2f} a picture and step")
        for name, seen in (("burn_in", pictures), ("mean_teacher", views)):
            print(f"{name}: {seen / 1e6:.2f} million pictures, {3 * forward * seen / rate / 3600:.1f} hours")

    return run("operations", work)


def count(config: DetectorConfig | Mask2FormerConfig, size: tuple[int, int]) -> float:
    """10^12 operations of a forward pass; a multiplication with its addition is two.

    Of the cascade with as many boxes as a loss samples, and as many masks as there may be among them.
    """
    with torch.device("meta"):
        image = torch.zeros(1, 3, *size)
        model = (Mask2Former(config) if isinstance(config, Mask2FormerConfig) else CascadeMaskRCNN(config)).eval()
    model.to("meta")
    with FlopCounterMode(display=False) as counter:
        if isinstance(model, Mask2Former):
            model.decode(image, [size])
        else:
            _cascade(model, image, size)
    return counter.get_total_flops() / 1e12


def _cascade(model: CascadeMaskRCNN, image: Tensor, size: tuple[int, int]) -> None:
    config, heads = model.config, model.roi_heads
    model.proposal_generator(model.pyramid(image, [size]))
    pooled = image.new_zeros(config.box_samples, config.fpn_channels, config.box_pool, config.box_pool)
    for head, predictor in zip(heads.box_head, heads.box_predictor, strict=True):
        predictor(head(pooled))
    masks = int(config.box_samples * config.box_positive)
    heads.mask_head(image.new_zeros(masks, config.fpn_channels, config.mask_pool, config.mask_pool))


def measured_use(recipe: Recipe, size: tuple[int, int]) -> float:
    """Share of a matrix product's speed that training steps reach, by processor time of one thread; it is printed."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    config = recipe.mask2former
    model = Mask2Former(config).train()
    optimiser = torch.optim.AdamW(model.parameters(), recipe.burn_in.learning_rate)
    image, target = torch.rand(1, 3, *size) * 255, rectangles(config.max_targets, size)

    def step() -> None:
        optimiser.zero_grad()
        torch.stack(list(model.losses(image, [size], [target]).values())).sum().backward()
        optimiser.step()

    square = torch.rand(MATRIX, MATRIX)
    fastest = 2 * MATRIX**3 / 1e12 / seconds(lambda: square @ square)
    spent = seconds(step)
    reached = 3 * count(config, size) / spent
    height, width = size
    print(
        f"a step of one picture of {height}x{width} with {len(target.boxes)} objects takes {spent:.1f} s of processor "
        f"time: {reached * 1000:.1f} x 10^9 operations a second, a matrix product {fastest * 1000:.1f}: "
        f"{reached / fastest:.0%} of it"
    )
    return reached / fastest


def seconds(work: Callable[[], object]) -> float:
    """Processor time of a run, the median of `STEPS` after one that warms up."""
    found = []
    for _ in range(STEPS + 1):
        start = time.process_time()
        work()
        found.append(time.process_time() - start)
    return statistics.median(found[1:])


def rectangles(number: int, size: tuple[int, int]) -> Targets:
    """So many objects at random places, each a rectangle and nobody's part."""
    height, width = size
    low = torch.rand(number, 2) * torch.tensor([width, height]) * 0.8
    boxes = torch.cat([low, low + torch.rand(number, 2) * torch.tensor([width, height]) * 0.2 + 1], dim=1)
    x, y = torch.arange(width), torch.arange(height)
    across = (x >= boxes[:, :1]) & (x < boxes[:, 2:3])
    along = (y >= boxes[:, 1:2]) & (y < boxes[:, 3:])
    levels = torch.zeros(number, dtype=torch.int64)
    return Targets(boxes, levels, along[:, :, None] & across[:, None], levels - 1)


if __name__ == "__main__":
    raise SystemExit(main())
