"""The default model from photographs in one command: labels, detector, Mean Teacher, a second round, export, report.

python train/default_model.py --photos photos --machine cpu --processes 2
python train/default_model.py --photos photos --machine gpu --annotations dev.json --annotated dev

Says first what it will do. A step that is done is not done again while nothing it depends on has changed; a run that
was stopped goes on where it stood. What the steps are stands in config/chains/default_model.yaml; another chain of
commands is run by --chain FILE.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hassod_ros.commands import run, script_parser, whole_number
from hassod_ros.errors import InputError
from hassod_ros.files import find_config

if TYPE_CHECKING:
    import argparse


def main(arguments: Sequence[str] | None = None) -> int:
    """Run; the status is that of `commands.run`."""
    options = build_parser().parse_args(arguments)

    def work() -> None:
        from hassod_ros.chain.commands import command_steps, read_chain
        from hassod_ros.chain.steps import run_steps

        chain = options.chain or find_config("chains/default_model.yaml")
        values = {
            "photos": str(options.photos),
            "machine": options.machine,
            "processes": str(options.processes),
            "recipes": str(options.recipes or find_config("recipes")),
        }
        if (options.annotations is None) != (options.annotated is None):
            raise InputError("--annotations and --annotated, the folder of their pictures, go together; give both")
        if options.annotations:
            values |= {"annotations": str(options.annotations), "annotated": str(options.annotated)}
        steps = command_steps(read_chain(chain, values), options.out, values)
        run_steps(steps, until=options.until or steps[-1].name)
        for step in steps:
            if step.done:
                print(f"{step.name}: {step.folder}")

    return run("default_model", work)


def build_parser() -> argparse.ArgumentParser:
    """The script's options."""
    parser = script_parser("default_model", __doc__)
    parser.add_argument(
        "--photos", type=Path, required=True, help="folder of photographs, or text file with one path a line"
    )
    parser.add_argument("--out", type=Path, default=Path("runs", "default_model"), help="folder of the steps")
    parser.add_argument("--machine", choices=("gpu", "cpu"), default="gpu", help="which sizes of batches")
    parser.add_argument(
        "--processes",
        type=whole_number(1),
        default=1,
        help="that train together: one for each GPU, or each core of a CPU",
    )
    parser.add_argument("--annotations", type=Path, help="COCO file of an annotated set to measure on (default: none)")
    parser.add_argument("--annotated", type=Path, help="folder of its pictures (default: none)")
    parser.add_argument("--until", help="last step to do (default: all)")
    parser.add_argument("--chain", type=Path, help="file of commands (default: config/chains/default_model.yaml)")
    parser.add_argument("--recipes", type=Path, help="folder of the recipes that they name (default: config/recipes)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
