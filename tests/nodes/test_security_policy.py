import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

from hassod_msgs.msg import InstanceArray

POLICY = Path(__file__).resolve().parents[2] / "config" / "security" / "policy.xml"
# Allowed, but used in some settings only: sim time, the transport, an optional package, the distribution.
OPTIONAL = {
    "subscribe": {"/bond", "/clock", "/image/compressed", "/tf", "/tf_static"},
    "publish": {
        "/bond",
        "/perception_node/annotations",
        "/perception_node/detections",
        "/perception_node/label_info",
        "/objects_3d_node/detections",
        "/objects_3d_node/planning_scene",
        "/depth",  # where the source has it
        "/depth/camera_info",
        "/tf",
        "/tf_static",
    },
    "reply": {f"/{node}/get_type_description" for node in ("perception_node", "camera_player", "objects_3d_node")},
}


def allowed(node: str, rule: str) -> set[str]:
    """Full names of what the policy lets a node publish, subscribe or reply to."""
    found = set()
    (profile,) = ElementTree.parse(POLICY).getroot().iterfind(f".//profile[@node='{node}']")
    for group in profile.iterfind(f"*[@{rule}='ALLOW']"):
        for entry in group:
            name = entry.text.replace("~/", f"/{node}/")
            found.add(name if name.startswith("/") else f"{profile.get('ns')}{name}")
    return found


def used(ros, node: str, rule: str) -> set[str]:
    kind = {"publish": "publisher", "subscribe": "subscriber", "reply": "service"}[rule]
    return {name for name, _ in getattr(ros.node, f"get_{kind}_names_and_types_by_node")(node, "/")}


def test_the_nodes_use_what_the_policy_allows_and_nothing_else(ros, tmp_path):
    cv2.imwrite(str(tmp_path / "picture.png"), np.zeros((48, 64, 3), np.uint8))
    ros.collect(InstanceArray, "/perception_node/instances")  # else it does not subscribe to images
    ros.start("threshold_node.py", model="threshold", autostart=True)
    ros.start("hassod_ros.nodes.objects_3d_node", autostart=True)
    ros.start("hassod_ros.nodes.camera_player", source=tmp_path, rate=5.0)
    ros.until(lambda: ros.node.count_publishers("/image") and ros.node.count_subscribers("/image"), 60)
    nodes = {"perception_node", "camera_player", "objects_3d_node"}
    ros.until(lambda: nodes <= set(ros.node.get_node_names()), 60)  # names are told apart from topics, maybe later
    for node in sorted(nodes):
        for rule in ("publish", "subscribe", "reply"):
            wanted = allowed(node, rule) - OPTIONAL[rule]
            ros.until(lambda node=node, rule=rule, wanted=wanted: used(ros, node, rule) >= wanted)
            assert used(ros, node, rule) <= allowed(node, rule)


def test_the_policy_has_the_structure_of_sros2():
    root = ElementTree.parse(POLICY).getroot()
    assert (root.tag, root.get("version")) == ("policy", "0.2.0")
    paths = [enclave.get("path") for enclave in root.iterfind("enclaves/enclave")]
    assert paths == ["/perception_node", "/objects_3d_node", "/camera_player", "/rollout"]
    for profile in root.iterfind("enclaves/enclave/profiles/profile"):
        assert profile.get("ns") == "/"
        for group in profile:
            assert group.tag in ("services", "topics")
            assert set(group.attrib.values()) == {"ALLOW"}
            assert all(entry.tag == group.tag[:-1] and entry.text for entry in group)


def test_only_rollouts_may_exchange_models():
    root = ElementTree.parse(POLICY).getroot()
    may = [
        enclave.get("path")
        for enclave in root.iterfind("enclaves/enclave")
        for services in enclave.iterfind(".//services[@request]")
        if any(entry.text.endswith("reload_model") for entry in services)
    ]
    assert may == ["/rollout"]
    assert allowed("rollout", "request") == {"/perception_node/reload_model"}
