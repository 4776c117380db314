import mmap
import time

import pytest

pytest.importorskip("diagnostic_msgs.msg", reason="ROS 2 is missing: source scripts/env.sh")

from diagnostic_msgs.msg import DiagnosticStatus

from hassod_ros.nodes.health import LIMITS, PARAMETERS, judge, resident_memory
from hassod_ros.runtime.stream import FrameStatistics

OPTIONS = {parameter.name: parameter.default for parameter in PARAMETERS}


@pytest.mark.parametrize(
    ("figures", "changes", "level", "message"),
    [
        ({}, {}, DiagnosticStatus.OK, ""),
        ({"silence": 1.9, "latency": 0.9, "lost": 0.01, "rate": 0.0, "memory": 9e9}, {}, DiagnosticStatus.OK, ""),
        ({"silence": 2.1}, {}, DiagnosticStatus.WARN, "no new image for 2.1 s (limit 2 s)"),
        ({"silence": 12.0}, {}, DiagnosticStatus.ERROR, "no new image for 12.0 s (limit 10 s)"),
        ({"silence": 12.0}, {"silence.error": 0.0}, DiagnosticStatus.WARN, "no new image for 12.0 s (limit 2 s)"),
        ({"rate": 4.0}, {"rate.warn": 5.0}, DiagnosticStatus.WARN, "only 4.0 images per second (limit 5 Hz)"),
        ({"rate": 5.0}, {"rate.warn": 5.0}, DiagnosticStatus.OK, ""),
        (
            {"lost": 0.6, "latency": 1.5},
            {},
            DiagnosticStatus.ERROR,
            "results take 1.50 s (limit 1 s); 60% of the images are lost (limit 0.5)",
        ),
    ],
)
def test_the_worst_level_and_every_exceeded_limit(figures, changes, level, message):
    options = OPTIONS | {f"diagnostics.{name}": value for name, value in changes.items()}
    assert judge(figures, options) == (level, message)


def test_every_limit_has_two_parameters():
    assert sorted(OPTIONS) == sorted(
        f"diagnostics.{limit.name}.{word}" for limit in LIMITS for word in ("warn", "error")
    )


def test_memory_grows_with_what_is_held():
    before = resident_memory()
    with mmap.mmap(-1, 50_000_000) as held:  # new pages for certain: an allocator may have kept freed ones
        for page in range(0, len(held), mmap.PAGESIZE):
            held[page] = 1
        deadline = time.monotonic() + 10  # some kernels count a moment later
        while resident_memory() - before <= 40 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert 40 < resident_memory() - before < 200


def test_a_period_counts_since_the_last_one():
    statistics = FrameStatistics()
    for _ in range(10):
        statistics.receive()
    for cause in ("malformed", "failed", "superseded", "too_old"):
        statistics.drop(cause)
    statistics.process({"total": 0.1})
    period = statistics.period()
    assert (period.received, period.processed, period.lost, period.unwatched) == (10, 1, 3, 0)
    assert period.judged() == {"lost": 0.3, "rate": period.rate_out}
    assert period.rate_in == pytest.approx(10 * period.rate_out)
    assert statistics.period().judged() == {}
    statistics.receive()
    statistics.drop("unwatched")
    assert statistics.period().judged() == {"lost": 0.0}
