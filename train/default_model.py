r"""The default model from photographs in one command: pool, features, labels, burn-in, Mean Teacher, export, report.

python train/default_model.py --config config/recipes/default_model.yaml --pool.photos photos \
    --dev.annotations dev.json --dev.images dev

Says first what it will do. A step that is done is not done again while nothing it depends on has changed; a run that
was stopped goes on where it stood. --until NAME ends after a step; --labels.features tiny pre-trains features first.
"""

import sys

from hassod_ros.errors import InputError
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.chain.default_model import DefaultModelRecipe, make_default_model
    from hassod_ros.learning.config import read_settings


def main(argv: list[str] | None = None) -> int:
    """Run; 2 where the input is wrong or a gate is not passed."""
    try:
        recipe = read_settings(
            DefaultModelRecipe,
            sys.argv[1:] if argv is None else argv,
            prog="default_model",
            description=__doc__ or "",
        )
        for name, folder in make_default_model(recipe).items():
            print(f"{name}: {folder}")
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
