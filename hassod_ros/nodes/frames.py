"""Frames of the cameras through the model to the outputs: the newest are segmented, the newest results drawn."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from sensor_msgs.msg import CompressedImage

from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.nodes import vision
from hassod_ros.nodes.camera import Camera
from hassod_ros.nodes.convert import compressed_to_array, image_to_array
from hassod_ros.nodes.image_bytes import AnyImage, SentCompressedImage
from hassod_ros.nodes.managed_node import ManagedNode
from hassod_ros.nodes.outputs import Result
from hassod_ros.nodes.perception_parameters import selection
from hassod_ros.pixel_range import PixelRange
from hassod_ros.runtime.model_slot import Model, ModelSlot
from hassod_ros.runtime.stream import Moment, Worker

END_LIMIT = 10.0  # s that a frame may still take when the node is deactivated
_REST = 0.05  # s that pictures wait for a frame that is worked on, unless one takes as much processor time


class Frame(NamedTuple):
    """A received image, and when it came: s, time.perf_counter, and s by the node's clock."""

    message: AnyImage
    received: float
    clock: float


class Taken(NamedTuple):
    """A frame whose turn it is: its pixels (H, W, 3) uint8, their order, "RGB" or "BGR", and those to be segmented."""

    camera: Camera
    frame: Frame
    moment: Moment
    pixels: np.ndarray
    color_order: str
    cut: np.ndarray


