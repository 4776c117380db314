"""Which nodes a rollout is for, and how it goes about it."""

from __future__ import annotations

import argparse
import shlex
import shutil
from dataclasses import dataclass
from pathlib import Path

from hassod_ros.commands import number
from hassod_ros.deploy.registry import NAME
from hassod_ros.errors import InputError


@dataclass(frozen=True)
class Target:
    """A node, and the host that `--copy` copies to ("" where it is not said)."""

    node: str
    host: str = ""

    @classmethod
    def parse(cls, text: str) -> Target:
        """HOST=NODE, or NODE."""
        host, _, node = text.rpartition("=")
        return cls("/" + node.strip("/"), host)

    def __str__(self) -> str:
        return self.node


@dataclass(frozen=True)
class Options:
    """How to go about it.

    Attributes:
        canary: Nodes that go first and are watched.
        watch: Time that they, and then all, are watched, s.
        timeout: Longest time for one node to load a model, s.
        copy: Command that copies `{file}` to a node's machine, with `{host}`; "" = nodes see the registry's folder.

    Raises:
        InputError: `copy` is no command, or its program is not there.

    """

    canary: int = 1
    watch: float = 60.0
    timeout: float = 600.0
    copy: str = ""

    def __post_init__(self) -> None:
        if not self.copy:
            return
        try:
            program = self.copy_words(Path("model.onnx"), Target("/node", "host"))[0]
        except (ValueError, KeyError, IndexError, AttributeError) as error:
            raise InputError(
                f"--copy {self.copy!r} is no command ({error}); it may hold {{file}}, {{host}} and {{node}}, such as "
                "'scp {file} {host}:/models/'"
            ) from error
        if not shutil.which(program):
            raise InputError(f"there is no program {program!r} to copy with; install it, or correct --copy")

    def copy_words(self, file: Path, target: Target) -> list[str]:
        """Words of the command that copies a file to a node's machine."""
        return [word.format(file=file, host=target.host, node=target.node) for word in shlex.split(self.copy)]


def add_options(parser: argparse.ArgumentParser) -> None:
    """What rollout and rollback have in common."""
    parser.add_argument("--registry", type=Path, required=True, metavar="FOLDER", help="folder of the registry")
    parser.add_argument("--name", default=NAME, help="of the line of models")
    parser.add_argument("--nodes", nargs="+", required=True, metavar="[HOST=]NODE", help="full names of the nodes")
    parser.add_argument(
        "--watch", type=number(0), default=Options.watch, metavar="S", help="time that nodes are watched, s"
    )
    parser.add_argument("--timeout", type=number(0), default=Options.timeout, metavar="S", help="longest loading, s")
    parser.add_argument(
        "--copy",
        default="",
        metavar="COMMAND",
        help="copies a model to a node's machine, such as 'scp {file} {host}:/models/' (default: nodes see the "
        "registry's folder)",
    )
    parser.add_argument("--alias", default="stable", help="name that stands for the version afterwards; '' for none")
