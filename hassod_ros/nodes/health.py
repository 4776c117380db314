"""Figures of a running node held against limits, each of them two parameters: from where to warn, and what is wrong."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus

from hassod_ros.nodes.parameters import Parameter
from hassod_ros.runtime.stream import LOST


class Limit(NamedTuple):
    """What a figure should not exceed.

    Attributes:
        name: Of the figure; the parameters are `diagnostics.NAME.warn` and `diagnostics.NAME.error`.
        warn: Default of the first.
        error: Default of the second.
        high: Greatest value of both.
        unit: Of the figure.
        meaning: The figure in words, for the reference.
        sentence: For people, with places for `value` and `limit`.
        least: True where the figure should not be lower instead.

    """

    name: str
    warn: float
    error: float
    high: float
    unit: str
    meaning: str
    sentence: str
    least: bool = False

    def exceeded(self, value: float, limit: float) -> bool:
        """Whether the value is on the wrong side; a limit of 0 is none."""
        return limit > 0 and (value < limit if self.least else value > limit)


LIMITS = (
    Limit("silence", 2.0, 10.0, 3600.0, "s", "Time since the last image came", "no new image for {value:.1f} s"),
    Limit(
        "no_result",
        3.0,
        10.0,
        3600.0,
        "s",
        "Time that an image waits while nothing comes back from the model",
        "no result for {value:.1f} s",
    ),
    Limit(
        "latency",
        1.0,
        5.0,
        3600.0,
        "s",
        "Time from an image's arrival to its result (`total`), 95th percentile",
        "results take {value:.2f} s",
    ),
    Limit(
        "lost",
        0.01,
        0.5,
        1.0,
        "",
        f"Share of the images of the last period that were dropped as {', '.join(LOST[:-1])} or {LOST[-1]}",
        "{value:.0%} of the images are lost",
    ),
    Limit(
        "rate",
        0.0,
        0.0,
        1000.0,
        "Hz",
        "Images segmented per second, where somebody subscribes to the results",
        "only {value:.1f} images per second",
        least=True,
    ),
    Limit("memory", 0.0, 0.0, 1e6, "MB", "Main memory of the process", "the process uses {value:.0f} MB"),
)

PARAMETERS = tuple(
    Parameter(
        name=f"diagnostics.{limit.name}.{word}",
        default=default,
        low=0.0,
        high=limit.high,
        unit=limit.unit,
        description=f"{limit.meaning}; {'less' if limit.least else 'more'} is {level}, 0 = no limit.",
    )
    for limit in LIMITS
    for word, level, default in (("warn", "WARN", limit.warn), ("error", "ERROR", limit.error))
)


def judge(figures: Mapping[str, float], options: Mapping[str, Any]) -> tuple[bytes, str]:
    """Level and message of a DiagnosticStatus: the worst level, and every limit that is exceeded.

    Args:
        figures: Value by name of the limit; what is missing is not judged.
        options: Values of `PARAMETERS` by name.

    """
    level, sentences = DiagnosticStatus.OK, []
    for limit in LIMITS:
        if limit.name not in figures:
            continue
        for word, badness in (("error", DiagnosticStatus.ERROR), ("warn", DiagnosticStatus.WARN)):
            threshold = options[f"diagnostics.{limit.name}.{word}"]
            if limit.exceeded(figures[limit.name], threshold):
                level = max(level, badness)
                sentence = limit.sentence.format(value=figures[limit.name])
                sentences.append(f"{sentence} (limit {threshold:g}{f' {limit.unit}' if limit.unit else ''})")
                break
    return level, "; ".join(sentences)


def resident_memory() -> float:
    """Main memory of this process in MB; 0 where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except OSError:
        return 0.0
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6
