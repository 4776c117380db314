r"""The default model from photographs in one command: pool, features, labels, burn-in, Mean Teacher, export, report.

python train/default_model.py --config config/recipes/default_model.yaml --pool.photos photos \
    --dev.annotations dev.json --dev.images dev

Says first what it will do. A step that is done is not done again while nothing it depends on has changed; a run that
was stopped goes on where it stood. --until NAME ends after a step; --labels.features tiny pre-trains features first.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import run
from hassod_ros.footage.store import as_images
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.chain.default_model import DefaultModelRecipe, make_default_model
    from hassod_ros.learning.config import read_settings, settings_parser

if TYPE_CHECKING:
    import argparse


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    return settings_parser(DefaultModelRecipe, prog="default_model", description=__doc__ or "")


def main(argv: list[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    argv = sys.argv[1:] if argv is None else argv

    def work() -> None:
        recipe = read_settings(DefaultModelRecipe, argv, prog="default_model", description=__doc__ or "")
        if recipe.pool.photos:
            photos = as_images(recipe.pool.photos, Path(recipe.run.output) / "frames")
            recipe = dataclasses.replace(recipe, pool=dataclasses.replace(recipe.pool, photos=str(photos)))
        for name, folder in make_default_model(recipe).items():
            print(f"{name}: {folder}")

    return run("default_model", work)


if __name__ == "__main__":
    sys.exit(main())
