"""What the entry points of all nodes share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable

import rclpy
from rclpy.context import Context
from rclpy.executors import Executor, ExternalShutdownException, ShutdownException, TimeoutException
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy
from rclpy.task import Task

from hassod_ros.errors import InputError
from hassod_ros.nodes.overrides import unknown_overrides, useless_files
from hassod_ros.nodes.process import prepare_process
from hassod_ros.nodes.shared_memory import remove_orphans

WAKE_UP = 0.5  # s between two looks at whether the node should end
LEAVE_LIMIT = 1.0  # s that it may take to end


class NodeExecutor(Executor):
    """Runs a node's callbacks in the thread that spins, and those of callback groups of their own in another.

    rclpy's MultiThreadedExecutor hands every message to a thread and looks for work until that thread has begun, which
    takes a whole core at 30 large images a second (`benchmarks/node.py`).
    """

    def __init__(self, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._beside: list[Task[None]] = []  # in threads of their own

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
                # Not of a pool, whose threads the interpreter waits for when it ends.
                threading.Thread(target=task, name="callback", daemon=True).start()
        done = [task for task in self._beside if task.done()]
        self._beside = [task for task in self._beside if task not in done]
        for task in done:
            task.result()


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
