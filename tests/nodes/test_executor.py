import threading
import time

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is missing: source scripts/env.sh")

import rclpy
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from std_msgs.msg import String
from std_srvs.srv import Trigger

from hassod_ros.nodes.executor import NodeExecutor


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


def test_messages_do_not_come_in_the_middle_of_another_callback(ros, node, executor):
    ticks, taken, inside = [], [], threading.Event()

    def tick() -> None:
        inside.set()
        before = len(taken)
        time.sleep(0.02)
        assert len(taken) == before
        inside.clear()
        ticks.append(1)

    def take(message: String) -> None:
        assert not inside.is_set()
        taken.append(message.data)

    node.create_timer(0.02, tick)
    node.create_subscription(String, "words", take, 100)
    send = ros.node.create_publisher(String, "words", 100)
    ros.until(send.get_subscription_count)
    for i in range(50):
        send.publish(String(data=str(i)))
        executor.spin_once(timeout_sec=0.01)
    spin_until(executor, lambda: len(taken) == 50 and len(ticks) > 5)
    assert taken == list(map(str, range(50)))


def test_what_a_callback_of_a_message_raises_arrives_and_the_next_message_too(ros, node, executor):
    taken = []

    def take(message: String) -> None:
        taken.append(message.data)
        if message.data == "bad":
            raise ValueError(message.data)

    node.create_subscription(String, "words", take, 10)
    send = ros.node.create_publisher(String, "words", 10)
    ros.until(send.get_subscription_count)
    send.publish(String(data="bad"))
    with pytest.raises(ValueError, match="bad"):
        spin_until(executor, lambda: False)
    send.publish(String(data="good"))
    spin_until(executor, lambda: taken == ["bad", "good"])


def test_subscriptions_come_and_go_while_it_waits(ros, node, executor):
    taken = []
    send = ros.node.create_publisher(String, "words", 10)
    for name in ("first", "second"):
        subscription = node.create_subscription(String, "words", lambda message: taken.append(message.data), 10)
        ros.until(send.get_subscription_count)
        send.publish(String(data=name))
        spin_until(executor, lambda name=name: taken[-1:] == [name])
        node.destroy_subscription(subscription)
        ros.until(lambda: not send.get_subscription_count())
    assert taken == ["first", "second"]


def test_it_sleeps_while_messages_come(ros, node, executor):
    """Whoever waits for services and timers is not woken by each message."""
    taken = []
    node.create_subscription(String, "words", taken.append, 100)
    send = ros.node.create_publisher(String, "words", 100)
    ros.until(send.get_subscription_count)
    spin_until(executor, lambda: executor._receiver is not None)

    def publish() -> None:
        for _ in range(100):
            send.publish(String(data="word"))
            time.sleep(0.01)

    thread = threading.Thread(target=publish)
    thread.start()
    looks = spin_until(executor, lambda: len(taken) == 100)
    thread.join()
    assert looks < 60  # ten waits of 0.1 s a second, and looks at events
