"""Values for parameters that never arrive: ROS passes over misspelt names and other nodes' sections in silence."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence

from rclpy.node import Node

from hassod_ros.errors import InputError
from hassod_ros.params_file import require_section

_LATER = ("qos_overrides.",)  # declared with their publisher or subscription


def unknown_overrides(node: Node, known: Sequence[str]) -> list[str]:
    """A sentence for each value that was given for a parameter which the node does not have.

    Args:
        node: With all its parameters declared.
        known: Names that the node reads without having them declared now.

    """
    given = getattr(node, "_parameter_overrides", {})  # rclpy has no other way to see them
    sentences = []
    for name in given:
        if node.has_parameter(name) or name in known or name.startswith(_LATER):
            continue
        names = sorted({*(parameter.name for parameter in node.get_parameters_by_prefix("").values()), *known})
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
