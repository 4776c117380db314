"""A chain of `hassod_ros` commands, each done once: the runner of recipes that are lists of command lines.

    values: [photos]                  # that the caller must give
    words: {features: --features handcrafted}   # that several lines have in common
    steps:
      labels:
        about: label the photographs
        run: pseudo_label --images {photos} --out {labels}/labels.json {features}
        makes: labels.json
      detector:
        about: train on these labels
        run: detector --config {recipes}/small.yaml --data.images {photos} --data.annotations {labels}/labels.json
          --run.output {detector}
        makes: burn_in/model.pth
        processes: 2                  # as by torchrun

`{labels}` is the folder of the step of that name, `{photos}` a value that the caller gives. A step depends on the steps
that it names and on its words; a word that is a file or a folder counts by what it holds, wherever it lies.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import yaml

from hassod_ros import children
from hassod_ros.chain.steps import Step
from hassod_ros.cli import VERBS
from hassod_ros.errors import InputError
from hassod_ros.files import make_folder
from hassod_ros.footage.store import fingerprint

STOPPED = (130, 143)  # status after Ctrl-C and SIGTERM
_NAME = re.compile(r"\{(\w+)\}")
_TRAINING = ("torch", "torchvision", "pycocotools", "tensorboard")
# What verbs import, maybe hours after a chain began.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "pretrain_features": ("torch", "lightly", "timm"),
    "pseudo_label": ("ray", "numba", "scipy", "pycocotools"),
    "detector": _TRAINING,
    "mean_teacher": _TRAINING,
    "relabel": _TRAINING,
    "to_onnx": ("torch", "onnx", "onnxscript"),
    "evaluate": ("numba", "pycocotools"),
}


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


def read_chain(path: str | os.PathLike, values: Mapping[str, str]) -> list[Command]:
    """The commands of a file, such as config/chains/default_model.yaml.

    Steps that name an optional value that is not given are left out, and so are those that read from them.

    Args:
        path: YAML file; its keys are explained above. `optional` lists values that need not be given.
        values: What the caller gives, by name.

    Raises:
        InputError: It cannot be read, is no chain, or a value is missing or not known to it.

    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
        needed, optional = list(content.get("values", [])), list(content.get("optional", []))
        words = {str(name): str(text) for name, text in content.get("words", {}).items()}
        steps = {str(name): dict(step) for name, step in content["steps"].items()}
        commands = [
            Command(
                name,
                str(step.pop("about")),
                _fill(str(step.pop("run")), words),
                tuple(str(step.pop("makes")).split()),
                int(_NAME.sub(lambda found: values[found[1]], str(step.pop("processes", 1)))),
            )
            for name, step in steps.items()
        ]
        left = sorted({key for step in steps.values() for key in step})
    except OSError as error:
        raise InputError(f"the chain {path} cannot be read ({error.strerror})") from error
    except (yaml.YAMLError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{path} is no chain of commands ({' '.join(str(error).split())}); see config/chains"
        ) from error
    if left:
        raise InputError(f"{path} has the unknown keys {', '.join(left)}; steps have about, run, makes, processes")
    for name in needed:
        if not values.get(name):
            raise InputError(f"the chain {path} needs {name}; give it")
    for name in values:
        if name not in needed and name not in optional:
            raise InputError(f"the chain {path} knows no {name}; it has {', '.join([*needed, *optional])}")
    lacking = {name for name in optional if not values.get(name)}
    kept = []
    for command in commands:
        if lacking & set(_NAME.findall(command.line)):
            lacking.add(command.name)
        else:
            kept.append(command)
    return kept


