"""Parameter files of ROS 2: whether one holds anything for a node, which ROS itself never says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from hassod_ros.errors import InputError

_PARAMETERS = "ros__parameters"
_WILDCARDS = {"**": r"(?:/[^/]+)*", "*": r"/[^/]+"}


def sections(path: str | os.PathLike) -> list[str]:
    """The nodes that a parameter file names, such as `/robot/camera` or `/**/perception_node`.

    Raises:
        InputError: No such file, not YAML, or nothing in it has `ros__parameters`.

    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"the parameter file {path} cannot be read ({error.strerror}); check the path") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"the parameter file {path} is not YAML: {' '.join(str(error).split())}") from error
    found = list(_walk(content, ""))
    if not found:
        raise InputError(f"the parameter file {path} holds no parameters; write `/**/NODE: {_PARAMETERS}: ...`")
    return found


def _walk(content: Any, name: str) -> Iterator[str]:
    if not isinstance(content, Mapping):
        return
    for key, below in content.items():
        if key == _PARAMETERS:
            yield name or "/"
        else:
            yield from _walk(below, f"{name}/{str(key).strip('/')}")


def matches(section: str, node: str) -> bool:
    """Whether a section of a parameter file is meant for a node.

    Example:
        >>> matches("/**/camera", "/robot/camera"), matches("/camera", "/robot/camera")
        (True, False)

    """
    parts = section.strip("/").split("/")
    pattern = "".join(_WILDCARDS.get(part, f"/{re.escape(part)}") for part in parts)
    return re.fullmatch(pattern, node) is not None


def require_section(path: str | os.PathLike, node: str) -> None:
    """Refuse a parameter file that holds nothing for `node` (its full name, such as `/robot/perception_node`).

    Raises:
        InputError: See `sections`, or none of its sections is for the node.

    """
    found = sections(path)
    if not any(matches(section, node) for section in found):
        raise InputError(
            f"the parameter file {path} holds nothing for {node}, only for {', '.join(found)}; "
            f"write /**/{node.rpartition('/')[2]}: in the place of the node's name"
        )
