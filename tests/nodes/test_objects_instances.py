import contextlib

import numpy as np
import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from hassod_msgs.msg import InstanceArray
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.nodes.depth_messages import instances_of
from hassod_ros.nodes.messages import MASK_ENCODINGS, instance_array
from hassod_ros.nodes.objects_instances import ReadArray, read_instance_array


def message(encoding="crop", n=5, frame="camera", model="x") -> InstanceArray:
    """Of odd sizes, so that everything is padded somewhere."""
    rng = np.random.default_rng(n)
    masks = np.zeros((n, 37, 53), bool)
    for i, mask in enumerate(masks):
        y, x = rng.integers(0, 20, 2)
        mask[y : y + 2 * i + 3, x : x + 3 * i + 5] = True
        mask[y + 1, x + 1] = i % 2  # a hole
    found = Instances.from_dense(
        masks,
        image_size=(37, 53),
        scores=rng.random(n, np.float32),
        levels=np.minimum(np.arange(n), 2),
        parents=np.array([-1, 0, 1, 1, -1][:n]),
        ids=np.arange(n) + 70_000,
        scene=np.arange(n) == 4,
    )
    header = Header(frame_id=frame)
    header.stamp.sec, header.stamp.nanosec = -3, 999_999_999
    return instance_array(found, header, model_name=model, model_sha256="ab" * 3, mask_encoding=encoding)


@pytest.mark.parametrize("encoding", MASK_ENCODINGS)
@pytest.mark.parametrize(("n", "frame", "model"), [(5, "camera", "x"), (3, "", ""), (1, "abcde", "name"), (0, "c", "")])
def test_it_is_what_rclpy_reads(encoding, n, frame, model):
    data = serialize_message(message(encoding, n, frame, model))
    read, known = read_instance_array(data), deserialize_message(data, InstanceArray)
    assert isinstance(read, ReadArray)
    assert (read.header, read.height, read.width) == (known.header, known.height, known.width)
    ours, theirs = instances_of(read), instances_of(known)
    for name in ("boxes", "scores", "levels", "parents", "ids", "scene"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    np.testing.assert_array_equal(ours.dense(), theirs.dense())


def test_what_ends_too_early_or_is_something_else_is_refused():
    data = serialize_message(message())
    for end in (*range(4, 80, 3), len(data) // 2, len(data) - 1):
        with pytest.raises(InputError, match="the instance array is damaged"):
            read_instance_array(data[:end])
    rng = np.random.default_rng(0)
    for _ in range(300):  # nothing but an InputError, and no endless loop
        broken = bytearray(data)
        broken[int(rng.integers(4, len(data)))] ^= 1 << int(rng.integers(8))
        with contextlib.suppress(InputError):
            instances_of(read_instance_array(bytes(broken)))