def command_steps(
    commands: Sequence[Command], root: str | os.PathLike, values: Mapping[str, str | os.PathLike]
) -> list[Step]:
    """The steps of a chain, for `steps.run_steps`.

    Args:
        commands: In the order in which they run; a line names only steps before it, and its own.
        root: Folder of all steps' folders.
        values: What else the lines name.

    Raises:
        InputError: A line names what there is not or no verb, two steps have one name, or a file or folder that it
            names cannot be read.

    """
    made: dict[str, Step] = {}
    known: dict[str, str] = {}
    for command in commands:
        if command.name in made or command.name in values:
            raise InputError(f"the chain has two things called {command.name!r}; give every step a name of its own")
        named = dict.fromkeys(_NAME.findall(command.line))
        for name in named:
            if name != command.name and name not in made and name not in values:
                there = ", ".join([*made, *values])
                raise InputError(f"step {command.name} names {{{name}}}, which is not before it; there are: {there}")
        given = {name: str(values[name]) for name in named if name in values}
        verb, *words = [_fill(word, given) for word in shlex.split(command.line)]
        if verb not in VERBS:
            raise InputError(f"step {command.name} runs {verb!r}, which is no verb; hassod_ros --help lists them")
        needs = tuple(made[name] for name in named if name in made)
        contents = [_content(word, known) if os.sep in word or word in given.values() else word for word in words]
        made[command.name] = Step(
            name=command.name,
            about=command.about,
            root=Path(root),
            settings={"run": [verb, *contents], "processes": command.processes},
            needs=needs,
            outputs=command.outputs,
            run=partial(_run, command, (verb, *words), {step.name: str(step.folder) for step in needs}),
            packages=PACKAGES.get(verb, ()),
        )
    return list(made.values())


def command(verb: str, *words: object, accept: Sequence[int] = (0,), processes: int = 1) -> int:
    """Do what `hassod_ros VERB WORDS...` does; returns its status.

    Args:
        verb: One of `cli.VERBS`.
        words: Options.
        accept: Statuses that are no failure.
        processes: More than one: by torchrun, for verbs that train.

    Raises:
        InputError: It ended with another status.
        KeyboardInterrupt: It was stopped.

    """
    texts = [str(word) for word in words]
    if processes > 1:
        status = _torchrun(VERBS[verb].module, texts, processes)
    else:
        status = int(import_module(VERBS[verb].module).main(texts) or 0)
    if "ray" in sys.modules:  # its processes hold memory that the next command needs
        sys.modules["ray"].shutdown()
    if status in STOPPED:
        raise KeyboardInterrupt
    if status not in accept:
        raise InputError(f"{verb} ended with status {status}, see above; mend that and give the same command again")
    return status


def try_words(verb: str, words: Sequence[str]) -> argparse.Namespace:
    """What a command reads from these words, without doing anything.

    Raises:
        InputError: It does not.

    """
    parser = import_module(VERBS[verb].module).build_parser()

    def refuse(message: str) -> NoReturn:
        raise InputError(f"{verb}: {message}; see {verb} --help")

    parser.error = refuse
    found: argparse.Namespace = parser.parse_args(list(words))
    return found


def _torchrun(module: str, words: Sequence[str], processes: int) -> int:
    launcher = ["torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "-m", module]
    # Their processes get their share of the cores as threads, unless OMP_NUM_THREADS says otherwise.
    threads = str(max(1, (os.cpu_count() or 1) // processes))
    process = children.start([sys.executable, "-m", *launcher, *words], env={"OMP_NUM_THREADS": threads, **os.environ})
    try:
        return int(process.wait())
    except BaseException:  # such as Ctrl-C: the command goes with its chain
        try:
            process.wait(timeout=60)  # a terminal's Ctrl-C has reached it too, and it keeps what it has
        except subprocess.TimeoutExpired:
            process.terminate()
            process.wait()
        raise


def _run(one: Command, words: Sequence[str], places: Mapping[str, str], folder: Path) -> None:
    make_folder(folder)
    verb, *rest = [_fill(word, {**places, one.name: str(folder)}) for word in words]
    command(verb, *rest, processes=one.processes)


def _fill(word: str, values: Mapping[str, str]) -> str:
    return _NAME.sub(lambda found: values.get(found[1], found[0]), word)


def _content(word: str, known: dict[str, str]) -> Any:
    """A word, or what the file or folder of that path holds."""
    if not os.path.exists(word):
        return word
    if word not in known:
        known[word] = fingerprint(word)
    return known[word]
