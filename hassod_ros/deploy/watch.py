"""Is a node well after its model was exchanged? Judged from its diagnostics alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

SETTLE = 2  # reports after the exchange that are not judged: the first images wait for the first inference
BAD = 2  # reports in a row that make a failure
SLOWER = 2.0  # ratio of the latency to that before the exchange
RATE = 0.5  # ratio of the images per second
LEAST_LATENCY = 50.0  # ms; below it twice the latency harms nobody


class Report(NamedTuple):
    """What a node says of itself at one time, all its cameras together.

    Attributes:
        sha256: Of its model.
        error: What it calls an error; "" = none.
        rate: Images segmented per second.
        latency: Time from an image to its result, ms, 95th percentile; 0 = unknown.

    """

    sha256: str
    error: str
    rate: float
    latency: float


def merge(statuses: Sequence[tuple[bool, str, Mapping[str, str]]]) -> Report:
    """The report of a node with one status (is it an error, message, values) for each camera."""

    def number(values: Mapping[str, str], name: str) -> float:
        try:
            return float(values.get(name, "") or 0)
        except ValueError:
            return 0.0

    return Report(
        sha256=next((values["model_sha256"] for _, _, values in statuses if values.get("model_sha256")), ""),
        error="; ".join(message for is_error, message, _ in statuses if is_error),
        rate=sum(number(values, "rate_out_hz") for _, _, values in statuses),
        latency=max((number(values, "total.p95_ms") for _, _, values in statuses), default=0.0),
    )


@dataclass
class Watch:
    """Reports of one node since its model was exchanged.

    Args:
        wanted: SHA-256 of the new model.
        before: The last report with the old one.

    """

    wanted: str
    before: Report
    _count: int = 0
    _bad: list[str] = field(default_factory=list)

    def add(self, report: Report) -> str:
        """Take a report in; why the node has failed, or ""."""
        self._count += 1
        if report.sha256 and report.sha256 != self.wanted:
            problem = f"it runs another model ({report.sha256[:12]})"
        elif self._count <= SETTLE:
            return ""
        elif report.error and not self.before.error:
            problem = f"it reports an error: {report.error}"
        elif report.rate < RATE * self.before.rate:
            problem = f"it segments {report.rate:.1f} images per second instead of {self.before.rate:.1f}"
        elif self.before.latency and report.latency > max(SLOWER * self.before.latency, LEAST_LATENCY):
            problem = f"results take {report.latency:.0f} ms instead of {self.before.latency:.0f}"
        else:
            problem = ""
        self._bad = [*self._bad, problem] if problem else []
        return problem if len(self._bad) >= BAD else ""
