import pytest

pytest.importorskip("bondpy.bondpy", reason="bondpy is not installed; PyPI does not have it")
pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from bondpy.bondpy import Bond

from tests.nodes.bench import NODE


def test_the_manager_notices_that_the_node_died(ros):
    """As nav2's lifecycle manager: a bond per activation, on the topic `bond`, with the node's name."""
    formed, broken = [], []
    child = ros.start("threshold_node.py", model="threshold")
    assert ros.transition(NODE, "configure")
    for _ in range(2):
        assert ros.transition(NODE, "activate")
        ros.until(lambda: ros.node.count_publishers("/bond"))
        assert ros.transition(NODE, "deactivate")
        ros.until(lambda: ros.node.count_publishers("/bond") == 0)
    manager = Bond(ros.node, "bond", NODE, lambda: broken.append(True), lambda: formed.append(True))
    manager.heartbeat_period, manager.heartbeat_timeout = 0.1, 1.0
    manager.start()
    assert ros.transition(NODE, "activate")
    ros.until(lambda: formed)
    assert not broken
    child.kill()
    child.communicate()
    ros.until(lambda: broken)
