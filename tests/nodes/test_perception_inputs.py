"""What cameras send that is not as it should be, and which part of it is looked at."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import importlib.util

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage

from hassod_msgs.msg import Instance, InstanceArray
from hassod_ros.nodes.messages import mask_of
from tests.nodes.bench import NODE, RECTANGLES, WIDTH, Bench, gray, image, jpeg, scene, set_parameters


def boxes(answer: InstanceArray) -> list[list[int]]:
    """y0 x0 y1 x1 of whole, part and subpart."""
    rois = [found.roi for found in sorted(answer.instances, key=lambda found: found.level)]
    return [[roi.y_offset, roi.x_offset, roi.y_offset + roi.height, roi.x_offset + roi.width] for roi in rois]


def claiming(height: int, width: int) -> bytes:
    """The JPEG of the scene with another size in its header."""
    data = bytes(jpeg().data)
    place = data.index(b"\xff\xc0")
    return data[: place + 5] + height.to_bytes(2, "big") + width.to_bytes(2, "big") + data[place + 9 :]


def test_damaged_compressed_images_are_counted_and_what_comes_after_them_is_answered(ros):
    bench = Bench(ros, image_transport="compressed")
    good = bytes(jpeg().data)
    depth = CompressedImage(format="16UC1; png compressed ", data=cv2.imencode(".png", gray())[1].tobytes())
    damaged = [
        CompressedImage(format="jpeg", data=data)
        for data in (claiming(65_500, 128), claiming(96, 16_000), good[: len(good) // 2] + bytes(9000), good[:50], b"")
    ]
    bench.settle()
    for number, message in enumerate([*damaged, depth], start=1):
        bench.camera.publish(message)
        ros.until(lambda number=number: bench.counts()["dropped.malformed"] == number)
    assert "16UC1 is a depth image" in bench.status()["last_malformed"]
    whole = jpeg(second=50)
    whole.data = whole.data[:-2]  # the end marker alone is no loss
    answer = bench.send(whole)
    assert np.abs(np.subtract(boxes(answer), RECTANGLES)).max() <= 1


def test_an_orientation_in_a_compressed_image_is_not_applied(ros):
    bench = Bench(ros, image_transport="compressed")
    turned = jpeg(second=50)
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    data = bytes(turned.data)
    turned.data = data[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + data[2:]
    pixels = cv2.imdecode(np.frombuffer(turned.data, np.uint8), cv2.IMREAD_COLOR)
    assert pixels.shape[:2] == (WIDTH, len(scene()))  # what would happen
    answer = bench.send(turned)
    assert (answer.height, answer.width) == scene().shape[:2]


def test_images_of_twelve_bits_and_of_a_thermal_camera_show_as_much_as_others(ros):
    bench = Bench(ros)
    for values in (gray().astype("<u2") * 16, 7000 + gray().astype("<u2") * 5):
        for second in range(40):  # the range of the camera before is forgotten
            answer = bench.send(image("mono16", values, second=100 + second))
        assert boxes(answer) == [list(rectangle) for rectangle in RECTANGLES]


def test_only_the_region_is_segmented_and_what_lies_on_the_ignore_mask_is_left_out(ros, tmp_path):
    mask = np.zeros(scene().shape[:2], np.uint8)
    mask[30:60, 36:84] = 255  # the subpart
    cv2.imwrite(str(tmp_path / "mask.png"), mask)
    bench = Bench(ros, region="[16, 0, 100, 80]", ignore_mask=tmp_path / "mask.png")
    answer = bench.send(image("rgb8", scene(), second=50))
    assert (answer.height, answer.width) == scene().shape[:2]
    assert boxes(answer) == [[8, 16, 80, 116], list(RECTANGLES[1])]
    bench.settle()
    bench.camera.publish(image("rgb8", scene()[:60]))
    ros.until(lambda: bench.counts()["dropped.malformed"] == 1)
    assert "the ignore mask is 128 x 96, the image 128 x 60" in bench.status()["last_malformed"]


def test_each_camera_has_a_region_of_its_own(ros):
    regions = {"front.region": "[0, 0, 64, 0]", "wrist.region": "[64, 0, 0, 0]", "rear.region": "[0, 0, 0, 0]"}
    child = ros.start("threshold_node.py", model="threshold", autostart=True, cameras="[front, wrist]", **regions)
    from sensor_msgs.msg import Image

    found = {name: ros.collect(InstanceArray, f"/{NODE}/{name}/instances") for name in ("front", "wrist")}
    cameras = [ros.node.create_publisher(Image, f"/{name}/image", 10) for name in found]

    def answered() -> bool:
        for camera in cameras:
            camera.publish(image("rgb8", scene()))
        ros.executor.spin_once(timeout_sec=0.05)
        return all(found.values())

    ros.until(answered)
    assert boxes(found["front"][-1])[0] == [8, 12, 88, 64]
    assert boxes(found["wrist"][-1])[0] == [8, 64, 88, 120]
    assert "there is no parameter rear.region, so its value has no effect" in ros.stop(child)


def test_masks_come_in_the_encoding_that_is_asked_for(ros):
    bench = Bench(ros, max_rate=1000)  # a whole number where a float is meant
    plain = bench.send(image("rgb8", scene(), second=50))
    expected = [mask_of(found) for found in plain.instances]
    for name, number in (("rle", Instance.RLE), ("polygon", Instance.POLYGON), ("crop", Instance.CROP)):
        assert set_parameters(ros, mask_encoding=name)[0].successful
        answer = bench.send(image("rgb8", scene(), second=51))
        assert {found.mask_encoding for found in answer.instances} == {number}
        for found, mask in zip(answer.instances, expected, strict=True):
            np.testing.assert_array_equal(mask_of(found), mask)


def test_annotations_for_foxglove(ros):
    if not importlib.util.find_spec("foxglove_msgs"):
        pytest.skip("foxglove_msgs is not installed; PyPI does not have it")
    from foxglove_msgs.msg import ImageAnnotations, PointsAnnotation

    bench = Bench(ros)
    seen = ros.collect(ImageAnnotations, f"/{NODE}/annotations")
    sent = image("rgb8", scene(), second=50)
    ros.until(lambda: bench.send(sent) and seen)
    assert [shape.type for shape in seen[-1].points] == [PointsAnnotation.LINE_LOOP] * 3
    assert {shape.timestamp.sec for shape in seen[-1].points} == {50}
    drawn = {frozenset((point.x, point.y) for point in shape.points) for shape in seen[-1].points}
    assert drawn == {frozenset([(x0, y0), (x1, y0), (x1, y1), (x0, y1)]) for y0, x0, y1, x1 in RECTANGLES}
    (text,) = seen[-1].texts
    assert text.text == "whole 0.78"
