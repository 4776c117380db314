"""A running objects_3d node with everything that it subscribes to, fed with rendered scenes."""

import time

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CameraInfo, Image
from std_msgs.msg import Header

from benchmarks.rendered_scenes import CALIBRATION, Solid, look_at, render
from hassod_msgs.msg import Grasp3D, Grasp3DArray, InstanceArray, Object3DArray
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.messages import instance_array

NODE = "objects_3d_node"
BOX = Solid((0.12, 0.07, 0.09), (0.05, 0.02, 0.0), 0.4)
CAN = Solid((0.07, 0.07, 0.1), (-0.15, -0.05, 0.0), 0.0, True)
EYE = (0.45, -0.5, 0.65)
SCENE = render([BOX, CAN], look_at(EYE))
UNITS = {"16UC1": (np.uint16, 1000), "mono16": (np.uint16, 1000), "32FC1": (np.float32, 1), "64FC1": (np.float64, 1)}


def header(nanoseconds: int, frame: str = "color") -> Header:
    message = Header(frame_id=frame)
    message.stamp.sec, message.stamp.nanosec = divmod(nanoseconds, 1_000_000_000)
    return message


def depth_image(depth: np.ndarray, head: Header, encoding="16UC1", *, big_endian=False, padding=0, unit=None) -> Image:
    dtype, default = UNITS[encoding]
    pixels = np.round(depth * default) if dtype is np.uint16 else depth * default
    pixels = (pixels if unit is None else depth / unit).astype(dtype)
    rows = pixels.astype(pixels.dtype.newbyteorder(">" if big_endian else "<")).view(np.uint8).reshape(len(pixels), -1)
    rows = np.pad(rows, ((0, 0), (0, padding)), constant_values=7)
    message = Image(header=head, height=depth.shape[0], width=depth.shape[1], encoding=encoding)
    message.is_bigendian, message.step = int(big_endian), rows.shape[1]
    message.data.frombytes(rows.tobytes())
    return message


def camera_info(head: Header, camera=CALIBRATION) -> CameraInfo:
    (fx, fy), (cx, cy) = camera.focal, camera.center
    message = CameraInfo(header=head, height=camera.size[0], width=camera.size[1])
    message.k = [fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0]
    message.p = [fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0]
    message.d, message.distortion_model = list(camera.distortion), camera.model
    return message


class Bench:
    """Publishers around a running node, connected and seen working."""

    def __init__(self, ros, **parameters):
        self.ros = ros
        self.child = ros.start("hassod_ros.nodes.objects_3d_node", autostart=True, diagnostics_period=0.2, **parameters)
        self.objects = ros.collect(Object3DArray, f"/{NODE}/objects", 50)
        self.grasps = []
        self.diagnostics = ros.collect(DiagnosticArray, "/diagnostics", 50)
        create = ros.node.create_publisher
        self.instances = create(InstanceArray, "/instances", qos_profile_sensor_data)
        self.depth = create(Image, "/depth", qos_profile_sensor_data)
        self.depth_info = create(CameraInfo, "/depth/camera_info", qos_profile_sensor_data)
        self.info = create(CameraInfo, "/camera_info", qos_profile_sensor_data)
        self.image = create(Image, "/image", qos_profile_sensor_data)
        self.time = 1_000_000_000_000
        inputs = (self.instances, self.depth, self.depth_info, self.info, self.image)
        ros.until(lambda: all(publisher.get_subscription_count() for publisher in inputs))
        end = time.monotonic() + 60
        while not self.objects:
            assert time.monotonic() < end, "the node never answered"
            self.publish()
            for _ in range(20):
                ros.executor.spin_once(timeout_sec=0.01)

    def publish(
        self,
        scene=SCENE,
        *,
        depth=None,
        instances=None,
        camera=CALIBRATION,
        lens=None,
        frame="color",
        depth_frame=None,
        skew=0,
        info=None,
        depth_info=None,
        colors=None,
        **layout,
    ) -> Header:
        """Send one image's worth of everything; returns the header of the instances."""
        self.time += 100_000_000
        head = header(self.time, frame)
        depth_head = header(self.time + skew, depth_frame or frame)
        self.info.publish(info or camera_info(head, camera))
        self.depth_info.publish(depth_info or camera_info(depth_head, lens or camera))
        if colors is not None:
            self.image.publish(array_to_image(colors, "rgb8", head))
        if depth is not False:
            pixels = scene.depth if depth is None else depth
            self.depth.publish(depth_image(pixels, depth_head, **layout))
        found = scene.instances(table=True) if instances is None else instances
        self.instances.publish(instance_array(found, head, model_name="x", model_sha256=""))
        return head

    def send(self, *arguments, **options) -> Object3DArray:
        """Publish and wait for the answer."""
        head = self.publish(*arguments, **options)
        self.ros.until(lambda: self.objects and self.objects[-1].header.stamp == head.stamp)
        return self.objects[-1]

    def watch_grasps(self) -> None:
        """Subscribe to the grasps, which are made for subscribers alone."""
        self.grasps = self.ros.collect(Grasp3DArray, f"/{NODE}/grasps", 50)
        self.ros.until(lambda: self.send() and self.grasps)

    def grasps_of(self, answer: Object3DArray) -> list[Grasp3D]:
        """The grasps of the same image; they come after the objects."""
        self.ros.until(lambda: self.grasps and self.grasps[-1].header == answer.header)
        return self.grasps[-1].grasps

    def status(self) -> dict:
        """The node's next diagnostics: level, message and values."""
        before = len(self.diagnostics)
        self.ros.until(lambda: len(self.diagnostics) > before)
        status = self.diagnostics[-1].status[0]
        return {value.key: value.value for value in status.values} | {"level": status.level, "message": status.message}

    def refusal(self, cause: str = "dropped.malformed", **options) -> str:
        """Publish what must not be placed; returns the message of the diagnostics once it is counted."""
        before = int(self.status().get(cause, 0))
        self.publish(**options)
        self.ros.until(lambda: int(self.status().get(cause, 0)) > before)
        return self.status()["message"]


def matrix(pose) -> np.ndarray:
    """(4, 4) of a geometry_msgs/Pose."""
    from hassod_ros.geometry.transforms import matrix as make

    place, turn = pose.position, pose.orientation
    return make((place.x, place.y, place.z), (turn.x, turn.y, turn.z, turn.w))


def check(answer: Object3DArray, scene=SCENE, world=None, away=0.005) -> None:
    """The box and the can of the scene are where they are and as large as they are."""
    found = [each for each in answer.objects if not each.is_support]
    assert len(found) == len(scene.solids)
    for i, each in enumerate(found):
        truth = scene.truth(i) if world is None else world @ scene.solids[i].pose
        pose = matrix(each.pose)
        assert np.linalg.norm(pose[:3, 3] - truth[:3, 3]) < away, (i, pose, truth)
        size = np.array([each.size.x, each.size.y, each.size.z])
        np.testing.assert_allclose(size, scene.solids[i].size, atol=away)
        assert pose[:3, 2] @ truth[:3, 2] > 0.9995
