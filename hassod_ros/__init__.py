"""Self-supervised whole, part and subpart segmentation for robots."""

import os

__version__ = "0.1.0"

# What a robot sees and runs is its owner's: these libraries would tell their makers about models, sessions and machines
# unless this is set before they are imported. What the user has set stays.
for _name, _value in (
    ("ORT_DISABLE_TELEMETRY", "1"),  # ONNX Runtime, from 1.29 on Linux too
    ("RAY_USAGE_STATS_ENABLED", "0"),
    ("HF_HUB_DISABLE_TELEMETRY", "1"),
):
    os.environ.setdefault(_name, _value)
