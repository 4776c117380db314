"""Takes the messages of subscriptions in a thread that waits for nothing else."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any

from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.guard_condition import GuardCondition
from rclpy.impl.implementation_singleton import rclpy_implementation
from rclpy.subscription import Subscription

_LOOK_AGAIN = 500_000_000  # ns between two looks at what there is to wait for, when nothing happens
_END_LIMIT = 1.0  # s that a callback may still take at the end


class Receiver:
    """A thread, from the construction on.

    rclpy's executors wait for every service, timer and event of a node anew for each message, in Python.

    Args:
        context: Of the nodes.
        subscriptions: Says what to wait for; asked again after each wait.
        alone: Held while a callback runs.
        failed: Gets what a callback raises; the thread goes on.

    """

    def __init__(
        self,
        context: Context,
        subscriptions: Callable[[], list[Subscription[Any]]],
        alone: threading.Lock,
        failed: Callable[[Exception], None],
    ) -> None:
        self._context, self._subscriptions, self._alone, self._failed = context, subscriptions, alone, failed
        self._guard = GuardCondition(callback=None, callback_group=None, context=context)
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="receive", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Have it look again at what there is to wait for."""
        if not self._closed:
            self._guard.trigger()

    def close(self) -> None:
        """End the thread; a callback that runs is finished first, if that does not take long."""
        self._closed = True
        self._guard.trigger()
        self._thread.join(_END_LIMIT)
        self._guard.destroy()

    def _run(self) -> None:
        while not self._closed and self._context.ok():
            with suppress(InvalidHandle):  # destroyed just now: look again
                self._receive(self._subscriptions())

    def _receive(self, subscriptions: list[Subscription[Any]]) -> None:
        """Run callbacks until there is something else to wait for."""
        context = self._context.handle
        if context is None:
            return
        with ExitStack() as held:  # what is destroyed meanwhile stays valid that long
            held.enter_context(context)
            held.enter_context(self._guard.handle)
            alive = [each for each in subscriptions if _enter(held, each)]
            wait_set = rclpy_implementation.WaitSet(len(alive), 1, 0, 0, 0, 0, context)
            while True:
                wait_set.clear_entities()  # a wait takes out what is not ready
                for each in alive:
                    wait_set.add_subscription(each.handle)
                wait_set.add_guard_condition(self._guard.handle)
                wait_set.wait(_LOOK_AGAIN)
                ready = wait_set.get_ready_entities("subscription")
                for each in alive:
                    if each.handle.pointer in ready:
                        with self._alone:
                            if self._closed or self._subscriptions() != subscriptions:
                                return
                            self._call(each)
                if self._closed or not self._context.ok() or self._subscriptions() != subscriptions:
                    return

    def _call(self, subscription: Subscription[Any]) -> None:
        callback: Any = subscription.callback
        try:
            taken = subscription.handle.take_message(subscription.msg_type, subscription.raw)
            if taken is not None:
                callback(taken[0])
        except Exception as error:
            if not self._closed and self._context.ok():
                self._failed(error)


def _enter(held: ExitStack, subscription: Subscription[Any]) -> bool:
    try:
        held.enter_context(subscription.handle)
    except InvalidHandle:  # destroyed just now
        return False
    return True
