"""Burn-in: train the detector on pseudo-labels.

python train/detector.py --config config/recipes/small.yaml --data.images photos --data.annotations labels
torchrun --nproc_per_node 4 train/detector.py --config config/recipes/hassod_coco.yaml ...

Started again with the same values, a run that was stopped goes on where it stood.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from hassod_ros.commands import run
from hassod_ros.packages import required

with required():
    from hassod_ros.learning.config import Recipe, read_recipe, settings_parser

if TYPE_CHECKING:
    import argparse


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    return settings_parser(Recipe, prog="detector", description=__doc__ or "")


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        recipe = read_recipe(argv, prog="detector", description=__doc__ or "")
        # torch loads slowly: --help and wrong options are answered without it
        from hassod_ros.evaluation.scorer import while_training
        from hassod_ros.learning.stages import burn_in

        print(burn_in(recipe, while_training(recipe)))

    return run("detector", work)


if __name__ == "__main__":
    sys.exit(main())
