import numpy as np
import pytest

pytest.importorskip("sensor_msgs.msg", reason="ROS 2 is missing: source scripts/env.sh")

from std_msgs.msg import Header

from hassod_ros.instances import Instances
from hassod_ros.nodes.messages import instance_array, label_image


def test_level_parent_and_scene_reach_the_message_and_scene_stays_off_the_label_image():
    masks = np.zeros((3, 4, 6), bool)
    masks[0] = True
    masks[1, :2], masks[2, 0, :3] = True, True
    found = Instances.from_dense(
        masks, image_size=(4, 6), levels=[0, 0, 1], parents=[-1, -1, 1], ids=[9, 7, 5], scene=[True, False, False]
    )
    message = instance_array(found, Header(frame_id="camera"), model_name="m", model_sha256="")
    assert [(each.id, each.parent_id, each.level, each.scene) for each in message.instances] == [
        (9, 0, 0, True),
        (7, 0, 0, False),
        (5, 7, 1, False),
    ]
    pixels = np.frombuffer(label_image(found, 0, Header()).data, np.uint16).reshape(4, 6)
    assert np.unique(pixels[:2]).tolist() == [7]
    assert not pixels[2:].any()
