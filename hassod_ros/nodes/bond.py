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
        """Take the signs of life back; the manager notices that they stop, unless it has ended the bond itself."""
        bond, self._bond = self._bond, None
        if bond is None:
            return
        # Not `shutdown`: it destroys what the node still knows, and an executor that waits for it then fails.
        with bond.lock:
            bond.is_shutdown = True
            bond.condition.notify_all()
            for timer in (bond.connect_timer, bond.heartbeat_timer, bond.disconnect_timer):
                timer.cancel()
        self._node.destroy_subscription(bond.sub)
        self._node.destroy_publisher(bond.pub)
