"""Instances to messages."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image, RegionOfInterest
from std_msgs.msg import Header

from hassod_msgs.msg import Instance, InstanceArray
from hassod_ros.instances import Instances, Level
from hassod_ros.nodes.convert import array_to_image


def instance_array(instances: Instances, header: Header, *, model_name: str, model_sha256: str) -> InstanceArray:
    """The hassod_msgs/InstanceArray of one image.

    Untracked instances get their place in the array, counted from 1, as id.

    Args:
        instances: Of the image that `header` belongs to; all tracked (ids > 0) or none.
        header: Of the input image, taken over as it is.
        model_name: Name to be shown.
        model_sha256: Lower-case hex, or "" where the model has no file.

    """
    ids = np.where(instances.ids > 0, instances.ids, np.arange(1, len(instances) + 1, dtype=np.uint32))
    parent_ids = np.where(instances.parents >= 0, ids[instances.parents], 0) if len(instances) else ids
    message = InstanceArray(header=header, model_name=model_name, model_sha256=model_sha256)
    message.height, message.width = instances.image_size
    message.instances = [
        Instance(
            id=instance_id,
            parent_id=parent_id,
            level=level,
            scene=scene,
            score=score,
            roi=RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0),
            mask=array_to_image(mask * np.uint8(255), "mono8", header),
        )
        for instance_id, parent_id, level, scene, score, (x0, y0, x1, y1), mask in zip(
            ids.tolist(),
            parent_ids.tolist(),
            instances.levels.tolist(),
            instances.scene.tolist(),
            instances.scores.tolist(),
            instances.regions.tolist(),
            instances.masks,
            strict=True,
        )
    ]
    return message


def label_image(instances: Instances, level: Level, header: Header) -> Image:
    """16UC1 image of one level without scene: 0 = none, else (id - 1) % 65535 + 1 of the instance at the pixel."""
    return array_to_image(instances.to_label_map(level), "16UC1", header)
