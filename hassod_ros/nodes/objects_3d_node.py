"""objects_3d_node: instances and depth in; positions, oriented boxes, clouds and grasps out."""

from __future__ import annotations

import sys
import threading
import time
from collections import deque
from functools import partial
from typing import Any

import cv2
import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.clock import Clock, ClockType
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from std_msgs.msg import Header
from visualization_msgs.msg import MarkerArray

from hassod_msgs.msg import Grasp3DArray, InstanceArray, Object3DArray
from hassod_msgs.srv import GetCloud, Select
from hassod_ros.errors import InputError
from hassod_ros.geometry.cloud import CloudMaker
from hassod_ros.geometry.objects import locate
from hassod_ros.nodes import moveit, transform_listener, vision_3d
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.depth_messages import instances_of, nanoseconds
from hassod_ros.nodes.diagnostics import frame_status
from hassod_ros.nodes.managed_node import ManagedNode
from hassod_ros.nodes.objects_3d_inputs import Arrived, Inputs, MissingError
from hassod_ros.nodes.objects_3d_parameters import PARAMETERS, object_options
from hassod_ros.nodes.objects_bytes import object_bytes
from hassod_ros.nodes.objects_instances import read_instance_array
from hassod_ros.nodes.objects_markers import Markers
from hassod_ros.nodes.objects_messages import Located, cloud, grasp_array, object_cloud
from hassod_ros.nodes.outputs import QOS_OVERRIDES, Output, Outputs
from hassod_ros.nodes.run import reliability, run
from hassod_ros.nodes.transform_listener import TransformListener
from hassod_ros.runtime.stream import FrameStatistics, Worker

TRANSFORM_WAIT = 0.1  # s for a transform at the stamp
_WAITING = 4  # instance arrays that may wait for their turn: a burst is worked off, and results stay fresh
_GIVE_WAY = 0.05  # s that grasps wait for the next objects, of each thing
_EXPIRY = 0.2  # s between two looks at what has left the planning scene


