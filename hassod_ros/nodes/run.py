"""What the entry points of all nodes share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import rclpy
from rclpy.executors import ExternalShutdownException, MultiThreadedExecutor
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from hassod_ros.errors import InputError
from hassod_ros.nodes.shared_memory import remove_orphans

WAKE_UP = 0.5  # s between two looks at whether the node should end


def run(make_node: Callable[[], Node], arguments: list[str] | None = None) -> int:
    """Spin a node until SIGINT or SIGTERM.

    A lifecycle node whose parameter `autostart` is true is configured and activated first.

    Args:
        make_node: Called once rclpy is initialised.
        arguments: ROS arguments. Default: the process's.

    Returns:
        Exit status: 0, or 2 where an InputError says in one sentence (on stderr) what is wrong with the parameters.

    """
    remove_orphans()  # a node that is killed and started again for weeks would fill the shared memory
    starting = True

    def interrupt(*_: object) -> None:
        # rclpy's own handler, which runs first, ends the spinning. A KeyboardInterrupt is only for what comes before:
        # in the middle of cleaning up it would leave threads behind.
        if starting:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)  # rclpy calls it after its own
    rclpy.init(args=arguments)
    executor = MultiThreadedExecutor(num_threads=2)
    try:
        node = make_node()
        try:
            if isinstance(node, LifecycleNode) and node.get_parameter("autostart").value:
                configured = node.trigger_configure()
                # Otherwise it says why in its diagnostics, and can be configured later.
                if configured == TransitionCallbackReturn.SUCCESS:
                    node.trigger_activate()
            executor.add_node(node)
            starting = False
            # Not spin(): it waits for ever where the signal's wake-up is noticed before the context is down.
            while rclpy.ok():
                executor.spin_once(timeout_sec=WAKE_UP)
        finally:
            starting = False
            executor.shutdown(timeout_sec=5.0)
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
        rclpy.try_shutdown()
    return 0


def reliability(name: str) -> ReliabilityPolicy:
    """The QoS policy of a parameter's value."""
    return ReliabilityPolicy.RELIABLE if name == "reliable" else ReliabilityPolicy.BEST_EFFORT
