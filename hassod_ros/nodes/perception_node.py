"""perception_node: camera images in; wholes, parts and subparts out."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos import HistoryPolicy, QoSProfile
from std_srvs.srv import SetBool

from hassod_msgs.srv import ReloadModel, Segment
from hassod_ros.errors import InputError
from hassod_ros.nodes import vision
from hassod_ros.nodes.camera import Camera, check_names, prefix
from hassod_ros.nodes.camera_status import NodeState, camera_status
from hassod_ros.nodes.frames import FrameLoop, read_pixels
from hassod_ros.nodes.image_bytes import AnyImage
from hassod_ros.nodes.inputs import ImageInput
from hassod_ros.nodes.managed_node import ManagedNode
from hassod_ros.nodes.outputs import OUTPUTS, Outputs, Result, instances_message
from hassod_ros.nodes.parameters import declare, values
from hassod_ros.nodes.perception_parameters import PARAMETERS, backend_options, camera_parameters, selection
from hassod_ros.nodes.run import reliability, run
from hassod_ros.pixel_range import PixelRange
from hassod_ros.runtime.model_slot import Model, ModelSlot
from hassod_ros.runtime.region import Region
from hassod_ros.runtime.segmenter import ImageSegmenter, open_segmenter
from hassod_ros.runtime.told_model import ToldModel

FOLLOW = 0.25  # s between two looks at who subscribes to the results


class PerceptionNode(ManagedNode):
    """Lifecycle node around anything that turns an image into Instances.

    configure loads the model and creates the publishers, activate subscribes and starts the threads; deactivate and
    cleanup undo exactly that. The thread that spins only receives; one thread segments the newest frames, and one draws
    the newest results.

    Args:
        open_model: Makes the segmenter from the parameter `model`. Default: `open_segmenter` with `backend`.
        node_options: Passed on to rclpy, such as `context`.

    Raises:
        InputError: A parameter is wrong.

    """

    def __init__(self, open_model: Callable[[str], ImageSegmenter] | None = None, **node_options: Any) -> None:
        super().__init__("perception_node", PARAMETERS, **node_options)
        for name in check_names(self.get_parameter("cameras").value):
            declare(self, camera_parameters(name))
        roots = [root for root in self.get_parameter("model_roots").value if root]
        if open_model is not None:  # whose names are its own
            self._slot = ModelSlot(open_model, roots, lambda path, report: path)
        else:
            self._slot = ModelSlot(self._open_segmenter, roots)
        self._cameras: list[Camera] = []
        self._frames: FrameLoop | None = None
        self._level_names: vision.LevelNames | None = None
        self._inputs = threading.Lock()  # held while inputs are opened and closed
        self._following: Any = None  # the timer that does so
        self._memory = ToldModel(self.get_fully_qualified_name())
        self._told = ""  # the model that was told in place of the parameter's
        self._enabled = True
        if not vision.INSTALLED:
            self.get_logger().info("vision_msgs is not installed: there is no ~/detections and no ~/label_info")
        self.create_service(SetBool, "~/enable", self._on_enable)
        # Groups of their own: the cameras are served while a model loads or another image is segmented.
        for kind, name, answer in (
            (ReloadModel, "~/reload_model", self._on_reload_model),
            (Segment, "~/segment", self._on_segment),
        ):
            self.create_service(kind, name, answer, callback_group=MutuallyExclusiveCallbackGroup())
        self.report()

    # Lifecycle

    def load(self, options: dict[str, Any]) -> None:
        """Load the model and create the publishers."""
        model = self._load_model(options)
        qos = _qos(options["output_reliability"])
        for name in check_names(options["cameras"]):
            region, mask, values_of_16_bits = values(self, camera_parameters(name)).values()
            looked_at, pixel_range = Region.load(region, mask), PixelRange(*values_of_16_bits)
            self._cameras.append(Camera(name, Outputs(self, OUTPUTS, prefix(name), qos), looked_at, pixel_range))
        self._level_names = vision.LevelNames(self)
        self.get_logger().info(f"model {model.name} is ready")

    def _load_model(self, options: dict[str, Any]) -> Model:
        """The model that was told last, or the parameter's."""
        self._told = ""
        if options["remember_model"]:
            try:
                if told := self._memory.recall(options["model"]):
                    model, _ = self._slot.load(told)
                    self._told = told
                    self.get_logger().info(
                        f"taking {told}, which ~/reload_model was told, instead of {options['model']}; "
                        "call it with the latter to return to it"
                    )
                    return model
            except Exception as error:  # the parameter's model is still there
                self.notices.fail(f"taking {options['model']}, not what ~/reload_model was told", error)
        return self._slot.load(options["model"])[0]

    def start(self, options: dict[str, Any]) -> None:
        """Subscribe and start working."""
        assert self._level_names is not None  # made by load
        self._frames = FrameLoop(self, self._slot, self._cameras, self._level_names)
        for camera in self._cameras:
            camera.input = ImageInput(
                self,
                f"{prefix(camera.name)}image",
                options["image_transport"],
                _qos(options["input_reliability"]),
                partial(self._receive, camera),
            )
            camera.input.open()
            self.get_logger().info(f"images of {camera.title} are expected on {camera.input.describe()}")
        self._following = self.create_timer(FOLLOW, self._follow, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def stop(self) -> None:
        """Stop receiving; the frame that is being segmented is finished first."""
        with self._inputs:
            if self._following is not None:
                self.destroy_timer(self._following)
                self._following = None
            for camera in self._cameras:
                if camera.input is not None:
                    camera.input.close()
                    camera.input = None
            frames, self._frames = self._frames, None
        if frames is not None:
            frames.close()

    def release(self) -> None:
        """Give the model and the publishers back."""
        for camera in self._cameras:
            camera.outputs.destroy()
        self._cameras = []
        if self._level_names is not None:
            self._level_names.destroy()
            self._level_names = None
        self._slot.close()

    def _open_segmenter(self, path: str) -> ImageSegmenter:
        options = self.options()
        return open_segmenter(path, options["backend"], report=self._tell_progress, **backend_options(options))

    def _tell_progress(self, line: str) -> None:
        self._slot.report(line)
        self.get_logger().info(line)

    # Services

    def _on_enable(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        self._enabled = request.data
        response.success, response.message = True, "enabled" if request.data else "disabled: images are dropped"
        return response

    def _on_reload_model(self, request: ReloadModel.Request, response: ReloadModel.Response) -> ReloadModel.Response:
        running = self._slot.model
        if running is None:
            response.message = "the node is not configured; configure it, it then loads the parameter `model`"
            return response
        try:
            if not request.path:
                raise InputError("it is empty; give the path of a model, or default")
            new, old = self._slot.load(request.path)
        except Exception as error:  # whatever is wrong with the file, the running model stays
            response.message = f"kept {running.name}, because {request.path or 'the path'} cannot be used: {error}"
            self.get_logger().error(response.message)
            return response
        response.success, response.message = True, f"running {new.name} instead of {old.name if old else 'none'}"
        self.get_logger().info(response.message)
        self._remember(request.path)
        return response

    def _remember(self, path: str) -> None:
        """Keep what was told for the next time that the node is configured."""
        options = self.options()
        self._told = path if path != options["model"] else ""
        if options["remember_model"]:
            try:
                self._memory.tell(path, options["model"])
            except InputError as error:
                self.notices.fail(f"{path} runs, but will not be remembered", error)

    def _on_segment(self, request: Segment.Request, response: Segment.Response) -> Segment.Response:
        try:
            started, options = time.perf_counter(), self.options()
            message = request.image if request.image.data else request.compressed
            pixels, color_order = read_pixels(message)
            wanted = selection(options)
            (instances,), model = self._slot.segment([(pixels, color_order)], wanted)
            instances = wanted.apply(instances)
            header = message.header
            response.result = instances_message(Result(header, pixels, color_order, instances, model, options, started))
            response.success, response.message = True, f"{len(instances)} instances"
        except Exception as error:
            response.message = str(error)
        return response

    def _receive(self, camera: Camera, message: AnyImage) -> None:
        frames = self._frames
        if self._enabled and frames is not None:
            frames.receive(camera, message)
        else:
            camera.statistics.receive()
            camera.statistics.drop("disabled")

    def _follow(self) -> None:
        """Subscribe to the cameras whose results somebody wants."""
        with self._inputs:
            for camera in self._cameras if self._following is not None else ():
                if camera.input is not None:
                    advice = camera.input.advice
                    camera.input.follow(used=camera.outputs.wanted())
                    if camera.input.advice and camera.input.advice != advice:
                        self.get_logger().warning(camera.input.advice)

    # Health

    def statuses(self) -> list[DiagnosticStatus]:
        """One for each camera."""
        options, name = self.options(), self.get_fully_qualified_name()
        state = NodeState(self._slot, self._frames, self.failure, self._told, self._enabled)
        return [camera_status(name, camera, state, options) for camera in (*self._cameras,) or (None,)]


def _qos(policy: str) -> QoSProfile:
    """Depth 5: what comes while the executor is busy is still counted, and dropped by the mailbox."""
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=5, reliability=reliability(policy))


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    return run(PerceptionNode, arguments, about=__doc__, table=(*PARAMETERS, *camera_parameters("")))


if __name__ == "__main__":
    sys.exit(main())