class FrameLoop:
    """Works on the cameras' frames from its construction until it is closed.

    Whatever an image or a model does, each frame that is lost is counted, and the threads go on.

    Args:
        node: Whose parameters and log are used.
        slot: What segments.
        cameras: Whose frames will come; their outputs are published to.
        level_names: Told what the levels' least score is.

    """

    def __init__(
        self, node: ManagedNode, slot: ModelSlot, cameras: Sequence[Camera], level_names: vision.LevelNames
    ) -> None:
        self._node = node
        self._slot = slot
        self._level_names = level_names
        self._cameras = {camera.name: camera for camera in cameras}
        self._tell_levels(node.options())
        self._work = 0.0  # s, processor time that the last frames took of their thread
        self._drawing: Worker[Result] = Worker("draw", self._draw, partial(self._complain, "drawing failed"))
        self._segmenting: Worker[Frame] = Worker(
            "segment", self._process, partial(self._complain, "working on images failed"), self._batch
        )

    def overdue(self) -> float:
        """Seconds that frames wait while nothing comes back from the model."""
        return self._segmenting.overdue()

    def close(self) -> None:
        """End the threads; the frame that is being segmented is finished first.

        Raises:
            InputError: It does not come to an end.

        """
        ended = [worker.close(END_LIMIT) for worker in (self._segmenting, self._drawing)]
        if not all(ended):
            raise InputError(f"the model has not come back from an image for {END_LIMIT:g} s; it was left behind")

    def receive(self, camera: Camera, message: AnyImage) -> None:
        """Take a message of a camera; to be called in the thread that spins."""
        now = time.perf_counter()
        camera.statistics.receive()
        if camera.rate.exceeded(now, self._node.get_parameter("max_rate").value):
            camera.statistics.drop("rate_limited")
            return
        frame = Frame(message, now, self._node.get_clock().now().nanoseconds * 1e-9)
        if self._segmenting.put(camera.name, frame) is not None:
            camera.statistics.drop("superseded")

    def _batch(self) -> int:
        """Images that the model takes at once."""
        return self._slot.model.segmenter.batch if self._slot.model else 1

    def _process(self, frames: list[tuple[str, Frame]]) -> None:
        """Segment frames in one batch."""
        options, started, before = self._node.options(), time.perf_counter(), time.thread_time()
        usable = [taken for name, frame in frames if (taken := self._take(self._cameras[name], frame, options))]
        if usable:
            self._segment(usable, options, started)
        self._tell_levels(options)
        self._work = time.thread_time() - before

    def _take(self, camera: Camera, frame: Frame, options: dict[str, Any]) -> Taken | None:
        """The frame with its pixels, or None where it need not or cannot be segmented."""
        stamp = frame.message.header.stamp
        moment = camera.clock.judge(
            stamp.sec + stamp.nanosec * 1e-9, frame.clock, frame.received, correct=options["correct_clock"]
        )
        if camera.clock.offset:
            self._node.notices.warn(
                f"the images of {camera.title} come {camera.clock.offset:.1f} s after their stamps: its clock differs, "
                "or the way from it is slow"
            )
        for warning in camera.warnings():
            self._node.notices.warn(warning)
        if not camera.outputs.wanted():
            camera.statistics.drop("unwatched")
        elif options["max_age"] and moment.age + time.perf_counter() - frame.received > options["max_age"]:
            camera.statistics.drop("too_old")
        else:
            try:
                pixels, color_order = read_pixels(frame.message, camera.pixel_range)
                return Taken(camera, frame, moment, pixels, color_order, camera.region.crop(pixels))
            except Exception as error:  # whatever a damaged image makes a decoder do
                camera.statistics.drop("malformed")
                camera.malformed = str(error)
                self._node.notices.warn(f"an image cannot be used: {error}")
        return None

    def _segment(self, taken: list[Taken], options: dict[str, Any], started: float) -> None:
        converted, wanted = time.perf_counter(), selection(options)
        try:
            results, model = self._slot.segment([(each.cut, each.color_order) for each in taken], wanted)
        except Exception as error:
            if len(taken) == 1:
                self._lose(taken[0].camera, error)
            else:  # one camera's image must not cost the others theirs
                for each in taken:
                    self._segment([each], options, started)
            return
        segmented = time.perf_counter()
        for each, instances in zip(taken, results, strict=True):
            try:
                result = self._publish(each, instances, model, options, started)
            except Exception as error:
                self._lose(each.camera, error)
                continue
            published, received, age = time.perf_counter(), each.frame.received, each.moment.age
            each.camera.failure = ""
            each.camera.statistics.process(
                {
                    "wait": started - received,
                    "convert": converted - started,
                    "segment": segmented - converted,
                    "publish": published - segmented,
                    "total": published - received,
                    "age": age + published - received,
                }
            )
            if each.camera.outputs.wanted(urgent=False):
                self._drawing.put(each.camera.name, result)

    def _publish(
        self, taken: Taken, instances: Instances, model: Model, options: dict[str, Any], started: float
    ) -> Result:
        camera, header = taken.camera, taken.frame.message.header
        instances = camera.region.place(instances, (taken.pixels.shape[0], taken.pixels.shape[1]))
        if options["tracking"]:
            camera.tracker.memory, camera.tracker.least_iou = options["tracking.memory"], options["tracking.least_iou"]
            instances = camera.tracker.update(instances, taken.moment.time, taken.pixels)
        result = Result(
            header,
            taken.pixels,
            taken.color_order,
            selection(options).apply(instances),
            model,
            options,
            started,
            taken.frame.received - taken.moment.age if taken.moment.stamped else None,
        )
        camera.outputs.publish(result, urgent=True)
        return result

    def _draw(self, results: list[tuple[str, Result]]) -> None:
        for name, result in results:
            camera, rate = self._cameras[name], result.options["overlay.max_rate"]
            drawn = not camera.drawing_rate.exceeded(time.perf_counter(), rate)
            camera.outputs.publish(result, urgent=False, drawn=drawn, before=self._patience())

    def _patience(self) -> Callable[[], bool]:
        """Waits for the frame that is worked on, in all calls together `_REST` at most: what robots act on comes first.

        A lower priority of this thread would not do: where it held the interpreter's lock and waited for a core, the
        frame would wait for the lock.
        """
        end = time.perf_counter() + (_REST if self._work < _REST else 0.0)
        return lambda: self._segmenting.rest(end - time.perf_counter())

    def _tell_levels(self, options: dict[str, Any]) -> None:
        """Publish `~/label_info`, whose threshold follows the model and the parameters."""
        model = self._slot.model
        if model is not None:
            info = model.segmenter.info
            self._level_names.tell(min(selection(options).thresholds(info.score_thresholds if info else None)))

    def _lose(self, camera: Camera, error: Exception) -> None:
        """Count a frame as lost."""
        camera.statistics.drop("failed")
        what = f"segmentation of camera {camera.name} failed" if camera.name else "segmentation failed"
        if self._node.context.ok():  # else the node was shut down while this frame was being segmented
            camera.failure = self._node.notices.fail(what, error)

    def _complain(self, what: str, error: Exception) -> None:
        if self._node.context.ok():
            self._node.notices.fail(what, error)


def read_pixels(message: AnyImage, pixel_range: PixelRange | None = None) -> tuple[np.ndarray, str]:
    """Pixels and colour order of a message; InputError where it cannot be used."""
    nanoseconds = message.header.stamp.nanosec
    if nanoseconds >= 1_000_000_000:
        raise InputError(f"the stamp holds {nanoseconds} nanoseconds, a second or more; fix the camera driver")
    read = compressed_to_array if isinstance(message, CompressedImage | SentCompressedImage) else image_to_array
    return read(message, pixel_range)
