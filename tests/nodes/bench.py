"""A running perception node with subscribers and a camera around it, and the images to send."""

import time
from collections import Counter

import cv2
import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image

from hassod_msgs.msg import InstanceArray

NODE = "perception_node"
HEIGHT, WIDTH = 96, 128
RECTANGLES = ((8, 12, 88, 120), (20, 24, 72, 96), (32, 40, 56, 80))  # y0 x0 y1 x1 of whole, part, subpart
COLORS = ((200, 60, 40), (60, 200, 60), (250, 250, 220))


def scene() -> np.ndarray:
    """(H, W, 3) uint8 RGB: three nested rectangles on black."""
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    for (y0, x0, y1, x1), color in zip(RECTANGLES, COLORS, strict=True):
        image[y0:y1, x0:x1] = color
    return image


def bright(height: int = HEIGHT, width: int = WIDTH) -> np.ndarray:
    """(H, W, 3) uint8, bright and no blank picture: the hand-written detector finds all its things."""
    pixels = np.full((height, width, 3), 250, np.uint8)
    pixels.reshape(height, 8, width // 8, 3)[:, :, : width // 64] = 200
    return pixels


def gray() -> np.ndarray:
    return cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY)


def image(
    encoding: str, pixels: np.ndarray, *, big_endian: bool = False, padding: int = 0, second: int | None = None
) -> Image:
    rows = np.ascontiguousarray(pixels).reshape(len(pixels), -1).view(np.uint8)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=255)
    message = Image(height=pixels.shape[0], width=pixels.shape[1], encoding=encoding, is_bigendian=big_endian)
    message.step = rows.shape[1]
    message.data.frombytes(rows.tobytes())
    message.header.stamp, message.header.frame_id = stamp(second), "optical"
    return message


def stamp(second: int | None = None, shift: int = 0) -> Time:
    """Within that second, or so many seconds from now."""
    now, nanoseconds = divmod(time.time_ns() + shift * 1_000_000_000, 1_000_000_000)
    return Time(sec=now, nanosec=nanoseconds) if second is None else Time(sec=second, nanosec=123_456_789)


def plain(value: int) -> Image:
    """The same grey everywhere; threshold_node fails on 255 and hangs on 254."""
    return image("mono8", np.full((HEIGHT, WIDTH), value, np.uint8))


def jpeg(second: int | None = None) -> CompressedImage:
    data = cv2.imencode(".jpg", scene()[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()
    message = CompressedImage(format="jpeg", data=data)
    message.header.stamp = stamp(second)
    return message


def label_map(message: Image) -> np.ndarray:
    assert (message.encoding, message.step) == ("16UC1", 2 * message.width)
    return np.frombuffer(message.data, "<u2").reshape(message.height, message.width)


def broken(name: str) -> Image:
    message = image("rgb8", scene())
    if name == "short data":
        del message.data[-10:]
    elif name == "unknown encoding":
        message.encoding = "rgb9"
    elif name == "depth image":
        message.encoding = "32FC1"
    elif name == "zero size":
        message.height = message.width = 0
        del message.data[:]
    elif name == "step too small":
        message.step = 7
    elif name == "too wide":
        message.width, message.step = 20_000, 60_000
    elif name == "stamp":
        message.header.stamp.nanosec = 4_000_000_000
    return message


def set_parameters(ros, **changes) -> list[SetParametersResult]:
    parameters = [Parameter(name.replace("__", "."), value=value).to_parameter_msg() for name, value in changes.items()]
    request = SetParameters.Request(parameters=parameters)
    return ros.call(SetParameters, f"/{NODE}/set_parameters", request).results


class Bench:
    """Subscribers and a camera around a running threshold node, connected and seen working."""

    def __init__(self, ros, model="threshold", qos=qos_profile_sensor_data, shift=0, **parameters):
        self.ros = ros
        self.shift = shift  # s that the camera's clock is off
        self.child = ros.start("threshold_node.py", model=model, autostart=True, diagnostics_period=0.2, **parameters)
        self.instances = ros.collect(InstanceArray, f"/{NODE}/instances", 50)
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics", 50)
        kind, topic = (CompressedImage, "/image/compressed") if "image_transport" in parameters else (Image, "/image")
        self.camera = ros.node.create_publisher(kind, topic, qos)
        self.baseline = {}
        self.prime()

    def prime(self) -> None:
        """Send images until the first answer: both sides have found each other then."""
        before, end = len(self.instances), time.monotonic() + 60
        while len(self.instances) == before:
            assert time.monotonic() < end, "the node never answered"
            self.ros.until(self.camera.get_subscription_count)
            self.camera.publish(self.now())
            for _ in range(20):
                self.ros.executor.spin_once(timeout_sec=0.01)

    def now(self) -> Image | CompressedImage:
        """An image by the camera's clock."""
        message = image("rgb8", scene()) if self.camera.msg_type is Image else jpeg()
        message.header.stamp = stamp(shift=self.shift)
        return message

    def send(self, message: Image) -> InstanceArray:
        """Publish once and wait for the answer; one to an image of `prime` may still be under way."""
        before = len(self.instances)
        self.camera.publish(message)
        self.ros.until(lambda: len(self.instances) > before and self.instances[-1].header == message.header)
        return self.instances[-1]

    def send_now(self) -> InstanceArray:
        """The same with a fresh image."""
        return self.send(self.now())

    def send_and_see_labels(self, message: Image) -> InstanceArray:
        """Publish an image with a stamp of its own; wait for its instances and its three label images."""
        self.camera.publish(message)
        outputs = (self.instances, *self.labels)
        self.ros.until(lambda: all(kind and kind[-1].header.stamp == message.header.stamp for kind in outputs))
        return self.instances[-1]

    def status(self) -> dict[str, object]:
        """The node's next diagnostics: level, message and values."""
        before = len(self.diagnostics)
        self.ros.until(lambda: len(self.diagnostics) > before)
        status = self.diagnostics[-1].status[0]
        return {value.key: value.value for value in status.values} | {"level": status.level, "message": status.message}

    def counts(self) -> "Counter[str]":
        """The frames counted since `settle`; a cause that never occurred counts 0."""
        status = self.status()
        keys = [key for key in status if key in ("received", "processed") or key.startswith("dropped.")]
        return Counter({key: int(status[key]) - self.baseline.get(key, 0) for key in keys})

    def settle(self) -> None:
        """Count from now on; returns when every earlier frame is counted."""
        self.baseline = {}
        before = self.counts()
        end = time.monotonic() + 60
        while (now := self.counts()) != before or 2 * now["received"] != sum(now.values()):
            assert time.monotonic() < end, f"these counts do not add up: {now}"
            before = now
        self.baseline = before
