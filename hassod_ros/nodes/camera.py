"""One camera of the perception node."""

from __future__ import annotations

from hassod_ros.errors import InputError
from hassod_ros.nodes.inputs import ImageInput
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
        outputs: As given.
        region: As given.
        pixel_range: As given.
        input: Its images, while the node is active.
        statistics: Counts and times since the node was configured.
        clock: Judges its stamps.
        rate: Limits how many of its images are segmented.
        drawing_rate: Limits how many of its images are drawn.
        tracker: Gives the instances their ids.
        failure: Why the last image could not be segmented, or "".
        malformed: What was wrong with the last image that could not be read, or "".

    """

    def __init__(self, name: str, outputs: Outputs[Result], region: Region, pixel_range: PixelRange) -> None:
        self.name = name
        self.region = region
        self.pixel_range = pixel_range
        self.outputs = outputs
        self.input: ImageInput | None = None
        self.statistics = FrameStatistics()
        self.clock = CameraClock()
        self.rate = RateLimit()
        self.drawing_rate = RateLimit()
        self.tracker = Tracker()
        self.failure = ""
        self.malformed = ""

    @property
    def title(self) -> str:
        """The camera in words."""
        return f"camera {self.name}" if self.name else "the camera"

    def warnings(self) -> list[str]:
        """What is wrong with what comes from it."""
        found = [self.input.advice] if self.input is not None and self.input.advice else []
        if not self.clock.stamps:
            found.append(f"{self.title} does not stamp its images; when they come serves instead")
        return found


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
