"""What objects_3d_node receives: depth, colours and intrinsics by stamp, and how depth gets onto the image."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import CameraInfo, Image

from hassod_msgs.msg import InstanceArray
from hassod_ros.errors import InputError
from hassod_ros.geometry.depth import doubt
from hassod_ros.geometry.matching import StampRing
from hassod_ros.geometry.rays import Calibration, RayCache, Rays
from hassod_ros.geometry.registration import reproject, same_place
from hassod_ros.image_messages import image_to_array
from hassod_ros.nodes.depth_messages import calibration, depth_in_metres, nanoseconds
from hassod_ros.nodes.diagnostics import Notices
from hassod_ros.nodes.objects_instances import ReadArray
from hassod_ros.nodes.transform_listener import INSTALLED, TransformListener

_DEPTH_WAIT = 0.1  # s beyond max_skew for a depth image that is still under way
_MEMORY = 10.0  # s that depth images are kept: longer than a slow model takes
_MOST = 90  # images
_TRANSFORM_WAIT = 0.1  # s


class MissingError(InputError):
    """Nothing is wrong with what came, but something did not come."""


class Arrived(NamedTuple):
    """A serialised InstanceArray and when it came, s, time.perf_counter."""

    data: bytes
    received: float


class View(NamedTuple):
    """Depth on the pixels of an image.

    Attributes:
        depth: (H, W) float32 m, 0 = none.
        rays: Of the pixels.
        colors: (H, W, 3) uint8 and their order, where they were received.

    """

    depth: np.ndarray
    rays: Rays
    colors: tuple[np.ndarray, str] | None


class Source:
    """The images and intrinsics of one camera, undecoded."""

    def __init__(self, changed: threading.Condition) -> None:
        self._changed = changed
        self.images: StampRing[Image] = StampRing(_MEMORY, _MOST)
        self.info: CameraInfo | None = None

    def take(self, message: Image) -> None:
        """Keep an image."""
        with self._changed:
            self.images.put(nanoseconds(message.header.stamp), message)
            self._changed.notify_all()

    def take_info(self, message: CameraInfo) -> None:
        """Keep the newest intrinsics."""
        with self._changed:
            self.info = message
            self._changed.notify_all()


class Inputs:
    """Everything that came and may still be needed.

    Attributes:
        depth: The depth camera.
        image: The camera of the instances.
        subscriptions: To be destroyed by whoever made them.
        how: How the last depth got onto its image, for diagnostics.
        skew: Seconds between the last image and its depth.

    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self.depth, self.image = Source(self._changed), Source(self._changed)
        self.subscriptions: list[Any] = []
        self.how, self.skew = "", 0.0
        self._closed = False
        self._rays = RayCache()

    def close(self) -> None:
        """End all waiting."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def view(
        self,
        message: InstanceArray | ReadArray,
        options: Mapping[str, Any],
        transforms: TransformListener,
        notices: Notices,
    ) -> View:
        """The depth that belongs to instances, on their pixels.

        Raises:
            MissingError: There is no depth image or no camera_info.
            InputError: What there is cannot be used.

        """
        stamp, size = nanoseconds(message.header.stamp), (message.height, message.width)
        depth_message = self._find_depth(stamp, options["max_skew"])
        image_info = self._image_info(message, depth_message)
        camera = calibration(image_info, rectified=options["rectified"]).scaled(size)
        metres = depth_in_metres(depth_message, options["depth_scale"])
        if sentence := doubt(metres):
            notices.warn(sentence)
        rays = self._rays(camera)
        depth = self._onto(metres, depth_message, message, camera, rays, options, transforms)
        colors = None
        if (found := self.image.images.nearest(stamp, options["max_skew"])) is not None:
            pixels, order = image_to_array(found[1])
            colors = (pixels, order) if pixels.shape[:2] == size else None
        return View(depth, rays, colors)

    def _find_depth(self, stamp: int, skew: float) -> Image:
        """The depth image of an equal stamp, else the nearest; waits while a nearer one may come."""
        end = time.monotonic() + skew + _DEPTH_WAIT
        images = self.depth.images
        with self._changed:
            while True:
                found = images.nearest(stamp, skew)
                exact = found is not None and found[0] == stamp
                left = end - time.monotonic()
                if exact or images.passed(stamp) or left <= 0 or self._closed:
                    break
                self._changed.wait(left)
        if found is None:
            newest = f"{len(images)} came in the last {_MEMORY:g} s, none" if len(images) else "none came"
            raise MissingError(
                f"no depth image within max_skew ({skew:g} s) of the instances: {newest}; check `depth`, the clocks of "
                "both cameras, or raise max_skew"
            )
        self.skew = abs(found[0] - stamp) * 1e-9
        return found[1]

    def _image_info(self, message: InstanceArray | ReadArray, depth: Image) -> CameraInfo:
        frame = message.header.frame_id
        info = self.image.info
        if info is None and self.depth.info is not None and depth.header.frame_id == frame:
            info = self.depth.info  # an aligned depth image comes with the intrinsics of the image
        if info is None:
            raise MissingError("no camera_info has come; connect `camera_info` to the one of the image")
        if info.header.frame_id != frame:
            raise InputError(
                f"the instances are of frame {frame!r}, camera_info is of {info.header.frame_id!r}: they are of "
                "different cameras; connect `camera_info` to the one of the image"
            )
        return info

    def _onto(
        self,
        metres: np.ndarray,
        depth: Image,
        message: InstanceArray | ReadArray,
        camera: Calibration,
        rays: Rays,
        options: Mapping[str, Any],
        transforms: TransformListener,
    ) -> np.ndarray:
        """The depth on the pixels of the image."""
        frame, other = message.header.frame_id, depth.header.frame_id
        info = self.depth.info
        if options["registration"] == "assume" or info is None:
            if info is None and other != frame and options["registration"] != "assume":
                raise MissingError(
                    f"depth is of frame {other!r}, the image of {frame!r}, and no depth/camera_info has come; "
                    "connect it, or set registration to assume if the driver aligns depth with the image"
                )
            self.how = "as it is"
            return same_place(metres, camera.scaled(metres.shape), camera, rays)
        lens = calibration(info, rectified=options["rectified"]).scaled(metres.shape)
        if other == frame:
            self.how = "same frame" if lens == camera else "same frame, other intrinsics"
            return same_place(metres, lens, camera, rays)
        try:
            transform = transforms.find(frame, other, nanoseconds(message.header.stamp), _TRANSFORM_WAIT)
        except InputError as error:
            remedy = "" if not INSTALLED else "; publish the transform"
            raise InputError(
                f"depth is of frame {other!r}, the image of {frame!r}, and the transform between them is not known: "
                f"{error}{remedy}, or set registration to assume if the driver aligns depth with the image"
            ) from error
        self.how = f"reprojected from {other}"
        return reproject(metres, self._rays(lens), camera, transform)
