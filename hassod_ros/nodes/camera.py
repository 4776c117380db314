"""One camera of the perception node."""

from __future__ import annotations

from typing import Any

from hassod_ros.errors import InputError
from hassod_ros.nodes.outputs import Outputs, Result
from hassod_ros.pixel_range import PixelRange
from hassod_ros.runtime.region import Region
from hassod_ros.runtime.stream import CameraClock, FrameStatistics, RateLimit
from hassod_ros.runtime.tracking import Tracker


class Camera:
    """What the node keeps for each camera.

    Args:
        name: "" for the only one.
        outputs: Its publishers.
        region: The part of its images that is looked at.
        pixel_range: Brings its images of 16 bits to 8.

    Attributes:
        name: As given.
        topics: Prefix of its topics.
        outputs: As given.
        region: As given.
        pixel_range: As given.
        subscription: Of the images, while the node is active.
        statistics: Counts and times since the node was configured.
        clock: Judges its stamps.
        rate: Limits how many of its images are segmented.
        drawing_rate: Limits how many of its images are drawn.
        tracker: Gives the instances their ids.
        failure: Why the last image could not be segmented, or "".
        malformed: What was wrong with the last image that could not be read, or "".
        heard: When the last image came or waiting for the first one began, s, time.perf_counter.

    """

    def __init__(self, name: str, outputs: Outputs[Result], region: Region, pixel_range: PixelRange) -> None:
        self.name = name
        self.region = region
        self.pixel_range = pixel_range
        self.topics = prefix(name)
        self.outputs = outputs
        self.subscription: Any = None
        self.statistics = FrameStatistics()
        self.clock = CameraClock()
        self.rate = RateLimit()
        self.drawing_rate = RateLimit()
        self.tracker = Tracker()
        self.failure = ""
        self.malformed = ""
        self.heard = 0.0


def prefix(name: str) -> str:
    """Of the topics of a camera: its name, where it has one."""
    return f"{name}/" if name else ""


def check_names(names: list[str]) -> list[str]:
    """The cameras' names, if they can be part of topic names.

    Raises:
        InputError: They cannot.

    """
    if len(set(names)) != len(names) or not names or ("" in names and len(names) > 1):
        raise InputError(f"the parameter cameras is {names}; give each camera a name of its own")
    for name in names:
        if name and not (name.isidentifier() and name.isascii()):
            raise InputError(f"camera {name!r} cannot be part of a topic; use letters, digits and underscores")
    return names
