"""The bond by which nav2's lifecycle manager notices that a node died; without the package bondpy there is none."""

from __future__ import annotations

from typing import Any

from rclpy.node import Node

try:
    from bondpy.bondpy import Bond
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

TOPIC = "bond"
PERIOD = 0.1  # s between two signs of life, as nav2's own nodes give them
TIMEOUT = 4.0  # s without a sign from the manager


class ManagerBond:
    """The node's end of a bond, which the manager may or may not take up.

    Args:
        node: Is told apart from others by its name.

    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._bond: Any = None

    def form(self) -> None:
        """Begin to give signs of life."""
        if INSTALLED and self._bond is None:
            bond = Bond(self._node, TOPIC, self._node.get_name())
            bond.heartbeat_period, bond.heartbeat_timeout = PERIOD, TIMEOUT
            bond.start()
            self._bond = bond

    def end(self) -> None:
        """Say that the end is wanted."""
        if self._bond is not None:
            self._bond.break_bond()
            self._bond.shutdown()
            self._bond = None