class Objects3DNode(ManagedNode):
    """Lifecycle node that places instances in space.

    The thread that spins only receives; one thread pairs instances with depth, places them and publishes objects, and
    one makes grasps, markers and clouds of the newest result.

    Args:
        node_options: Passed on to rclpy, such as `context`.

    Raises:
        InputError: A parameter is wrong.

    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("objects_3d_node", PARAMETERS, **node_options)
        self._statistics = FrameStatistics()
        self._inputs: Inputs | None = None
        self._transforms: TransformListener | None = None
        self._waiting: deque[Arrived] = deque()
        self._worker: Worker[None] | None = None  # works them off; what is put into it only wakes it
        self._second: Worker[Located] | None = None
        self._outputs: Outputs[Located] | None = None
        self._selected: Any = None
        self._expiry: Any = None
        self._latest: Located | Arrived | None = None
        self._making = threading.Lock()
        self._idle = threading.Event()  # nothing urgent is being made
        self._idle.set()
        self._markers, self._boxes, self._make_cloud = Markers(), moveit.PlanningSceneBoxes(), CloudMaker()
        self._heard = 0.0
        self._trouble = self._second_trouble = ""
        for name, installed, lost in (
            ("tf2_msgs", transform_listener.INSTALLED, "no transforms: depth of another frame is refused"),
            ("vision_msgs", vision_3d.INSTALLED, "no ~/detections"),
            ("moveit_msgs", moveit.INSTALLED, "no ~/planning_scene"),
        ):
            if not installed:
                self.get_logger().info(f"{name} is not installed: {lost}")
        for kind, name, answer in (
            (GetCloud, "~/get_cloud", self._on_get_cloud),
            (Select, "~/select", self._on_select),
        ):
            self.create_service(kind, name, answer, callback_group=MutuallyExclusiveCallbackGroup())
        self.report()

    # Lifecycle

    def load(self, options: dict[str, Any]) -> None:
        """Create the publishers."""
        self._statistics = FrameStatistics()
        self._outputs = Outputs(self, self._make_table(), "", _qos(options["output_reliability"]))
        latched = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._selected = self.create_publisher(Image, "~/selected_mask", latched)

    def start(self, options: dict[str, Any]) -> None:
        """Subscribe and start working."""
        self._heard = time.perf_counter()
        self._waiting.clear()
        self._transforms = TransformListener(self, self.notices)
        self._second = Worker("grasps", self._handle_second, self._second_failed)
        self._worker = Worker("objects_3d", self._handle, self._failed)
        self._inputs = Inputs()
        qos = _qos(options["input_reliability"])
        for kind, topic, take, raw in (  # of what has come at the same time the first is taken first
            (CameraInfo, "camera_info", self._inputs.image.take_info, False),
            (CameraInfo, "depth/camera_info", self._inputs.depth.take_info, False),
            (Image, "depth", self._inputs.depth.take, False),
            (Image, "image", self._take_image, False),
            (InstanceArray, "instances", self._receive, True),
        ):
            self._inputs.subscriptions.append(
                self.create_subscription(kind, topic, take, qos, raw=raw, qos_overriding_options=QOS_OVERRIDES)
            )
        if moveit.INSTALLED:
            steady = Clock(clock_type=ClockType.STEADY_TIME)
            self._expiry = self.create_timer(_EXPIRY, self._expire, clock=steady)

    def stop(self) -> None:
        """Stop receiving; what is being worked on is finished first."""
        if self._expiry is not None:
            self.destroy_timer(self._expiry)
            self._expiry = None
        if self._inputs is not None:
            for subscription in self._inputs.subscriptions:
                self.destroy_subscription(subscription)
            self._inputs.close()
        if self._worker is not None:
            self._worker.close()
            self._worker = None
        if self._second is not None:
            self._second.close()
            self._second = None
        if self._transforms is not None:
            self._transforms.destroy()
            self._transforms = None
        self._inputs, self._latest = None, None
        if self._outputs is not None and self.context.ok():
            self._outputs.send("markers", self._markers.clear())

    def release(self) -> None:
        """Give the publishers back."""
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        if self._selected is not None:
            self.destroy_publisher(self._selected)
            self._selected = None

    def _make_table(self) -> list[Output[Located]]:
        table: list[Output[Located]] = [Output("objects", Object3DArray, object_bytes)]
        if vision_3d.INSTALLED:
            table.append(Output("detections", vision_3d.Detection3DArray, vision_3d.detection_3d_array))  # type: ignore[attr-defined]
        if moveit.INSTALLED:
            table.append(Output("planning_scene", moveit.PlanningScene, self._planning_scene))  # type: ignore[attr-defined]
        table.append(Output("grasps", Grasp3DArray, grasp_array, urgent=False))
        table.append(Output("markers", MarkerArray, self._markers.build, urgent=False))
        table.append(Output("cloud", PointCloud2, partial(cloud, maker=self._make_cloud), urgent=False))
        return table

    def _planning_scene(self, result: Located) -> Any:
        return self._boxes.build(result, time.monotonic())

    def _expire(self) -> None:
        diff = self._boxes.expire(time.monotonic(), self.get_parameter("planning_scene.ttl").value)
        if diff is not None and self._outputs is not None:
            self._outputs.send("planning_scene", diff)

    # Work

    def _receive(self, data: bytes) -> None:
        self._heard = time.perf_counter()
        self._statistics.receive()
        worker = self._worker
        if worker is None:
            return
        self._waiting.append(Arrived(data, self._heard))
        if len(self._waiting) > _WAITING:
            self._waiting.popleft()
            self._statistics.drop("superseded")
        worker.put("", None)

    def _take_image(self, message: Image) -> None:
        """Colours are for clouds only."""
        if self._inputs is not None and self._outputs is not None and self._outputs.watched("cloud"):
            self._inputs.image.take(message)

    def _failed(self, error: Exception) -> None:
        if self.context.ok():
            self._trouble = self.notices.fail("the last instances could not be placed", error)
            self._statistics.drop("failed")

    def _handle(self, _: list[tuple[str, None]]) -> None:
        """The array that has waited longest, so that results come in the order of their images."""
        self._idle.clear()
        try:
            if self._waiting:
                self._place(self._waiting.popleft())
        finally:
            self._idle.set()
            if self._waiting and self._worker is not None:
                self._worker.put("", None)

    def _place(self, arrived: Arrived) -> None:
        outputs = self._outputs
        if outputs is None:
            return
        self._latest = arrived
        if not outputs.wanted():
            self._statistics.drop("unwatched")
            return
        try:
            result = self._locate(arrived)
        except MissingError as error:
            self._trouble = ""
            self.notices.warn(str(error))
            self._statistics.drop("no_depth")
            return
        except InputError as error:
            self._trouble = self.notices.fail("these instances and this depth do not fit together", error)
            self._statistics.drop("malformed")
            return
        self._trouble = ""
        located = time.perf_counter()
        outputs.publish(result, urgent=True)
        published = time.perf_counter()
        if self._second is not None and outputs.wanted(urgent=False):
            self._second.put("", result)
        self._statistics.process(
            {
                "wait": result.started - arrived.received,
                "locate": located - result.started,
                "publish": published - located,
                "total": published - arrived.received,
            }
        )

    def _handle_second(self, items: list[tuple[str, Located]]) -> None:
        """The newest result only: grasps may take longer than an image lasts."""
        for _, result in items:
            if self._outputs is not None:
                self._outputs.publish(result, urgent=False)
        self._second_trouble = ""

    def _second_failed(self, error: Exception) -> None:
        if self.context.ok():
            self._second_trouble = self.notices.fail("grasps, markers and clouds could not be made", error)

    def _locate(self, arrived: Arrived) -> Located:
        """Pair an array with its depth and place it; remembered for the services."""
        inputs, transforms = self._inputs, self._transforms
        if inputs is None or transforms is None:
            raise InputError("the node is not active; activate it")
        with self._making:
            message = read_instance_array(arrived.data)
            options, header = self.options(), message.header
            if isinstance(self._latest, Located) and self._latest.camera_header == header:
                return self._latest
            view = inputs.view(message, options, transforms, self.notices)
            started = time.perf_counter()
            instances = instances_of(message)
            if (doubtful := instances.scores < options["least_score"]).any():
                instances = instances.select(~doubtful)
            scene = locate(instances, view.depth, view.rays, object_options(options))
            target, transform = self._target(header, options["target_frame"], transforms)
            result = Located(
                header=Header(stamp=header.stamp, frame_id=target),
                camera_header=header,
                transform=transform,
                instances=instances,
                scene=scene,
                colors=view.colors,
                options=options,
                started=started,
                give_way=partial(self._idle.wait, _GIVE_WAY),
            )
            self._latest = result
            return result

    def _target(self, header: Header, target: str, transforms: TransformListener) -> tuple[str, np.ndarray]:
        """The frame to publish in and the way there; the camera's own where that is not known."""
        if target:
            try:
                stamp = nanoseconds(header.stamp)
                return target, transforms.find(target, header.frame_id, stamp, TRANSFORM_WAIT)
            except InputError as error:
                self.notices.warn(f"published in {header.frame_id} instead of target_frame {target}: {error}")
        return header.frame_id, np.eye(4)

    # Services

    def _find(self, wanted: int) -> tuple[Located, int]:
        latest = self._latest
        if latest is None:
            raise InputError("no instances have come yet; check that the node is active and `instances` is connected")
        result = latest if isinstance(latest, Located) else self._locate(latest)
        places = np.flatnonzero(result.ids == wanted)
        if not len(places):
            known = ", ".join(map(str, result.ids.tolist())) or "none"
            raise InputError(f"there is no object {wanted} in the newest image; it has {known}")
        return result, int(places[0])

    def _on_get_cloud(self, request: GetCloud.Request, response: GetCloud.Response) -> GetCloud.Response:
        try:
            response.cloud = object_cloud(*self._find(request.id))
            response.success, response.message = True, f"{response.cloud.width} points"
        except InputError as error:
            response.message = str(error)
        return response

    def _on_select(self, request: Select.Request, response: Select.Response) -> Select.Response:
        try:
            result, i = self._find(request.id)
        except InputError as error:
            response.message = str(error)
            return response
        index = int(result.scene.objects.index[i])
        mask = np.zeros(result.instances.image_size, np.uint8)
        x0, y0, x1, y1 = result.instances.regions[index].tolist()
        mask[y0:y1, x0:x1] = result.instances.masks[index] * np.uint8(255)
        response.mask = array_to_image(mask, "mono8", result.camera_header)
        response.success, response.message = True, f"object {request.id} is selected"
        if self._selected is not None:
            self._selected.publish(response.mask)
        return response

    # Health

    def statuses(self) -> list[DiagnosticStatus]:
        """One."""
        worker, inputs = self._worker, self._inputs
        silence = time.perf_counter() - self._heard if worker is not None else 0.0
        return [
            frame_status(
                f"{self.get_fully_qualified_name()}: objects",
                self._statistics,
                self.options(),
                failure=self.failure or self._trouble or self._second_trouble,
                idle="" if worker is not None else "not active",
                judged={"silence": silence, "no_result": worker.overdue() if worker is not None else 0.0},
                text={"registration": inputs.how if inputs is not None else ""},
                figures={
                    "since_last_instances_s": silence,
                    "skew_ms": inputs.skew * 1e3 if inputs is not None else 0.0,
                },
            )
        ]


def _qos(policy: str) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=reliability(policy))


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    cv2.setNumThreads(1)  # its work is many small steps, on which threads cost more than they save
    return run(Objects3DNode, arguments, about=__doc__, table=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
