"""perception_node: camera images in; wholes, parts and subparts out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.clock import Clock, ClockType
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import Image

from hassod_msgs.msg import InstanceArray
from hassod_ros.drawing import draw
from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes.convert import array_to_image, image_to_array, to_rgb
from hassod_ros.nodes.mailbox import Mailbox
from hassod_ros.nodes.messages import instance_array, label_image
from hassod_ros.nodes.parameters import Parameter, declare, values
from hassod_ros.nodes.run import reliability, run
from hassod_ros.nodes.statistics import FrameStatistics
from hassod_ros.runtime.segmenter import TRAINING_FREE, ImageSegmenter, open_segmenter

LEVEL_NAMES = tuple(level.name.lower() for level in Level)
WARN_INTERVAL = 60.0  # s between two warnings about the same thing

PARAMETERS = (
    Parameter(
        name="model",
        default=TRAINING_FREE,
        description="Path of an exported model, or training_free, which needs none.",
        read_only=True,
    ),
    Parameter(
        name="autostart",
        default=False,
        description="Configure and activate at start, without a launch file or lifecycle manager.",
        read_only=True,
    ),
    *(
        Parameter(
            name=f"score_thresholds.{name}",
            default=0.0,
            low=0.0,
            high=1.0,
            description=f"Least score of a {name}, on top of the model's own threshold.",
        )
        for name in LEVEL_NAMES
    ),
    Parameter(
        name="levels",
        default=list(LEVEL_NAMES),
        choices=LEVEL_NAMES,
        description="Levels that are published; children of a missing level hang on the next one above.",
    ),
    Parameter(
        name="max_instances",
        default=100,
        low=1,
        high=1000,
        description="Most instances per image; the best scores are kept.",
    ),
    Parameter(
        name="input_reliability",
        default="best_effort",
        choices=("best_effort", "reliable"),
        read_only=True,
        description="QoS of the image subscription.",
    ),
    Parameter(
        name="output_reliability",
        default="reliable",
        choices=("best_effort", "reliable"),
        read_only=True,
        description="QoS of everything that is published; reliable also serves best-effort subscribers.",
    ),
)


class Frame(NamedTuple):
    """A received image and when it came."""

    message: Image
    received: float  # s, time.perf_counter


class PerceptionNode(LifecycleNode):
    """Lifecycle node around anything that turns an image into Instances.

    configure loads the model and creates the publishers, activate subscribes and starts the worker thread; deactivate
    and cleanup undo exactly that. The executor's thread only receives; the worker segments the newest frame.

    Args:
        open_model: Makes the segmenter from the parameter `model`.
        node_options: Passed on to rclpy, such as `context`.

    Raises:
        InputError: A parameter is wrong.

    """

    def __init__(self, open_model: Callable[[str], ImageSegmenter] = open_segmenter, **node_options: Any) -> None:
        super().__init__("perception_node", **node_options)
        self._open_model = open_model
        self._segmenter: ImageSegmenter | None = None
        self._model_name = self._model_sha256 = ""
        self._statistics = FrameStatistics()
        self._published: dict[str, Any] = {}
        self._subscription: Any = None
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._worker: threading.Thread | None = None
        self._warned: dict[str, float] = {}
        self._failure = ""  # why the last frame could not be segmented
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._last_report = (time.perf_counter(), 0, 0)
        declare(self, PARAMETERS)
        # Steady time: a paused simulation still has a health.
        self.create_timer(1.0, self._report, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create the publishers."""
        options = values(self, PARAMETERS)
        try:
            self._load(options["model"])
        except Exception as error:
            self._fail(f"cannot load the model {options['model']}", error)
            return TransitionCallbackReturn.FAILURE
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST, depth=5, reliability=reliability(options["output_reliability"])
        )
        self._published = {"instances": self.create_lifecycle_publisher(InstanceArray, "~/instances", qos)}
        for name in (*(f"labels/{level}" for level in LEVEL_NAMES), "overlay"):
            self._published[name] = self.create_lifecycle_publisher(Image, f"~/{name}", qos)
        self.get_logger().info(f"model {self._model_name} is ready")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start working."""
        result = super().on_activate(state)
        self._mailbox = Mailbox()
        self._worker = threading.Thread(target=self._work, args=(self._mailbox,), name="segment", daemon=True)
        self._worker.start()
        # Depth 5: what arrives while the executor is busy is still counted, and dropped by the mailbox.
        qos = QoSProfile(
            history=HistoryPolicy.KEEP_LAST,
            depth=5,
            reliability=reliability(self.get_parameter("input_reliability").value),
        )
        self._subscription = self.create_subscription(Image, "image", self._receive, qos)
        return result

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Stop receiving; the frame that is being segmented is finished first."""
        self._stop()
        return super().on_deactivate(state)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give the model and the publishers back."""
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Give everything back, whatever the state."""
        self._stop()
        self._release()
        return TransitionCallbackReturn.SUCCESS

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Back to unconfigured, from where the node can be configured again."""
        return self.on_shutdown(state)

    def destroy_node(self) -> None:
        """End the worker before what it uses is gone."""
        self._stop()
        self._release()
        super().destroy_node()

    def _load(self, model: str) -> None:
        segmenter = self._open_model(model)
        segmenter.warm_up()
        self._segmenter = segmenter
        self._model_name = Path(model).name
        self._model_sha256 = sha256(model) if Path(model).is_file() else ""

    def _stop(self) -> None:
        if self._subscription is not None:
            self.destroy_subscription(self._subscription)
            self._subscription = None
        self._mailbox.close()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _release(self) -> None:
        for publisher in self._published.values():
            self.destroy_publisher(publisher)
        self._published = {}
        if self._segmenter is not None:
            self._segmenter.close()
            self._segmenter = None

    # Frames

    def _receive(self, message: Image) -> None:
        self._statistics.receive()
        if self._mailbox.put("image", Frame(message, time.perf_counter())) is not None:
            self._statistics.drop("superseded")

    def _work(self, mailbox: Mailbox[Frame]) -> None:
        """Segment the newest frame again and again, until the mailbox is closed."""
        while (frames := mailbox.take(1)) and self.context.ok():
            for _, frame in frames:
                self._try(frame)

    def _try(self, frame: Frame) -> None:
        """Process a frame; whatever an image or a model does, the node goes on and says so."""
        try:
            self._process(frame)
        except InputError as error:
            self._statistics.drop("malformed")
            self._warn("an image cannot be used", error)
        except Exception as error:
            if self.context.ok():  # else the node was shut down while this frame was being segmented
                self._statistics.drop("failed")
                self._fail("segmentation failed", error)

    def _process(self, frame: Frame) -> None:
        wanted = {name for name, publisher in self._published.items() if publisher.get_subscription_count() > 0}
        if not wanted:
            self._statistics.drop("unwatched")
            return
        header = frame.message.header
        if header.stamp.nanosec >= 1_000_000_000:
            raise InputError(f"the stamp holds {header.stamp.nanosec} nanoseconds, a second or more; fix the driver")
        times = [time.perf_counter()]
        pixels, color_order = image_to_array(frame.message)
        times.append(time.perf_counter())
        assert self._segmenter is not None  # the worker only runs while a model is loaded
        instances = self._segmenter(pixels, color_order=color_order)
        instances = _select(instances, values(self, PARAMETERS))
        times.append(time.perf_counter())
        for name in wanted:
            self._published[name].publish(self._message(name, instances, header, pixels, color_order))
        times.append(time.perf_counter())
        stages = dict(zip(("convert", "segment", "publish"), np.diff(times).tolist(), strict=True))
        self._statistics.process({"wait": times[0] - frame.received, **stages, "total": times[-1] - frame.received})
        self._failure = ""

    def _message(
        self, name: str, instances: Instances, header: Any, pixels: np.ndarray, color_order: str
    ) -> InstanceArray | Image:
        if name == "instances":
            return instance_array(instances, header, model_name=self._model_name, model_sha256=self._model_sha256)
        if name == "overlay":
            return array_to_image(draw(to_rgb(pixels, color_order), instances), "rgb8", header)
        return label_image(instances, Level[name.removeprefix("labels/").upper()], header)

    # Health

    def _warn(self, what: str, error: Exception) -> None:
        """Warn once in a while about the same thing; the counters tell how often it happened."""
        now = time.monotonic()
        if now - self._warned.get(what, -WARN_INTERVAL) >= WARN_INTERVAL:
            self._warned[what] = now
            self.get_logger().warning(f"{what}: {error}")

    def _fail(self, what: str, error: Exception) -> None:
        self._failure = f"{what}: {error}"
        now = time.monotonic()
        if now - self._warned.get(what, -WARN_INTERVAL) >= WARN_INTERVAL:
            self._warned[what] = now
            details = "" if isinstance(error, InputError) else f" ({type(error).__name__})"
            self.get_logger().error(f"{self._failure}{details}")

    def _report(self) -> None:
        """Publish the diagnostics, once a second."""
        counts = self._statistics.counts()
        last_time, last_received, last_processed = self._last_report
        now = time.perf_counter()
        self._last_report = (now, counts["received"], counts["processed"])
        rates = {
            "rate_in_hz": (counts["received"] - last_received) / (now - last_time),
            "rate_out_hz": (counts["processed"] - last_processed) / (now - last_time),
        }
        status = DiagnosticStatus(name=f"{self.get_fully_qualified_name()}: segmentation", hardware_id="hassod_ros")
        if self._failure:
            status.level, status.message = DiagnosticStatus.ERROR, self._failure
        elif self._subscription is None:
            status.level, status.message = DiagnosticStatus.OK, "not active"
        elif counts["received"] == last_received:
            status.level, status.message = DiagnosticStatus.WARN, "no image for a second"
        else:
            status.level, status.message = DiagnosticStatus.OK, "working"
        figures: dict[str, Any] = {
            "model": self._model_name,
            "model_sha256": self._model_sha256,
            **counts,
            **{name: f"{value:.2f}" for name, value in (rates | self._statistics.percentiles()).items()},
        }
        status.values = [KeyValue(key=key, value=str(value)) for key, value in figures.items()]
        message = DiagnosticArray(status=[status])
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)


def _select(instances: Instances, options: dict[str, Any]) -> Instances:
    """What the thresholds, the levels and the limit leave over, best scores first."""
    published = np.array([name in options["levels"] for name in LEVEL_NAMES])
    thresholds = np.array([options[f"score_thresholds.{name}"] for name in LEVEL_NAMES], np.float32)
    keep = np.flatnonzero(published[instances.levels] & (instances.scores >= thresholds[instances.levels]))
    best = keep[np.argsort(-instances.scores[keep], kind="stable")][: options["max_instances"]]
    return instances.select(best)


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    return run(PerceptionNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
