import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")


from lifecycle_msgs.msg import State, Transition
from lifecycle_msgs.srv import ChangeState, GetState
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image

from hassod_msgs.msg import InstanceArray
from tests.nodes.bench import NODE, Bench, image, scene


def test_lifecycle(ros):
    child = ros.start("threshold_node.py", model="threshold")
    camera = ros.node.create_publisher(Image, "/image", qos_profile_sensor_data)
    answers = ros.collect(InstanceArray, f"/{NODE}/instances")

    def state() -> str:
        return ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.label

    def answered() -> bool:
        camera.publish(image("rgb8", scene()))
        return bool(answers)

    assert state() == "unconfigured"
    for _ in range(2):
        assert ros.transition(NODE, "configure")
        assert state() == "inactive"
        assert camera.get_subscription_count() == 0
        assert ros.transition(NODE, "activate")
        ros.until(answered)
        assert ros.transition(NODE, "deactivate")
        ros.until(lambda: camera.get_subscription_count() == 0)
        answers.clear()
        assert ros.transition(NODE, "cleanup")
        assert state() == "unconfigured"
        ros.until(lambda: ros.node.count_publishers(f"/{NODE}/instances") == 0)
    assert not ros.transition(NODE, "activate")
    ros.stop(child)
    assert child.returncode == 0


def test_a_manager_that_speaks_as_that_of_nav2_does(ros):
    """Transitions by number alone, each followed by a look at the state; no bond."""
    ros.start("threshold_node.py", model="threshold")

    def change(transition: int, state: int) -> None:
        request = ChangeState.Request(transition=Transition(id=transition))
        assert ros.call(ChangeState, f"/{NODE}/change_state", request).success
        assert ros.call(GetState, f"/{NODE}/get_state", GetState.Request()).current_state.id == state

    startup = (
        (Transition.TRANSITION_CONFIGURE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_ACTIVATE, State.PRIMARY_STATE_ACTIVE),
    )
    reset = (
        (Transition.TRANSITION_DEACTIVATE, State.PRIMARY_STATE_INACTIVE),
        (Transition.TRANSITION_CLEANUP, State.PRIMARY_STATE_UNCONFIGURED),
    )
    shutdown = ((Transition.TRANSITION_UNCONFIGURED_SHUTDOWN, State.PRIMARY_STATE_FINALIZED),)
    for transition, state in (*startup, *reset, *startup, *reset, *shutdown):
        change(transition, state)


def test_killed_node_comes_back(ros):
    bench = Bench(ros)
    bench.send(image("rgb8", scene()))
    bench.child.kill()
    bench.child.communicate()
    ros.start("threshold_node.py", model="threshold", autostart=True)
    before = len(bench.instances)

    def answered() -> bool:
        bench.camera.publish(image("rgb8", scene()))
        return len(bench.instances) > before

    ros.until(answered)
