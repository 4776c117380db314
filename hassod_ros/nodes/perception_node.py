"""perception_node: camera images in; wholes, parts and subparts out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSPolicyKind, QoSProfile
from rclpy.qos_overriding_options import QoSOverridingOptions
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Float64, Header
from std_srvs.srv import SetBool

from hassod_msgs.msg import InstanceArray
from hassod_msgs.srv import ReloadModel, Segment
from hassod_ros.drawing import draw
from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes import health, vision
from hassod_ros.nodes.camera import Camera
from hassod_ros.nodes.convert import array_to_image, compressed_to_array, image_to_array, to_rgb
from hassod_ros.nodes.mailbox import Mailbox
from hassod_ros.nodes.messages import instance_array, label_image
from hassod_ros.nodes.parameters import declare, values
from hassod_ros.nodes.perception_parameters import LEVEL_NAMES, PARAMETERS
from hassod_ros.nodes.run import reliability, run
from hassod_ros.runtime.default_model import resolve_model
from hassod_ros.runtime.segmenter import ImageSegmenter, Segmenter, open_segmenter

WARN_INTERVAL = 60.0  # s between two warnings about the same thing
SELF_TEST_SIZE = (120, 160)  # H, W of the picture that a new model is tried on
QOS_OVERRIDES = QoSOverridingOptions(
    (QoSPolicyKind.HISTORY, QoSPolicyKind.DEPTH, QoSPolicyKind.RELIABILITY, QoSPolicyKind.DURABILITY)
)
PROCESSING_TIME = "debug/processing_time_ms"

# What is published for each camera and image, below `~/`.
OUTPUTS: dict[str, type] = {
    "instances": InstanceArray,
    **{f"labels/{name}": Image for name in LEVEL_NAMES},
    "overlay": Image,
    "overlay/compressed": CompressedImage,
    PROCESSING_TIME: Float64,
}
if vision.INSTALLED:
    OUTPUTS["detections"] = vision.Detection2DArray  # type: ignore[attr-defined]


class Frame(NamedTuple):
    """A received image, when it came (s, time.perf_counter), and its age then (s, by the cameras' clock)."""

    message: Image | CompressedImage
    received: float
    age: float


class Model(NamedTuple):
    """What segments, its name, the SHA-256 of its file, its precision and what runs it ("" where there is none)."""

    segment: ImageSegmenter
    name: str
    sha256: str
    precision: str
    backend: str


class PerceptionNode(LifecycleNode):
    """Lifecycle node around anything that turns an image into Instances.

    configure loads the model and creates the publishers, activate subscribes and starts the worker thread; deactivate
    and cleanup undo exactly that. The thread that spins only receives; the worker segments the newest frames.

    Args:
        open_model: Makes the segmenter from the parameter `model`. Default: `open_segmenter` with `backend`.
        node_options: Passed on to rclpy, such as `context`.

    Raises:
        InputError: A parameter is wrong.

    """

    def __init__(self, open_model: Callable[[str], ImageSegmenter] | None = None, **node_options: Any) -> None:
        super().__init__("perception_node", **node_options)
        self._open_model = open_model or self._open_segmenter
        self._model: Model | None = None
        self._model_lock = threading.Lock()  # held while the model segments, or is exchanged for another
        self._cameras: list[Camera] = []
        self._mailbox: Mailbox[Frame] = Mailbox()
        self._worker: threading.Thread | None = None
        self._enabled = True
        self._warned: dict[str, float] = {}
        self._failure = ""  # why the model could not be loaded, or the last frame not be segmented
        self._loading = ""  # the model that is being loaded
        self._progress = ""  # how far the model's engine is built
        self._label_info: Any = None
        self._least_score = -1.0  # that `~/label_info` tells
        # Not a timer: an engine is built for minutes in the thread that spins, or before there is an executor, and a
        # paused simulation still has a health.
        self._closed = threading.Event()
        self._reporter = threading.Thread(target=self._report_periodically, name="diagnostics", daemon=True)
        declare(self, PARAMETERS)
        if not vision.INSTALLED:
            self.get_logger().info("vision_msgs is not installed: there is no ~/detections and no ~/label_info")
        self._diagnostics = self.create_publisher(DiagnosticArray, "/diagnostics", 10)
        self._reporter.start()
        self.create_service(SetBool, "~/enable", self._on_enable)
        # A group of their own: the cameras are served while a model loads or another image is segmented.
        slow = MutuallyExclusiveCallbackGroup()
        self.create_service(ReloadModel, "~/reload_model", self._on_reload_model, callback_group=slow)
        self.create_service(Segment, "~/segment", self._on_segment, callback_group=slow)

    # Lifecycle

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and create the publishers."""
        options = values(self, PARAMETERS)
        try:
            self._cameras = [Camera(name) for name in _check_names(options["cameras"])]
            self._model = self._load(options["model"])
            self._create_publishers(_qos(options["output_reliability"]))
        except Exception as error:
            self._release()
            self._fail(f"cannot configure with model {options['model']}", error)
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        self.get_logger().info(f"model {self._model.name} is ready")
        return TransitionCallbackReturn.SUCCESS

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Subscribe and start working."""
        options = values(self, PARAMETERS)
        self._mailbox = Mailbox()
        try:
            for camera in self._cameras:
                self._subscribe(camera, options)
        except Exception as error:
            self._stop()
            self._fail("cannot subscribe", error)
            return TransitionCallbackReturn.FAILURE
        self._failure = ""
        result = super().on_activate(state)
        self._worker = threading.Thread(target=self._work, args=(self._mailbox,), name="segment", daemon=True)
        self._worker.start()
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
        """End the threads before what they use is gone."""
        self._closed.set()
        if self._reporter.is_alive():
            self._reporter.join()
        self._stop()
        self._release()
        super().destroy_node()

    def _load(self, path: str) -> Model:
        """Open a model and see it work on a made-up picture."""
        path = resolve_model(path)
        self._loading, self._progress = path, ""
        try:
            segmenter = self._open_model(path)
            segmenter.warm_up()
            picture = np.random.default_rng(0).integers(0, 256, (*SELF_TEST_SIZE, 3), np.uint8)
            found = segmenter(picture)
        finally:
            self._loading, self._progress = "", ""
        if found.image_size != SELF_TEST_SIZE:
            raise InputError(f"{path} answers a picture of {SELF_TEST_SIZE} pixels with masks of {found.image_size}")
        return Model(
            segmenter,
            name=Path(path).name,
            sha256=sha256(path) if Path(path).is_file() else "",
            precision=getattr(getattr(segmenter, "info", None), "precision", ""),
            backend=getattr(segmenter, "backend", ""),
        )

    def _open_segmenter(self, path: str) -> ImageSegmenter:
        return open_segmenter(path, self.get_parameter("backend").value, report=self._tell_progress)

    def _tell_progress(self, line: str) -> None:
        self._progress = line
        self.get_logger().info(line)

    def _create_publishers(self, qos: QoSProfile) -> None:
        for camera in self._cameras:
            for name, kind in OUTPUTS.items():
                camera.publishers[name] = self.create_lifecycle_publisher(
                    kind, f"~/{camera.topics}{name}", qos, qos_overriding_options=QOS_OVERRIDES
                )
        if vision.INSTALLED:
            latched = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
            self._least_score = -1.0
            self._label_info = self.create_lifecycle_publisher(vision.LabelInfo, "~/label_info", latched)  # type: ignore[attr-defined]

    def _subscribe(self, camera: Camera, options: dict[str, Any]) -> None:
        raw = options["image_transport"] == "raw"
        camera.heard = time.perf_counter()
        camera.subscription = self.create_subscription(
            Image if raw else CompressedImage,
            f"{camera.topics}image" + ("" if raw else "/compressed"),
            lambda message: self._receive(camera, message),
            _qos(options["input_reliability"]),
            qos_overriding_options=QOS_OVERRIDES,
        )

    def _stop(self) -> None:
        for camera in self._cameras:
            if camera.subscription is not None:
                self.destroy_subscription(camera.subscription)
                camera.subscription = None
        self._mailbox.close()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _release(self) -> None:
        for camera in self._cameras:
            for publisher in camera.publishers.values():
                self.destroy_publisher(publisher)
        self._cameras = []
        if self._label_info is not None:
            self.destroy_publisher(self._label_info)
            self._label_info = None
        with self._model_lock:
            if self._model is not None:
                self._model.segment.close()
                self._model = None

    # Services

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled: images are dropped"
        return response

    def _on_reload_model(self, request: ReloadModel.Request, response: ReloadModel.Response) -> ReloadModel.Response:
        if self._model is None:
            response.message = "the node is not configured; configure it, it then loads the parameter `model`"
            return response
        try:
            new = self._load(request.path)
        except Exception as error:  # whatever is wrong with the file, the running model stays
            response.message = f"kept {self._model.name}, because {request.path} cannot be used: {error}"
            self.get_logger().error(response.message)
            return response
        with self._model_lock:  # between two frames
            if self._model is None:  # cleaned up meanwhile
                new.segment.close()
                response.message = "the node was cleaned up while the model was loaded; configure it again"
                return response
            old, self._model = self._model, new
        old.segment.close()
        response.success, response.message = True, f"running {new.name} instead of {old.name}"
        self.get_logger().info(response.message)
        return response

    def _on_segment(self, request: Segment.Request, response: Segment.Response) -> Segment.Response:
        try:
            pixels, color_order = image_to_array(request.image)
            with self._model_lock:
                if self._model is None:
                    raise InputError("the node is not configured; configure it first")
                model = self._model
                options = values(self, PARAMETERS)
                _set_thresholds(model.segment, options)
                instances = model.segment(pixels, color_order=color_order)
            instances = _select(instances, options)
            response.result = _instances_message(instances, request.image.header, model)
            response.success, response.message = True, f"{len(instances)} instances"
        except Exception as error:
            response.message = str(error)
        return response

    # Frames

    def _receive(self, camera: Camera, message: Image | CompressedImage) -> None:
        now = camera.heard = time.perf_counter()
        camera.statistics.receive()
        if not self._enabled:
            camera.statistics.drop("disabled")
        elif camera.limit_rate(now, self.get_parameter("max_rate").value):
            camera.statistics.drop("rate_limited")
        else:
            stamp = message.header.stamp.sec + message.header.stamp.nanosec * 1e-9
            age = camera.age.of(self.get_clock().now().nanoseconds * 1e-9, stamp)
            if camera.age.offset:
                self._warn(
                    f"the clock of camera {message.header.frame_id!r} differs",
                    f"by {camera.age.offset:.1f} s; ages are counted from its freshest images",
                )
            if self._mailbox.put(camera.name, Frame(message, now, age)) is not None:
                camera.statistics.drop("superseded")

    def _work(self, mailbox: Mailbox[Frame]) -> None:
        """Segment the newest frames again and again, until the mailbox is closed."""
        cameras = {camera.name: camera for camera in self._cameras}
        try:
            self._tell_levels()
            while (frames := mailbox.take(self._batch())) and self.context.ok():
                self._process([(cameras[name], frame) for name, frame in frames])
                self._tell_levels()
        except Exception:
            if self.context.ok():  # else the node was shut down meanwhile, and its publishers with it
                raise

    def _tell_levels(self) -> None:
        """Publish `~/label_info`, whose threshold follows the model and the parameters."""
        model = self._model
        if self._label_info is None or model is None:
            return
        own = getattr(getattr(model.segment, "info", None), "score_thresholds", (0.0,) * len(LEVEL_NAMES))
        wanted = [self.get_parameter(f"score_thresholds.{name}").value for name in LEVEL_NAMES]
        least = min(chosen or own for own, chosen in zip(own, wanted, strict=True))
        if least != self._least_score:
            self._label_info.publish(vision.label_info(least, self.get_clock().now().to_msg()))
            self._least_score = least

    def _batch(self) -> int:
        """Images that the model takes at once."""
        return getattr(getattr(self._model.segment, "info", None), "batch", 1) if self._model else 1

    def _process(self, frames: list[tuple[Camera, Frame]]) -> None:
        """Segment frames in one batch; whatever an image or a model does, the node goes on and says so."""
        options = values(self, PARAMETERS)
        started = time.perf_counter()
        usable = [found for camera, frame in frames if (found := self._read(camera, frame, options)) is not None]
        if not usable:
            return
        converted = time.perf_counter()
        pending = [camera for camera, *_ in usable]
        try:
            with self._model_lock:
                assert self._model is not None  # the worker ends before the model is released
                model = self._model
                _set_thresholds(model.segment, options)
                results = _segment(model.segment, [(pixels, order) for _, _, pixels, order in usable])
            segmented = time.perf_counter()
            for (camera, frame, pixels, order), instances in zip(usable, results, strict=True):
                self._publish(camera, frame, pixels, order, instances, model, options)
                published = time.perf_counter()
                if camera.publishers[PROCESSING_TIME].get_subscription_count():
                    camera.publishers[PROCESSING_TIME].publish(Float64(data=(published - started) * 1e3))
                pending.remove(camera)
                camera.statistics.process(
                    {
                        "wait": started - frame.received,
                        "convert": converted - started,
                        "segment": segmented - converted,
                        "publish": published - segmented,
                        "total": published - frame.received,
                        "age": frame.age + published - frame.received,
                    }
                )
            self._failure = ""
        except Exception as error:
            if self.context.ok():  # else the node was shut down while these frames were being segmented
                for camera in pending:
                    camera.statistics.drop("failed")
                self._fail("segmentation failed", error)

    def _read(
        self, camera: Camera, frame: Frame, options: dict[str, Any]
    ) -> tuple[Camera, Frame, np.ndarray, str] | None:
        """The frame with its pixels and their colour order, or None where it need not or cannot be segmented."""
        if not any(publisher.get_subscription_count() for publisher in camera.publishers.values()):
            camera.statistics.drop("unwatched")
        elif options["max_age"] and frame.age + time.perf_counter() - frame.received > options["max_age"]:
            camera.statistics.drop("too_old")
        else:
            try:
                return camera, frame, *_pixels(frame.message)
            except InputError as error:
                camera.statistics.drop("malformed")
                self._warn("an image cannot be used", str(error))
        return None

    def _publish(
        self,
        camera: Camera,
        frame: Frame,
        pixels: np.ndarray,
        color_order: str,
        instances: Instances,
        model: Model,
        options: dict[str, Any],
    ) -> None:
        header = frame.message.header
        if options["tracking"]:
            stamp = header.stamp.sec + header.stamp.nanosec * 1e-9
            instances = camera.tracker.update(instances, stamp, pixels)
        instances = _select(instances, options)
        wanted = {name for name, publisher in camera.publishers.items() if publisher.get_subscription_count()}
        messages: dict[str, Any] = {}
        if "instances" in wanted:
            messages["instances"] = _instances_message(instances, header, model)
        for level in Level:
            if (name := f"labels/{level.name.lower()}") in wanted:
                messages[name] = label_image(instances, level, header)
        if "detections" in wanted:
            messages["detections"] = vision.detection_array(instances, header)
        if wanted & {"overlay", "overlay/compressed"}:
            style = {"alpha": options["overlay.opacity"], "outline": options["overlay.outline"]}
            picture = draw(to_rgb(pixels, color_order), instances, **style)
            if "overlay" in wanted:
                messages["overlay"] = array_to_image(picture, "rgb8", header)
            if "overlay/compressed" in wanted:
                messages["overlay/compressed"] = _jpeg(picture, options["overlay.jpeg_quality"], header)
        for name, message in messages.items():
            camera.publishers[name].publish(message)

    # Health

    def _warn(self, what: str, details: str) -> None:
        """Warn once in a while about the same thing; the counters tell how often it happened."""
        if self._is_news(what):
            self.get_logger().warning(f"{what}: {details}")

    def _fail(self, what: str, error: Exception) -> None:
        self._failure = f"{what}: {error}"
        if self._is_news(what):
            details = "" if isinstance(error, InputError) else f" ({type(error).__name__})"
            self.get_logger().error(f"{self._failure}{details}")

    def _is_news(self, what: str) -> bool:
        now = time.monotonic()
        if now - self._warned.get(what, -WARN_INTERVAL) < WARN_INTERVAL:
            return False
        self._warned[what] = now
        return True

    def _report_periodically(self) -> None:
        period = self.get_parameter("diagnostics_period").value
        try:
            while not self._closed.wait(period):
                self._report()
        except Exception:
            if self.context.ok():  # else the context was shut down under this thread's feet
                raise

    def _report(self) -> None:
        """Publish the diagnostics."""
        options = values(self, PARAMETERS)
        statuses = [self._status(camera, options) for camera in self._cameras or [Camera("")]]
        message = DiagnosticArray(status=statuses)
        message.header.stamp = self.get_clock().now().to_msg()
        self._diagnostics.publish(message)

    def _status(self, camera: Camera, options: dict[str, Any]) -> DiagnosticStatus:
        period = camera.statistics.period()
        percentiles = camera.statistics.percentiles()
        counts = camera.statistics.counts()
        silence = time.perf_counter() - camera.heard if camera.subscription is not None else 0.0
        memory = health.resident_memory()
        status = DiagnosticStatus(name=f"{self.get_fully_qualified_name()}: {camera.name or 'segmentation'}")
        status.hardware_id = "hassod_ros"
        if self._failure:
            status.level, status.message = DiagnosticStatus.ERROR, self._failure
        elif camera.subscription is None:
            status.level, status.message = DiagnosticStatus.OK, "not active"
            if self._loading:
                status.message = ": ".join(filter(None, (f"loading {self._loading}", self._progress)))
        elif not self._enabled:
            status.level, status.message = DiagnosticStatus.OK, "disabled"
        else:
            judged = {"silence": silence, "memory": memory} | period.judged()
            if "total.p95_ms" in percentiles:
                judged["latency"] = percentiles["total.p95_ms"] / 1e3
            status.level, status.message = health.judge(judged, options)
            status.message = status.message or "working"
        model = self._model
        text = {
            "model": model.name if model else "",
            "model_sha256": model.sha256 if model else "",
            "precision": model.precision if model else "",
            "backend": model.backend if model else "",
            "loading": self._loading,
            "progress": self._progress,
        }
        figures = {
            "rate_in_hz": period.rate_in,
            "rate_out_hz": period.rate_out,
            "since_last_image_s": silence,
            "clock_offset_s": camera.age.offset,
            "memory_mb": memory,
            **percentiles,
        }
        text |= {name: str(count) for name, count in counts.items()}
        text |= {name: f"{value:.2f}" for name, value in figures.items()}
        status.values = [KeyValue(key=key, value=value) for key, value in text.items()]
        return status


def _check_names(names: list[str]) -> list[str]:
    """The camera names, if they can be part of topic names."""
    if len(set(names)) != len(names) or not names or ("" in names and len(names) > 1):
        raise InputError(f"the parameter cameras is {names}; give each camera a name of its own")
    for name in names:
        if name and not (name.isidentifier() and name.isascii()):
            raise InputError(f"camera {name!r} cannot be part of a topic; use letters, digits and underscores")
    return names


def _qos(policy: str) -> QoSProfile:
    """Depth 5: what comes while the executor is busy is still counted, and dropped by the mailbox."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=reliability(policy))


def _pixels(message: Image | CompressedImage) -> tuple[np.ndarray, str]:
    """Pixels and colour order of a message; InputError where it cannot be used."""
    nanoseconds = message.header.stamp.nanosec
    if nanoseconds >= 1_000_000_000:
        raise InputError(f"the stamp holds {nanoseconds} nanoseconds, a second or more; fix the camera driver")
    return compressed_to_array(message) if isinstance(message, CompressedImage) else image_to_array(message)


def _segment(segmenter: ImageSegmenter, images: list[tuple[np.ndarray, str]]) -> list[Instances]:
    orders = {order for _, order in images}
    if len(orders) == 1:
        return segmenter.segment([pixels for pixels, _ in images], color_order=orders.pop())
    return segmenter.segment([to_rgb(pixels, order) for pixels, order in images])


def _set_thresholds(segmenter: ImageSegmenter, options: dict[str, Any]) -> None:
    """Thresholds above 0 replace the model's own, upwards and downwards."""
    if not isinstance(segmenter, Segmenter):
        return
    scores = tuple(options[f"score_thresholds.{name}"] for name in LEVEL_NAMES)
    scores = tuple(chosen or own for own, chosen in zip(segmenter.info.score_thresholds, scores, strict=True))
    wanted = replace(segmenter.options, score_thresholds=scores, cover=options["cover"] or segmenter.info.cover)
    if wanted != segmenter.options:
        segmenter.options = wanted


def _select(instances: Instances, options: dict[str, Any]) -> Instances:
    """What the thresholds, the levels and the limit leave over, best scores first."""
    published = np.array([name in options["levels"] for name in LEVEL_NAMES])
    thresholds = np.array([options[f"score_thresholds.{name}"] for name in LEVEL_NAMES], np.float32)
    keep = np.flatnonzero(published[instances.levels] & (instances.scores >= thresholds[instances.levels]))
    best = keep[np.argsort(-instances.scores[keep], kind="stable")][: options["max_instances"]]
    return instances.select(best)


def _instances_message(instances: Instances, header: Header, model: Model) -> InstanceArray:
    return instance_array(instances, header, model_name=model.name, model_sha256=model.sha256)


def _jpeg(picture: np.ndarray, quality: int, header: Header) -> CompressedImage:
    """sensor_msgs/CompressedImage of an (H, W, 3) uint8 RGB picture."""
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    message = CompressedImage(header=header, format="rgb8; jpeg compressed bgr8")
    message.data.frombytes(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].data.cast("B"))
    return message


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    return run(PerceptionNode, arguments)


if __name__ == "__main__":
    sys.exit(main())
