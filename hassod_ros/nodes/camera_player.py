"""camera_player: images, a video, or colour with depth, published as a camera would."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import cv2
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from hassod_ros.errors import InputError
from hassod_ros.footage.frame import Frame
from hassod_ros.footage.kinds import is_bag
from hassod_ros.footage.rgbd import Shot, is_rgbd, open_rgbd
from hassod_ros.footage.sources import open_source
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.depth_player import DepthPublisher, recorded_info
from hassod_ros.nodes.diagnostics import Notices
from hassod_ros.nodes.parameters import Parameter, declare, values
from hassod_ros.nodes.run import reliability, run

GRACE = 0.5  # s that a new subscriber needs to be connected

PARAMETERS = (
    Parameter(
        name="source",
        default="",
        description="Folder of images, text file with one path a line, image, video, recording, or colour with depth: "
        "a folder with rgb/ and depth/, or an index of frames.",
        read_only=True,
    ),
    Parameter(
        name="rate", default=30.0, low=0.01, high=1000.0, unit="Hz", description="Images per second.", read_only=True
    ),
    Parameter(
        name="loop",
        default=True,
        description="Start again at the end; otherwise the node ends there.",
        read_only=True,
    ),
    Parameter(
        name="count",
        default=0,
        low=0,
        high=2**31 - 1,
        description="End the node after so many images, 0 = never.",
        read_only=True,
    ),
    Parameter(
        name="wait",
        default=False,
        description="Hold the first image back until somebody subscribes to it.",
        read_only=True,
    ),
    Parameter(
        name="width",
        default=0,
        low=0,
        high=16384,
        unit="px",
        description="Width of the images, 0 = as they are.",
        read_only=True,
    ),
    Parameter(
        name="height",
        default=0,
        low=0,
        high=16384,
        unit="px",
        description="Height of the images, 0 = as they are.",
        read_only=True,
    ),
    Parameter(
        name="pan_zoom",
        default=0.0,
        low=0.0,
        high=3600.0,
        unit="s",
        description="Move a window over each photograph for so long, 0 = show each photograph once.",
        read_only=True,
    ),
    Parameter(
        name="encoding",
        default="rgb8",
        choices=("rgb8", "bgr8", "mono8"),
        description="Encoding of the images.",
        read_only=True,
    ),
    Parameter(name="frame_id", default="camera", description="frame_id of the headers.", read_only=True),
    Parameter(
        name="field_of_view",
        default=60.0,
        low=1.0,
        high=179.0,
        unit="degrees",
        description="Horizontal angle that camera_info is made up from.",
        read_only=True,
    ),
    Parameter(
        name="reliability",
        default="best_effort",
        choices=("best_effort", "reliable"),
        description="QoS of image and camera_info.",
        read_only=True,
    ),
)


class CameraPlayer(Node):
    """Publishes `image` and `camera_info` at a fixed rate, and depth and transforms where the source has them.

    Args:
        node_options: Passed on to rclpy, such as `context`.

    Raises:
        InputError: A parameter is wrong, or the source holds no image that can be read.

    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("camera_player", **node_options)
        declare(self, PARAMETERS)
        self._options = values(self, PARAMETERS)
        self._options["source"] = os.path.expanduser(self._options["source"])
        if not self._options["source"]:
            raise InputError("the parameter source is empty; name a folder of images or a video")
        if (self._options["width"] == 0) != (self._options["height"] == 0):
            raise InputError("only one of width and height is given; give both or neither")
        self._sent = 0
        self._state = "playing"
        self._listened_since = 0.0
        self._has_depth = is_rgbd(self._options["source"]) or is_bag(self._options["source"])
        if self._has_depth and (self._options["height"] or self._options["pan_zoom"]):
            raise InputError("width, height and pan_zoom are for photographs and videos; depth would not fit any more")
        self._notices = Notices(self)  # a source that is played again and again says the same each time
        self._frames = self._open()
        self._next: Shot | None = next(self._frames)  # a source without images is noticed here
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=reliability(self._options["reliability"])
        )
        self._image = self.create_publisher(Image, "image", qos)
        self._camera_info = self.create_publisher(CameraInfo, "camera_info", qos)
        self._depth = DepthPublisher(self, qos, self._options["source"]) if self._has_depth else None
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        how = f"raw, {self._options['reliability'].replace('_', ' ')}, depth {qos.depth}"
        self.get_logger().info(f"images are published on {self._image.topic_name} ({how})")
        steady = Clock(clock_type=ClockType.STEADY_TIME)
        self._timer = self.create_timer(1 / self._options["rate"], self._play, clock=steady)
        self.create_timer(1.0, self._report, clock=steady)

    def _open(self) -> Iterator[Shot]:
        options = self._options
        if self._has_depth:
            return open_rgbd(options["source"], say=self._notices.warn)
        pictures = open_source(
            options["source"],
            size=(options["height"], options["width"]) if options["height"] else None,
            frames_per_photo=math.ceil(options["pan_zoom"] * options["rate"]),
            warn=self._notices.warn,
        )
        return (Shot(Frame(options["source"], 0, pixels)) for pixels in pictures)

    def _play(self) -> None:
        if self._next is None or self._sent == self._options["count"] > 0:
            self._finish()
            return
        if self._sent == 0 and self._options["wait"] and not self._listened():
            return
        shot = self._next
        pixels = shot.frame.pixels
        frame_id = shot.frame.frame_id or self._options["frame_id"]
        header = Header(stamp=self.get_clock().now().to_msg(), frame_id=frame_id)
        encoding = self._options["encoding"]
        if encoding != "rgb8":
            pixels = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR if encoding == "bgr8" else cv2.COLOR_RGB2GRAY)
        self._image.publish(array_to_image(pixels, encoding, header))
        ideal = pinhole(pixels.shape[1], pixels.shape[0], self._options["field_of_view"], header)
        info = ideal if shot.frame.info is None else recorded_info(shot.frame.info, header)
        self._camera_info.publish(info)
        if self._depth is not None:
            self._depth.publish(shot, info)
        self._sent += 1
        # The next frame is made ready now, so that it leaves on time.
        self._next = next(self._frames, None)
        if self._next is None and self._options["loop"]:
            self._frames = self._open()
            self._next = next(self._frames)

    def _listened(self) -> bool:
        """Whether somebody has subscribed long enough to be found by both sides of the connection."""
        if not self._image.get_subscription_count():
            return False
        self._listened_since = self._listened_since or time.monotonic()
        return time.monotonic() - self._listened_since >= GRACE

    def _finish(self) -> None:
        """Say how many images were sent, and end once everybody had time to hear it."""
        self._timer.cancel()
        self._state = "finished"
        self.get_logger().info(f"finished after {self._sent} images")
        self._report()
        self.create_timer(2.0, self.context.try_shutdown, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def _report(self) -> None:
        status = DiagnosticStatus(
            name=f"{self.get_fully_qualified_name()}: camera", message=self._state, hardware_id="hassod_ros"
        )
        status.values = [KeyValue(key="sent", value=str(self._sent))]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def pinhole(width: int, height: int, field_of_view: float, header: Header) -> CameraInfo:
    """camera_info of an ideal camera without distortion.

    Args:
        width: Of the image in pixels.
        height: Of the image in pixels.
        field_of_view: Horizontal, in degrees.
        header: Of the image.

    """
    focal = width / 2 / math.tan(math.radians(field_of_view) / 2)
    x, y = (width - 1) / 2, (height - 1) / 2
    return CameraInfo(
        header=header,
        width=width,
        height=height,
        distortion_model="plumb_bob",
        d=[0.0] * 5,
        k=[focal, 0.0, x, 0.0, focal, y, 0.0, 0.0, 1.0],
        r=[1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0],
        p=[focal, 0.0, x, 0.0, 0.0, focal, y, 0.0, 0.0, 0.0, 1.0, 0.0],
    )


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    return run(CameraPlayer, arguments, about=__doc__, table=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
