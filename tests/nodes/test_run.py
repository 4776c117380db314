import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is missing: source scripts/env.sh")

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_srvs.srv import Trigger

from hassod_ros.nodes.run import NodeExecutor


@pytest.fixture
def executor(ros):
    executor = NodeExecutor(context=ros.context)
    yield executor
    executor.shutdown()


@pytest.fixture
def node(ros, executor):
    node = rclpy.create_node("tried", context=ros.context)
    executor.add_node(node)
    yield node
    node.destroy_node()


def spin_until(executor, condition, seconds=20.0) -> int:
    """How often the executor looked for work."""
    end, looks = time.monotonic() + seconds, 0
    while not condition():
        assert time.monotonic() < end, f"waited {seconds} s in vain"
        executor.spin_once(timeout_sec=0.1)
        looks += 1
    return looks


def test_a_group_of_its_own_does_not_hold_up_the_others(node, executor):
    ticked, answered = threading.Event(), threading.Event()

    def slow() -> None:
        slow_timer.cancel()
        assert ticked.wait(20)  # comes from the spinning thread
        answered.set()

    slow_timer = node.create_timer(0.01, slow, callback_group=MutuallyExclusiveCallbackGroup())
    spin_until(executor, lambda: executor._beside)
    node.create_timer(0.01, ticked.set)
    spin_until(executor, answered.is_set)


def test_nothing_is_looked_for_again_and_again_while_a_callback_takes_its_time(node, executor):
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def slow() -> None:
        slow_timer.cancel()
        begun.set()
        go_on.wait(20)
        done.set()

    slow_timer = node.create_timer(0.01, slow, callback_group=MutuallyExclusiveCallbackGroup())
    spin_until(executor, begun.is_set)
    end = time.monotonic() + 1.0
    assert spin_until(executor, lambda: time.monotonic() > end) < 40  # ten waits of 0.1 s, and what woke it
    go_on.set()
    spin_until(executor, done.is_set)


@pytest.mark.parametrize("own", [False, True])
def test_what_a_callback_raises_arrives(node, executor, own):
    def broken() -> None:
        raise ValueError("not today")

    node.create_timer(0.01, broken, callback_group=MutuallyExclusiveCallbackGroup() if own else None)
    with pytest.raises(ValueError, match="not today"):
        spin_until(executor, lambda: False)


def test_services_answer(ros, node, executor):
    def answer(request: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        response.success = True
        return response

    node.create_service(Trigger, "own", answer, callback_group=MutuallyExclusiveCallbackGroup())
    node.create_service(Trigger, "shared", answer)
    stop = threading.Event()
    thread = threading.Thread(target=lambda: spin_until(executor, stop.is_set))
    thread.start()
    try:
        for name in ("own", "shared"):
            assert ros.call(Trigger, name, Trigger.Request()).success
    finally:
        stop.set()
        thread.join()
