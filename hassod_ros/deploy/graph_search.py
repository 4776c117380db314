"""Which node of an ONNX graph takes a value."""

from __future__ import annotations

import onnx


def only_user(graph: onnx.GraphProto, value: str) -> onnx.NodeProto | None:
    """The node that takes `value`, None where there is none or more than one."""
    users = [node for node in graph.node if value in node.input]
    return users[0] if len(users) == 1 else None
