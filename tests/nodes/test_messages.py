import subprocess

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from ament_index_python.packages import get_package_prefix
from builtin_interfaces.msg import Time
from rclpy.serialization import deserialize_message, serialize_message
from std_msgs.msg import Header

from hassod_msgs.msg import Instance, InstanceArray
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.nodes.instance_bytes import instance_bytes
from hassod_ros.nodes.messages import MASK_ENCODINGS, instance_array, mask_of

READER = """
#include <cstdio>
#include <fstream>
#include <hassod_msgs/masks.hpp>
#include <hassod_msgs/msg/instance.hpp>

// Reads what the test wrote: for each instance its numbers, each array with its length in front.
template <typename Array> void read(std::ifstream & in, Array & values)
{
  std::size_t count;
  in >> count;
  values.resize(count);
  for (auto & value : values) { unsigned long number; in >> number; value = number; }
}

int main(int, char ** files)
{
  std::ifstream in(files[1]);
  unsigned long x, y, width, height, encoding;
  while (in >> x >> y >> width >> height >> encoding) {
    hassod_msgs::msg::Instance found;
    found.roi.x_offset = x; found.roi.y_offset = y; found.roi.width = width; found.roi.height = height;
    found.mask_encoding = encoding;
    found.mask.width = width; found.mask.height = height; found.mask.step = width;
    read(in, found.mask.data); read(in, found.runs); read(in, found.outlines); read(in, found.outline_ends);
    try {
      for (auto pixel : hassod_msgs::decode_mask(found).pixels) std::putchar(pixel ? '1' : '0');
      std::putchar('\\n');
    } catch (const std::invalid_argument & error) {
      std::puts(error.what());
    }
  }
}
"""


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
    pixels = found.to_label_map(0)
    assert np.unique(pixels[:2]).tolist() == [7]
    assert not pixels[2:].any()


@pytest.fixture
def instances():
    y, x = np.ogrid[:60, :90]
    masks = np.array(
        [
            (np.hypot(y - 30, x - 30) < 25) & (np.hypot(y - 30, x - 30) > 9),
            (x > 70) & (x + y < 120),
            (x == 0) & (y == 59),
            np.random.default_rng(0).random((60, 90)) < 0.3,
        ]
    )
    return Instances.from_dense(masks, image_size=(60, 90), scores=np.array([0.9, 0.8, 0.7, 0.6], np.float32))


def sent(instances: Instances, mask_encoding: str) -> InstanceArray:
    header = Header(frame_id="here")
    message = instance_array(instances, header, model_name="m", model_sha256="", mask_encoding=mask_encoding)
    return deserialize_message(serialize_message(message), InstanceArray)


@pytest.mark.parametrize("mask_encoding", MASK_ENCODINGS)
def test_masks_survive_the_way_through_a_message(instances, mask_encoding):
    message = sent(instances, mask_encoding)
    assert [found.mask_encoding for found in message.instances] == [MASK_ENCODINGS[mask_encoding]] * 4
    for found, mask in zip(message.instances, instances.masks, strict=True):
        read = mask_of(found)
        assert read.dtype == np.uint8
        if mask_encoding == "polygon":
            assert (read & mask).sum() >= (0.9 if found.id < 4 else 0.8) * (read | mask).sum()  # the last one is noise
        else:
            np.testing.assert_array_equal(read, mask)
        filled = {"crop": len(found.mask.data), "rle": len(found.runs), "polygon": len(found.outlines)}
        assert [name for name, size in filled.items() if size] == [mask_encoding]


@pytest.mark.parametrize("mask_encoding", MASK_ENCODINGS)
@pytest.mark.parametrize("name", ["", "a", "cam", "left", "camera_optical"])  # every length that is padded differently
def test_bytes_are_what_the_middleware_would_have_written(instances, mask_encoding, name):
    tracked = replace(
        instances,
        ids=np.array([70_000, 1, 3, 9], np.uint32),
        levels=np.array([0, 1, 2, 0]),
        parents=np.array([-1, 0, 1, -1]),
        scene=np.array([False, False, False, True]),
    )
    for found in (instances, tracked, Instances.empty((60, 90))):
        header = Header(stamp=Time(sec=-5, nanosec=999_999_999), frame_id=name)
        given = {"model_name": f"{name}.onnx", "model_sha256": "ab" * 32, "mask_encoding": mask_encoding}
        written = instance_bytes(found, header, **given)
        expected = instance_array(found, header, **given)
        assert len(written) == len(serialize_message(expected))  # not its bytes: what is in gaps is left open
        assert deserialize_message(written, InstanceArray) == expected


def test_an_image_without_instances_has_none_in_any_encoding():
    empty = Instances(image_size=(4, 5), boxes=np.empty((0, 4)), masks=[])
    for mask_encoding in MASK_ENCODINGS:
        assert not sent(empty, mask_encoding).instances


def damaged(found: Instance) -> Instance:
    if found.mask_encoding == Instance.CROP:
        del found.mask.data[-1]
    elif found.mask_encoding == Instance.RLE:
        found.runs[-1] += 1
    else:
        found.outline_ends[-1] += 2
    return found


@pytest.mark.parametrize("mask_encoding", MASK_ENCODINGS)
def test_a_damaged_mask_is_refused_with_a_sentence(instances, mask_encoding):
    with pytest.raises(InputError, match="the mask of instance 1 is damaged"):
        mask_of(damaged(sent(instances, mask_encoding).instances[0]))


def test_an_encoding_of_later_versions_is_named(instances):
    found = sent(instances, "crop").instances[0]
    found.mask_encoding = 9
    with pytest.raises(InputError, match="unknown encoding; update hassod_msgs"):
        mask_of(found)


def test_the_cpp_header_reads_the_same_masks(instances, tmp_path):
    compiler = shutil.which("c++")
    if compiler is None:
        pytest.skip("there is no C++ compiler")
    prefixes = {Path(get_package_prefix(name)) for name in ("hassod_msgs", "sensor_msgs")}
    folders = [folder for prefix in prefixes for folder in (prefix / "include").iterdir() if folder.is_dir()]
    if not any((folder / "hassod_msgs/masks.hpp").is_file() for folder in folders):
        pytest.fail("masks.hpp is not installed beside the generated headers; run scripts/setup_env.sh")
    (tmp_path / "read.cpp").write_text(READER)
    program = tmp_path / "read"
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Werror", *(f"-isystem{folder}" for folder in folders)]
    subprocess.run([compiler, *flags, str(tmp_path / "read.cpp"), "-o", str(program)], check=True, env=os.environ)

    messages = [found for encoding in MASK_ENCODINGS for found in sent(instances, encoding).instances]
    broken = [damaged(sent(instances, encoding).instances[0]) for encoding in MASK_ENCODINGS]
    with open(tmp_path / "instances.txt", "w", encoding="ascii") as file:
        for found in (*messages, *broken):
            roi = found.roi
            print(roi.x_offset, roi.y_offset, roi.width, roi.height, found.mask_encoding, file=file)
            for values in (found.mask.data, found.runs, found.outlines, found.outline_ends):
                print(len(values), *values, file=file)
    printed = subprocess.run([program, tmp_path / "instances.txt"], check=True, text=True, capture_output=True).stdout
    *lines, image, runs, ends = printed.splitlines()
    for line, found in zip(lines, messages, strict=True):
        assert line == "".join(map(str, mask_of(found).ravel().tolist()))
    assert image == "the mask image does not fit the instance's roi"
    assert runs == "the runs are longer than the instance's roi"
    assert ends == "outline_ends does not fit the outlines"
