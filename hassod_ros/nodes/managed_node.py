"""What the lifecycle nodes share: parameters from a table, transitions that own their resources, diagnostics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNodeMixin, LifecycleState, TransitionCallbackReturn
from rclpy.node import Node

from hassod_ros.nodes.bond import ManagerBond
from hassod_ros.nodes.diagnostics import Notices, Reporter
from hassod_ros.nodes.parameters import Parameter, declare, values


class ManagedNode(LifecycleNodeMixin, Node):
    """A lifecycle node; subclasses fill in `load`, `start`, `stop`, `release` and `statuses`.

    Transitions may take long, as loading a model does: they run beside the spinning thread (see `NodeExecutor`), which
    goes on receiving and answering, also about the state.

    Args:
        name: Of the node.
        parameters: Its table; it holds `autostart` and `diagnostics_period`.
        node_options: Passed on to rclpy, such as `context`.

    Attributes:
        notices: The log of what may happen with every image.
        failure: Why the last transition failed, or "".

    Raises:
        InputError: A parameter is wrong.

    """

    _reporter: Reporter | None = None

    def __init__(self, name: str, parameters: Sequence[Parameter], **node_options: Any) -> None:
        Node.__init__(self, name, **node_options)
        LifecycleNodeMixin.__init__(self, callback_group=ReentrantCallbackGroup())
        self._table = parameters
        self.notices = Notices(self)
        self.failure = ""
        declare(self, parameters)
        self._bond = ManagerBond(self)

    def report(self) -> None:
        """Begin to publish diagnostics; to be called at the end of the constructor."""
        self._reporter = Reporter(self, self.statuses, self.get_parameter("diagnostics_period").value)

    def options(self) -> dict[str, Any]:
        """Current values of the parameters by name."""
        return values(self, self._table)

    # What a node is made of

    def load(self, options: dict[str, Any]) -> None:
        """Get what is needed to work (configure); what was got already is given back by `release` on an error."""

    def start(self, options: dict[str, Any]) -> None:
        """Begin to work (activate); what was begun already is ended by `stop` on an error."""

    def stop(self) -> None:
        """End what `start` began, if anything (deactivate); raises where that takes too long."""

    def release(self) -> None:
        """Give back what `load` got, if anything (cleanup)."""

    def statuses(self) -> list[DiagnosticStatus]:
        """The diagnostics; called in a thread of its own, in every state."""
        return []

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by rclpy."""
        try:
            self.load(self.options())
        except Exception as error:
            self.release()
            self.failure = self.notices.fail("cannot configure", error)
            return TransitionCallbackReturn.FAILURE
        self.failure = ""
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by rclpy."""
        try:
            self.start(self.options())
        except Exception as error:
            self.stop()
            self.failure = self.notices.fail("cannot activate", error)
            return TransitionCallbackReturn.FAILURE
        self.failure = ""
        self._bond.form()
        return TransitionCallbackReturn.SUCCESS

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by rclpy. On an error everything is given back: the node is unconfigured then."""
        self._bond.end()
        return TransitionCallbackReturn.SUCCESS if self._end_work() else TransitionCallbackReturn.ERROR

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by rclpy."""
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by rclpy, in whatever state."""
        self._bond.end()
        self._end_work()
        self.release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Called by rclpy; back to unconfigured, from where the node can be configured again."""
        return self.on_shutdown(state)

    def _end_work(self) -> bool:
        """Deactivate; whether that went well."""
        try:
            self.stop()
        except Exception as error:
            self.failure = self.notices.fail("cannot deactivate", error)
            return False
        return True

    def destroy_node(self) -> None:
        """End the threads before what they use is gone."""
        if self._reporter is not None:  # else the constructor failed, and rclpy clears up
            self._reporter.close()
            self._bond.end()
            self._end_work()
            self.release()
        super().destroy_node()
