"""Burn-in: train the detector on pseudo-labels.

python train/detector.py --config config/recipes/small.yaml --data.images photos --data.annotations labels
torchrun --nproc_per_node 4 train/detector.py --config config/recipes/hassod_coco.yaml ...

Started again with the same values, a run that was stopped goes on where it stood.
"""

import sys

from hassod_ros.errors import InputError
from hassod_ros.packages import required

with required("train"):
    from hassod_ros.learning.config import read_recipe
    from hassod_ros.learning.stages import burn_in


def main(argv: list[str] | None = None) -> int:
    """Run; 2 where the input is wrong."""
    try:
        recipe = read_recipe(sys.argv[1:] if argv is None else argv, prog="detector", description=__doc__ or "")
        print(burn_in(recipe))
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
