import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from hassod_msgs.msg import InstanceArray
from hassod_ros.nodes.inputs import ImageInput
from tests.nodes.bench import NODE

PLAIN = QoSProfile(depth=5)


@pytest.fixture
def listener(ros):
    """A node with a connection of its own: one does not take two types under one name."""
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros.domain)
    node = rclpy.create_node("listener", context=context)
    yield node
    node.destroy_node()
    context.shutdown()


@pytest.mark.parametrize(
    ("published", "transport", "advice"),
    [
        ((), "raw", "nobody publishes /image; there is no image topic at all; start the camera"),
        ((("/camera/image_raw", Image),), "raw", "nobody publishes /image; there is /camera/image_raw"),
        (
            (("/image/compressed", CompressedImage),),
            "raw",
            "nobody publishes /image, but there is /image/compressed; set image_transport to compressed",
        ),
        (
            (("/image", Image),),
            "compressed",
            "nobody publishes /image/compressed, but there is /image; set image_transport to raw",
        ),
        (
            (("/image", CompressedImage),),
            "raw",
            "no image comes on /image: its publisher sends compressed images; set image_transport to compressed, "
            "and the topic without /compressed",
        ),
        (
            (("/image", String), ("/front", Image)),
            "raw",
            "no image comes on /image: its publisher sends std_msgs/msg/String, which are no images; there is /front",
        ),
    ],
)
def test_the_reason_why_no_image_comes(ros, listener, published, transport, advice):
    images = ImageInput(listener, "image", transport, PLAIN, print)
    images.open()
    for topic, kind in published:
        ros.node.create_publisher(kind, topic, 10)
    ros.until(lambda: images.explain() == advice)


def test_results_of_this_package_are_no_cameras(ros, listener):
    images = ImageInput(listener, "image", "raw", PLAIN, print)
    images.open()
    node = rclpy.create_node("eye", namespace="cell", context=listener.context)
    try:
        for kind, topic in ((Image, "~/overlay"), (Image, "~/labels/whole"), (InstanceArray, "~/instances")):
            node.create_publisher(kind, topic, 10)
        ros.until(lambda: listener.count_publishers("/cell/eye/instances"))
        ros.until(
            lambda: images.explain() == "nobody publishes /image; there is no image topic at all; start the camera"
        )
        ros.node.create_publisher(Image, "~/color/image_raw", 10)  # as some drivers do
        camera = f"{ros.node.get_fully_qualified_name()}/color/image_raw"
        ros.until(lambda: images.explain() == f"nobody publishes /image; there is {camera}")
    finally:
        node.destroy_node()


def test_a_publisher_that_offers_too_little(ros, listener):
    images = ImageInput(listener, "image", "raw", PLAIN, print)
    images.open()
    ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    ros.until(lambda: "its publisher is best effort; set input_reliability to best_effort" in images.explain())


def test_the_reason_is_said_once_in_the_log_and_in_diagnostics(ros):
    ros.node.create_publisher(Image, "/image", 10)
    child = ros.start("threshold_node.py", model="threshold", autostart=True, diagnostics_period=0.2)
    ros.collect(InstanceArray, f"/{NODE}/instances")
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    advice = "no image comes on /image, though it has a publisher"
    ros.until(lambda: diagnostics and advice in diagnostics[-1].status[0].message)
    assert diagnostics[-1].status[0].level >= b"\1"
    printed = ros.stop(child)
    assert printed.count(advice) == 1
    assert "images of the camera are expected on /image (raw, best effort, depth 5)" in printed
