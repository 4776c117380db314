"""What the entry points of all nodes share."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException, ShutdownException, TimeoutException
from rclpy.lifecycle import LifecycleNode, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.task import Task

from hassod_ros.errors import InputError
from hassod_ros.nodes.overrides import useless_files
from hassod_ros.nodes.shared_memory import remove_orphans

WAKE_UP = 0.5  # s between two looks at whether the node should end


class NodeExecutor(Executor):
    """Runs a node's callbacks in the thread that spins, and those of callback groups of their own in another.

    rclpy's MultiThreadedExecutor hands every message to a thread and looks for work until that thread has begun, which
    takes a whole core at 30 large images a second (`benchmarks/node.py`).
    """

    def __init__(self, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._threads = ThreadPoolExecutor(thread_name_prefix="callback")
        self._beside: list[Task[None]] = []  # handed to the threads

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback, or have it run; waits for it at most `timeout_sec`. Raises what a callback raised."""
        try:
            task, entity, node = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            pass
        else:
            group = getattr(entity, "callback_group", None)
            if group is None or node is None or group is node.default_callback_group:
                task()
                if task.done():
                    task.result()
            elif task not in self._beside:  # else its thread has not begun yet
                self._beside.append(task)
                self._threads.submit(task)
        done = [task for task in self._beside if task.done()]
        self._beside = [task for task in self._beside if task not in done]
        for task in done:
            task.result()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Wait for the callbacks that are running, as rclpy's own executors do."""
        ended = super().shutdown(timeout_sec)
        self._threads.shutdown(wait=False)
        return ended


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
    executor = NodeExecutor()
    try:
        node = make_node()
        for sentence in useless_files(sys.argv if arguments is None else arguments, node.get_fully_qualified_name()):
            node.get_logger().warning(sentence)
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
