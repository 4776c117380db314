"""Things in space as vision_msgs, where it is installed; else `INSTALLED` is False."""

from __future__ import annotations

from typing import Any

from geometry_msgs.msg import Vector3

from hassod_ros.nodes.objects_messages import Located

try:
    from vision_msgs.msg import Detection3D, Detection3DArray, ObjectHypothesisWithPose
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True


def detection_3d_array(result: Located) -> Any:
    """The vision_msgs/Detection3DArray of a result: boxes, ids and levels; the class is the number of the level."""
    objects = result.scene.objects
    message = Detection3DArray(header=result.header)
    for i in result.published.tolist():
        found = ObjectHypothesisWithPose()
        found.hypothesis.class_id = str(int(objects.levels[i]))
        found.hypothesis.score = float(result.instances.scores[objects.index[i]])
        found.pose.pose = result.poses[i]
        detection = Detection3D(header=result.header, results=[found], id=str(result.ids[i]))
        detection.bbox.center = result.poses[i]
        detection.bbox.size = Vector3(**dict(zip("xyz", objects.sizes[i].tolist(), strict=True)))
        message.detections.append(detection)
    return message
