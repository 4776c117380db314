import pytest

pytest.importorskip("bondpy.bondpy", reason="bondpy is not installed; PyPI does not have it")
pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from bond.msg import Status
from bondpy.bondpy import Bond

from tests.nodes.bench import NODE


def test_the_node_gives_signs_of_life_while_it_is_active(ros):
    """As nav2's lifecycle manager looks for them: on the topic `bond`, with the node's name."""
    formed, signs = [], ros.collect(Status, "/bond", 100)
    ros.start("threshold_node.py", model="threshold")
    assert ros.transition(NODE, "configure")
    for _ in range(2):
        assert ros.transition(NODE, "activate")
        signs.clear()
        ros.until(lambda: len(signs) > 5)
        assert all((sign.id, sign.active) == (NODE, True) for sign in signs)
        assert ros.transition(NODE, "deactivate")
        ros.until(lambda: ros.node.count_publishers("/bond") == 0)
    manager = Bond(ros.node, "bond", NODE, on_formed=lambda: formed.append(True))
    manager.start()
    assert ros.transition(NODE, "activate")
    ros.until(lambda: formed)
