"""What the entry points of all nodes share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from hassod_ros.errors import InputError
from hassod_ros.nodes.executor import NodeExecutor
from hassod_ros.nodes.overrides import unknown_overrides, useless_files
from hassod_ros.nodes.process import prepare_process
from hassod_ros.nodes.shared_memory import remove_orphans

WAKE_UP = 0.5  # s between two looks at whether the node should end
LEAVE_LIMIT = 1.0  # s that it may take to end


def run(make_node: Callable[[], Node], arguments: list[str] | None = None) -> int:
    """Spin a node until SIGINT or SIGTERM.

    A lifecycle node whose parameter `autostart` is true is configured and activated first.

    Args:
        make_node: Called once rclpy is initialised.
        arguments: ROS arguments. Default: the process's.

    Returns:
        Exit status: 0, or 2 where an InputError says in one sentence (on stderr) what is wrong with the parameters.

    """
    prepare_process()
    remove_orphans()  # a node that is killed and started again for weeks would fill the shared memory
    starting = True

    def interrupt(*_: object) -> None:
        # rclpy's own handler, which runs first, ends the spinning. A KeyboardInterrupt is only for what comes before:
        # in the middle of cleaning up it would leave threads behind.
        if starting:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)  # rclpy calls it after its own
    rclpy.init(args=arguments)
    executor = NodeExecutor()
    try:
        node = make_node()
        given = sys.argv if arguments is None else arguments
        for sentence in (*unknown_overrides(node), *useless_files(given, node.get_fully_qualified_name())):
            node.get_logger().warning(sentence)
        starting = False
        try:
            executor.add_node(node)
            if isinstance(node, LifecycleNodeMixin) and node.get_parameter("autostart").value:
                threading.Thread(target=_bring_up, args=(node,), name="autostart", daemon=True).start()
            # Not spin(): it waits for ever where the signal's wake-up is noticed before the context is down.
            while rclpy.ok():
                executor.spin_once(timeout_sec=WAKE_UP)
        finally:
            _end_within(LEAVE_LIMIT, status=1 if rclpy.ok() else 0)
            executor.shutdown(timeout_sec=LEAVE_LIMIT)
            node.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    except Exception:
        # rclpy's handler ends the context under the executor's feet, which then cannot wait or publish any more:
        # that is how Ctrl-C looks from a busy node, on every distribution with an error type of its own.
        if rclpy.ok():
            raise
    finally:
        starting = False
        rclpy.try_shutdown()
    return 0


def _bring_up(node: LifecycleNodeMixin) -> None:
    """Configure and activate; where that fails the node says why in its diagnostics, and can be configured later."""
    try:
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
    except Exception:
        if rclpy.ok():  # else the node was ended meanwhile
            raise


def _end_within(seconds: float, status: int) -> None:
    """End the process after so long, whatever a model or a callback still does: it may be deep in foreign code."""

    def end() -> None:
        print("a thread is still at work; ended without it", file=sys.stderr, flush=True)
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()


def reliability(name: str) -> ReliabilityPolicy:
    """The QoS policy of a parameter's value."""
    return ReliabilityPolicy.RELIABLE if name == "reliable" else ReliabilityPolicy.BEST_EFFORT
