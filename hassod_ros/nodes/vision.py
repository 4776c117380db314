"""Instances as vision_msgs, which not every ROS installation has; without it `INSTALLED` is False."""

from __future__ import annotations

from builtin_interfaces.msg import Time
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile
from std_msgs.msg import Header

from hassod_ros.instances import Instances, Level

try:
    from vision_msgs.msg import Detection2D, Detection2DArray, LabelInfo, ObjectHypothesisWithPose, VisionClass
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True


def detection_array(instances: Instances, header: Header) -> Detection2DArray:
    """The vision_msgs/Detection2DArray of one image: rectangles, ids and levels, without masks and parents.

    The class of a detection is the number of its level, which `label_info` names.

    Args:
        instances: Of the image that `header` belongs to.
        header: Of the input image, taken over as it is.

    """
    message = Detection2DArray(header=header)
    for instance_id, level, score, (x0, y0, x1, y1) in zip(
        instances.ids.tolist(),
        instances.levels.tolist(),
        instances.scores.tolist(),
        instances.boxes.tolist(),
        strict=True,
    ):
        result = ObjectHypothesisWithPose()
        result.hypothesis.class_id, result.hypothesis.score = str(level), score
        detection = Detection2D(header=header, results=[result], id=str(instance_id) if instance_id else "")
        detection.bbox.center.position.x, detection.bbox.center.position.y = (x0 + x1) / 2, (y0 + y1) / 2
        detection.bbox.size_x, detection.bbox.size_y = x1 - x0, y1 - y0
        message.detections.append(detection)
    return message


class LevelNames:
    """The publisher of `~/label_info`, which names the levels to whoever comes, whenever.

    Args:
        node: Whose it is.

    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._told = -1.0
        latched = QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self._publisher = node.create_publisher(LabelInfo, "~/label_info", latched) if INSTALLED else None

    def tell(self, threshold: float) -> None:
        """Publish if the least score of anything that is published is another one now."""
        if self._publisher is not None and threshold != self._told:
            self._publisher.publish(label_info(threshold, self._node.get_clock().now().to_msg()))
            self._told = threshold

    def destroy(self) -> None:
        """Take the topic away."""
        if self._publisher is not None:
            self._node.destroy_publisher(self._publisher)
            self._publisher = None


def label_info(threshold: float, stamp: Time) -> LabelInfo:
    """The vision_msgs/LabelInfo that names the levels.

    Args:
        threshold: Least score of anything that is published.
        stamp: When it began to hold.

    """
    classes = [VisionClass(class_id=int(level), class_name=level.name.lower()) for level in Level]
    return LabelInfo(header=Header(stamp=stamp), class_map=classes, threshold=threshold)
