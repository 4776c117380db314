"""Values for parameters that never arrive: ROS passes over misspelt names and other nodes' sections in silence."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from typing import Any

from rclpy.node import Node
from rclpy.parameter import Parameter

from hassod_ros.errors import InputError
from hassod_ros.params_file import require_section

_LATER = ("qos_overrides.",)  # declared with their publisher or subscription


def take_override(node: Node, name: str) -> Any:
    """The value that was given for a parameter which the node will not have, or None; it counts as used then."""
    given = _overrides(node).pop(name, None)
    return None if given is None else given.value


def _overrides(node: Node) -> dict[str, Parameter]:
    return getattr(node, "_parameter_overrides", {})  # rclpy has no other way to see them


def unknown_overrides(node: Node) -> list[str]:
    """A sentence for each value that was given for a parameter which the node, now complete, does not have."""
    names = sorted(parameter.name for parameter in node.get_parameters_by_prefix("").values())
    sentences = []
    for name in _overrides(node):
        if node.has_parameter(name) or name.startswith(_LATER):
            continue
        nearest = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        advice = f"did you mean {nearest[0]}?" if nearest else "see docs/ros_api.md"
        sentences.append(f"there is no parameter {name}, so its value has no effect; {advice}")
    return sentences


def useless_files(arguments: Sequence[str], node: str) -> list[str]:
    """A sentence for each parameter file among the ROS arguments that holds nothing for a node.

    Args:
        arguments: Of the process.
        node: Full name of the node.

    """
    sentences = []
    for flag, path in itertools.pairwise(arguments):
        if flag == "--params-file":
            try:
                require_section(path, node)
            except InputError as error:
                sentences.append(str(error))
    return sentences
