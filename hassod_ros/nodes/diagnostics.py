"""How a node says that it is well: statuses, a thread that reports them, and a log that does not repeat itself."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.node import Node

from hassod_ros.errors import InputError
from hassod_ros.nodes import health
from hassod_ros.runtime.stream import FrameStatistics

WARN_INTERVAL = 60.0  # s between two lines about the same thing
_MOST = 30  # lines in that time
_NUMBER = re.compile(r"\d+")


class Notices:
    """A node's log of what may happen with every image: one line a minute about each thing.

    Lines that differ in numbers only are about the same thing.

    Args:
        node: Whose log it is.

    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._said: dict[str, float] = {}
        self._lock = threading.Lock()

    def warn(self, sentence: str) -> None:
        """Log a warning."""
        if self._is_news(sentence):
            self._node.get_logger().warning(sentence)

    def fail(self, what: str, error: Exception) -> str:
        """Log an error; returns it as one sentence."""
        sentence = f"{what}: {error}"
        if self._is_news(sentence):
            details = "" if isinstance(error, InputError) else f" ({type(error).__name__})"
            self._node.get_logger().error(f"{sentence}{details}")
        return sentence

    def _is_news(self, sentence: str) -> bool:
        """Whether it was not said lately; what is damaged at random must not flood the log either."""
        now, thing = time.monotonic(), _NUMBER.sub("#", sentence)
        with self._lock:
            self._said = {each: said for each, said in self._said.items() if now - said < WARN_INTERVAL}
            if thing in self._said or len(self._said) >= _MOST:
                return False
            self._said[thing] = now
        return True


class Reporter:
    """Publishes `/diagnostics` until it is closed.

    A thread and not a timer: models load for minutes before there is an executor, and a paused simulation still has a
    health.

    Args:
        node: Whose they are.
        statuses: Called in the thread of the reporter.
        period: Time between two reports, s.

    """

    def __init__(self, node: Node, statuses: Callable[[], list[DiagnosticStatus]], period: float) -> None:
        self._node = node
        self._statuses = statuses
        self._period = period
        self._publisher = node.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="diagnostics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread."""
        self._closed.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._closed.wait(self._period):
                message = DiagnosticArray(status=self._statuses())
                message.header.stamp = self._node.get_clock().now().to_msg()
                self._publisher.publish(message)
        except Exception:
            if self._node.context.ok():  # else the context was shut down under this thread's feet
                raise


def frame_status(
    name: str,
    statistics: FrameStatistics,
    options: Mapping[str, Any],
    *,
    failure: str = "",
    idle: str = "",
    warnings: Sequence[str] = (),
    judged: Mapping[str, float],
    text: Mapping[str, str],
    figures: Mapping[str, float],
) -> DiagnosticStatus:
    """The status of what works on frames.

    Args:
        name: Of the status.
        statistics: Of the frames; a period of it ends here.
        options: Values of `health.PARAMETERS` by name, and perhaps others.
        failure: What is wrong, which is an error; "" = nothing.
        idle: Why there is nothing to judge; "" = the figures are held against their limits.
        warnings: What else is worth a warning.
        judged: Figures by the name of their limit, beside those that the statistics and the system tell.
        text: Values to be shown by name.
        figures: More of them.

    """
    period, percentiles, memory = statistics.period(), statistics.percentiles(), health.resident_memory()
    status = DiagnosticStatus(name=name, hardware_id="hassod_ros")
    if failure:
        status.level, status.message = DiagnosticStatus.ERROR, failure
    elif idle:
        status.level, status.message = DiagnosticStatus.OK, idle
    else:
        known = {"memory": memory, **period.judged()}
        if "total.p95_ms" in percentiles:
            known["latency"] = percentiles["total.p95_ms"] / 1e3
        status.level, sentences = health.judge(known | dict(judged), options)
        status.message = "; ".join(filter(None, (sentences, *warnings))) or "working"
        status.level = max(status.level, DiagnosticStatus.WARN) if warnings else status.level
    rates = {"rate_in_hz": period.rate_in, "rate_out_hz": period.rate_out}
    values = {**text, **{key: str(count) for key, count in statistics.counts().items()}}
    shown = {**rates, **figures, "memory_mb": memory, **percentiles}
    values |= {key: f"{value:.2f}" for key, value in shown.items()}
    status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
    return status
