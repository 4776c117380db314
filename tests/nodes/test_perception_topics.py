import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from diagnostic_msgs.msg import DiagnosticArray
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import String

from hassod_msgs.msg import InstanceArray
from tests.nodes.bench import NODE


@pytest.mark.parametrize(
    ("published", "advice"),
    [
        ((), "nobody publishes /image; there is no image topic at all; start the camera"),
        ((("/camera/image_raw", Image),), "nobody publishes /image; there is /camera/image_raw"),
        (
            (("/image/compressed", CompressedImage),),
            "nobody publishes /image, but there is /image/compressed; set image_transport to compressed",
        ),
        (
            (("/image", CompressedImage),),
            "no image comes on /image: its publisher sends compressed images; set image_transport to compressed, "
            "and the topic without /compressed",
        ),
        (
            (("/image", String), ("/front", Image)),
            "no image comes on /image: its publisher sends std_msgs/msg/String, which are no images; there is /front",
        ),
        ((("/image", Image),), "no image comes on /image, though it has a publisher"),
    ],
)
def test_the_reason_why_no_image_comes_is_said(ros, published, advice):
    for topic, kind in published:
        ros.node.create_publisher(kind, topic, 10)
    child = ros.start("threshold_node.py", model="threshold", autostart=True, diagnostics_period=0.2)
    ros.collect(InstanceArray, f"/{NODE}/instances")
    diagnostics = ros.collect(DiagnosticArray, "/diagnostics")
    ros.until(lambda: diagnostics and advice in diagnostics[-1].status[0].message)
    assert diagnostics[-1].status[0].level >= b"\1"
    printed = ros.stop(child)
    assert printed.count(advice) == 1
    assert "images of the camera are expected on /image (raw, best effort, depth 5)" in printed
