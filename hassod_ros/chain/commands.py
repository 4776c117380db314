"""A chain of `hassod_ros` commands, each done once: the runner of recipes that are lists of command lines.

    steps:
      - labels: pseudo_label --images {photos} --out {labels}/labels.json --features handcrafted
      - detector: detector --config small.yaml --data.images {photos} --data.annotations {labels}/labels.json
          --run.output {detector}

`{labels}` is the folder of the step of that name, `{photos}` a value that the caller gives. A step depends on the steps
that it names, on its words, and on the contents of the files among the values (see `steps` for what is done once).
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hassod_ros.chain.steps import Step
from hassod_ros.cli import VERBS
from hassod_ros.errors import InputError
from hassod_ros.files import sha256

_NAME = re.compile(r"\{(\w+)\}")
_LAST_LINES = 3  # of what a failed command said


@dataclass(frozen=True)
class Command:
    """One step of a chain.

    Attributes:
        name: Of the step, and of its folder in other steps' command lines.
        about: What it does, for a person.
        line: `VERB --option value ...`, with `{step}` for folders and `{value}` for what the caller gives.
        outputs: Files that exist in its folder when it is done.
        processes: More than one: as by torchrun, for verbs that train.

    """

    name: str
    about: str
    line: str
    outputs: tuple[str, ...]
    processes: int = 1


def command_steps(
    commands: Sequence[Command], root: str | os.PathLike, values: Mapping[str, str | os.PathLike]
) -> list[Step]:
    """The steps of a chain, for `steps.run_steps`.

    Args:
        commands: In the order in which they run; a line names only steps before it, and its own.
        root: Folder of all steps' folders.
        values: What else the lines name. A file counts by its contents, anything else by its text.

    Raises:
        InputError: A line names what there is not, or two steps have one name.

    """
    made: dict[str, Step] = {}
    for command in commands:
        if command.name in made or command.name in values:
            raise InputError(f"the chain has two things called {command.name!r}; give every step a name of its own")
        named = dict.fromkeys(_NAME.findall(command.line))
        for name in named:
            if name != command.name and name not in made and name not in values:
                known = ", ".join([*made, *values])
                raise InputError(f"step {command.name} names {{{name}}}, which is not before it; there are: {known}")
        needs = tuple(made[name] for name in named if name in made)
        given = {name: str(values[name]) for name in named if name in values}
        made[command.name] = Step(
            name=command.name,
            about=command.about,
            root=Path(root),
            settings={"line": command.line, "values": {name: _identity(text) for name, text in given.items()}},
            needs=needs,
            outputs=command.outputs,
            run=_Runner(command, {**given, **{step.name: str(step.folder) for step in needs}}),
        )
    return list(made.values())


def _identity(text: str) -> str:
    return sha256(text) if Path(text).is_file() else text


@dataclass(frozen=True)
class _Runner:
    """Runs one command; what it prints goes on to the terminal."""

    command: Command
    places: Mapping[str, str]

    def __call__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        places = {**self.places, self.command.name: str(folder)}
        verb, *words = [_NAME.sub(lambda found: places[found[1]], word) for word in shlex.split(self.command.line)]
        if verb not in VERBS:
            raise InputError(f"step {self.command.name} runs {verb!r}, which is no verb; hassod_ros --help lists them")
        launcher = [sys.executable, "-m"]
        if self.command.processes > 1:
            launcher += ["torch.distributed.run", "--standalone", f"--nproc-per-node={self.command.processes}", "-m"]
        process = subprocess.Popen(
            [*launcher, VERBS[verb].module, *words], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert process.stdout is not None
        said: list[str] = []
        try:
            for line in process.stdout:
                print(line, end="", flush=True)
                said = [*said, line.strip()][-_LAST_LINES:]
            status = process.wait()
        except BaseException:  # such as Ctrl-C: the command goes with its chain
            process.terminate()
            process.wait()
            raise
        if status:
            raise InputError(f"step {self.command.name} ended with status {status}: {' '.join(said)}")
