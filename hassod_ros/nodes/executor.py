"""The executor of all nodes."""

from __future__ import annotations

import inspect
import threading
import time
from typing import Any

from rclpy.context import Context
from rclpy.executors import Executor, ShutdownException, TimeoutException
from rclpy.node import Node
from rclpy.subscription import Subscription
from rclpy.task import Task

from hassod_ros.nodes.receiver import Receiver

_EVENTS = 0.5  # s between two looks at what happened to the subscriptions themselves, such as a publisher of other QoS


class NodeExecutor(Executor):
    """Runs a node's callbacks one at a time, and those of callback groups of their own beside them.

    Messages come in a thread of their own (see `Receiver`), all else in the one that spins. rclpy's
    MultiThreadedExecutor hands every message to a thread and looks for work until that thread has begun, which takes a
    whole core at 30 large images a second (`benchmarks/node.py`).
    """

    def __init__(self, *, context: Context | None = None) -> None:
        super().__init__(context=context)
        self._beside: list[Task[None]] = []  # in threads of their own
        self._alone = threading.Lock()  # held by a callback of a default group
        self._raised: list[Exception] = []  # by callbacks of messages
        self._receiver: Receiver | None = None
        self._events_at = 0.0  # s, time.monotonic
        self._events_now = False

    def spin_once(self, timeout_sec: float | None = None) -> None:
        """Run one callback, or have it run; waits for it at most `timeout_sec`. Raises what a callback raised."""
        if self._receiver is None:
            self._receiver = Receiver(self.context, self._received, self._alone, self._on_error)
        # With Fast DDS whoever waits for an event of a subscription is woken by its messages as well.
        self._events_now = time.monotonic() >= self._events_at
        if self._events_now:
            self._events_at, timeout_sec = time.monotonic() + _EVENTS, 0.0
        try:
            task, entity, node = self.wait_for_ready_callbacks(timeout_sec=timeout_sec)
        except (ShutdownException, TimeoutException):
            pass
        else:
            group = getattr(entity, "callback_group", None)
            if group is None or node is None or group is node.default_callback_group:
                with self._alone:
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
        if self._raised:
            raise self._raised.pop()

    def can_execute(self, entity: Any) -> bool:
        """Called by rclpy: whether it shall wait for this."""
        received = self._received()
        if isinstance(entity, Subscription):
            return entity not in received and super().can_execute(entity)
        if not self._events_now and any(entity in each.event_handlers for each in received):
            return False
        return super().can_execute(entity)

    def wake(self) -> None:
        """Called by rclpy where there is something else to wait for."""
        super().wake()
        if (receiver := getattr(self, "_receiver", None)) is not None:
            receiver.wake()

    def shutdown(self, timeout_sec: float | None = None) -> bool:
        """Stop; see rclpy."""
        if self._receiver is not None:
            self._receiver.close()
        return super().shutdown(timeout_sec)

    def _received(self) -> list[Subscription[Any]]:
        return [each for node in self.get_nodes() for each in node.subscriptions if _received(each, node)]

    def _on_error(self, error: Exception) -> None:
        self._raised.append(error)
        super().wake()


def _received(subscription: Subscription[Any], node: Node) -> bool:
    """Whether its messages are simple to hand over: no group of its own, no coroutine, no more than the message."""
    kind = getattr(subscription, "_callback_type", None)
    return (
        subscription.callback_group is node.default_callback_group
        and (kind is None or kind is Subscription.CallbackType.MessageOnly)
        and not inspect.iscoroutinefunction(subscription.callback)
    )
