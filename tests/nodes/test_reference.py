import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import yaml

from hassod_ros.nodes import perception_node
from hassod_ros.nodes.parameters import values
from hassod_ros.nodes.perception_parameters import PARAMETERS
from scripts import reference


def test_documentation_and_defaults_follow_the_declarations():
    for path, text in reference.files().items():
        assert path.read_text(encoding="utf-8") == text, f"run python scripts/reference.py to renew {path}"
    api = (reference.ROOT / "docs" / "ros_api.md").read_text(encoding="utf-8")
    for table in reference.TABLES.values():
        assert all(f"| `{parameter.name}` |" in api for parameter in table)


def test_the_default_file_is_read_by_the_node(module_ros):
    path = reference.ROOT / "config" / "perception.yaml"
    given = yaml.safe_load(path.read_text(encoding="utf-8"))["/**"]["perception_node"]["ros__parameters"]
    node = perception_node.PerceptionNode(
        context=module_ros.context, cli_args=["--ros-args", "--params-file", str(path)], namespace="robot"
    )
    assert given == {parameter.name: parameter.default for parameter in PARAMETERS}
    assert values(node, PARAMETERS) == given
    node.destroy_node()
