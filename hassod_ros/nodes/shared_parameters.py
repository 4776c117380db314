"""Parameters that all lifecycle nodes have."""

from __future__ import annotations

from hassod_ros.nodes.parameters import Parameter

INPUT_RELIABILITY = Parameter(
    name="input_reliability",
    default="best_effort",
    choices=("best_effort", "reliable"),
    description="QoS of what is subscribed to, where `qos_overrides` does not say otherwise.",
    read_only=True,
)
OUTPUT_RELIABILITY = Parameter(
    name="output_reliability",
    default="reliable",
    choices=("best_effort", "reliable"),
    description="QoS of what is published per image, where `qos_overrides` does not say otherwise; reliable also "
    "serves best-effort subscribers.",
    read_only=True,
)
DIAGNOSTICS_PERIOD = Parameter(
    name="diagnostics_period",
    default=1.0,
    low=0.05,
    high=60.0,
    unit="s",
    description="Time between two diagnostics.",
    read_only=True,
)
