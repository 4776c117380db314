"""What the entry points of all nodes share."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

import rclpy
from rclpy.clock import Clock, ClockType
from rclpy.executors import ExternalShutdownException
from rclpy.lifecycle import LifecycleNodeMixin, TransitionCallbackReturn
from rclpy.logging import LoggingSeverity
from rclpy.node import Node
from rclpy.qos import ReliabilityPolicy

from hassod_ros.commands import WRONG_INPUT
from hassod_ros.errors import InputError
from hassod_ros.nodes.arguments import help_text, reason, refuse_stray, wants_help
from hassod_ros.nodes.executor import NodeExecutor
from hassod_ros.nodes.overrides import unknown_overrides, useless_files
from hassod_ros.nodes.parameters import Parameter
from hassod_ros.nodes.process import prepare_process
from hassod_ros.nodes.shared_memory import remove_orphans

WAKE_UP = 0.5  # s between two looks at whether the node should end
LEAVE_LIMIT = 1.0  # s that it may take to end
TWIN_PERIOD = 30.0  # s between two looks for a node of the same name; one that was killed is seen for 20 s


def run(
    make_node: Callable[[], Node],
    arguments: list[str] | None = None,
    *,
    about: str | None = None,
    table: Sequence[Parameter] = (),
) -> int:
    """Spin a node until SIGINT or SIGTERM.

    A lifecycle node whose parameter `autostart` is true is configured and activated first.

    Args:
        make_node: Called once rclpy is initialised.
        arguments: The program and its ROS arguments. Default: the process's.
        about: What the node is for, as --help says it.
        table: Its parameters, for --help.

    Returns:
        Exit status: 0, or 2 where one sentence (on stderr) says what is wrong with the arguments or parameters.

    """
    program, *words = sys.argv if arguments is None else arguments
    if wants_help(words):
        print(help_text(program, about or "", table))
        return 0
    prepare_process()
    remove_orphans()  # a node that is killed and started again for weeks would fill the shared memory
    starting = True

    def interrupt(*_: object) -> None:
        # rclpy's own handler, which runs first, ends the spinning. A KeyboardInterrupt is only for what comes before:
        # in the middle of cleaning up it would leave threads behind.
        if starting:
            raise KeyboardInterrupt

    signal.signal(signal.SIGINT, interrupt)  # rclpy calls it after its own
    try:
        refuse_stray(words)
        _begin(words)
        executor = NodeExecutor()
        node = make_node()
        for sentence in (*unknown_overrides(node), *useless_files(words, node.get_fully_qualified_name())):
            node.get_logger().warning(sentence)
        starting = False
        bring_up = None
        try:
            executor.add_node(node)
            _look_for_twins(node)
            if isinstance(node, LifecycleNodeMixin) and node.get_parameter("autostart").value:
                bring_up = threading.Thread(target=_bring_up, args=(node,), name="autostart", daemon=True)
                bring_up.start()
            # Not spin(): it waits for ever where the signal's wake-up is noticed before the context is down.
            while rclpy.ok():
                executor.spin_once(timeout_sec=WAKE_UP)
        finally:
            # Whatever is still at work is waited for: an interpreter that ends around a thread which is deep in ONNX
            # Runtime aborts. How long is for _end_within to say.
            _end_within(LEAVE_LIMIT, status=1 if rclpy.ok() else 0)
            if bring_up is not None and bring_up.is_alive():
                node.get_logger().set_level(LoggingSeverity.FATAL)  # what fails now, fails as the node ends
                bring_up.join()
            executor.shutdown()
            node.destroy_node()
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    except InputError as error:
        print(f"{Path(program).stem}: {error}", file=sys.stderr)
        return WRONG_INPUT
    except Exception:
        # rclpy's handler ends the context under the executor's feet, which then cannot wait or publish any more:
        # that is how Ctrl-C looks from a busy node, on every distribution with an error type of its own.
        if rclpy.ok():
            raise
    finally:
        starting = False
        rclpy.try_shutdown()
    return 0


def _begin(words: list[str]) -> None:
    try:
        rclpy.init(args=words)
    except Exception as error:  # each distribution has types of its own
        raise InputError(reason(error, words)) from error


def _bring_up(node: LifecycleNodeMixin) -> None:
    """Configure and activate; where that fails the node says why in its diagnostics, and can be configured later."""
    try:
        if node.trigger_configure() == TransitionCallbackReturn.SUCCESS:
            node.trigger_activate()
    except Exception:
        if rclpy.ok():  # else the node was ended meanwhile
            raise


def _look_for_twins(node: Node) -> None:
    """Warn where another node of the same name runs, which ROS allows: both publish, and either answers a service."""
    own = (node.get_name(), node.get_namespace())

    def look() -> None:
        if node.get_node_names_and_namespaces().count(own) > 1:
            timer.cancel()
            node.get_logger().warning(
                f"another node {node.get_fully_qualified_name()} runs: their results mix; end one of them, or give it "
                "another name or namespace (-r __node:=NAME, -r __ns:=/NAME)"
            )

    timer = node.create_timer(TWIN_PERIOD, look, clock=Clock(clock_type=ClockType.STEADY_TIME))


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
