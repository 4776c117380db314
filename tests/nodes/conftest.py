"""Real node processes over real DDS, each test in a domain of its own."""

import importlib.util
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hassod_ros.children import start as start_child

ROOT = Path(__file__).resolve().parents[2]

if os.environ.get("HASSOD_REQUIRE_ROS"):
    importlib.import_module("hassod_msgs.msg")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker("ros")


def free_domain() -> int:
    """A ROS domain whose discovery port nobody on this machine uses."""
    for domain in random.sample(range(1, 100), 99):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))  # a domain's first participant listens here, also on localhost
            except OSError:
                continue
            return domain
    raise RuntimeError("every ROS domain is in use")


class Ros:
    """A client node in this process and child processes, all in one domain."""

    def __init__(self) -> None:
        import rclpy
        from rclpy.executors import SingleThreadedExecutor

        self.home = tempfile.TemporaryDirectory()  # what nodes remember must not reach other tests
        self.home_before, os.environ["ROS_HOME"] = os.environ.get("ROS_HOME"), self.home.name
        self.domain = free_domain()
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=self.domain)
        self.node = rclpy.create_node("client", context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.children: list[subprocess.Popen[str]] = []

    def start(self, script: str, *arguments: str, **parameters: object) -> "subprocess.Popen[str]":
        """Run a module of hassod_ros.nodes, or a file of this folder, as a process of its own."""
        file = Path(__file__).parent / script
        command = [sys.executable, str(file)] if script.endswith(".py") else [sys.executable, "-m", script]
        command += [*arguments, "--ros-args"]
        for name, value in parameters.items():
            text = str(value).lower() if isinstance(value, bool) else str(value)
            command += ["-p", f"{name.replace('__', '.')}:={text}"]
        return self.run(command)

    def run(self, command: list[str]) -> "subprocess.Popen[str]":
        """Run a command as a process of its own."""
        environment = dict(os.environ, ROS_DOMAIN_ID=str(self.domain), PYTHONFAULTHANDLER="1")
        child = start_child(
            command,
            cwd=ROOT,
            env=environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self.children.append(child)
        return child

    def stop(self, child: "subprocess.Popen[str]") -> str:
        """End a child as Ctrl-C would; returns what it printed."""
        if child.poll() is None:
            child.send_signal(signal.SIGINT)
        try:
            return child.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGABRT)  # Python then prints where each thread is
            pytest.fail(f"the process did not end after SIGINT; it printed: {child.communicate()[0]}")

    def collect(self, kind: type, topic: str, qos: object = 10) -> list:
        """A list that grows with every message of the topic."""
        received: list = []
        self.node.create_subscription(kind, topic, received.append, qos)
        return received

    def until(self, condition: Callable[[], object], seconds: float = 60.0) -> object:
        """Spin until the condition holds and return its value; fails the test after `seconds`."""
        end = time.monotonic() + seconds
        while not (value := condition()):
            assert time.monotonic() < end, f"waited {seconds} s in vain"
            self.executor.spin_once(timeout_sec=0.02)
        return value

    def call(self, kind: type, name: str, request: object, seconds: float = 60.0) -> object:
        client = self.node.create_client(kind, name)
        self.until(client.service_is_ready)
        futures: list = []
        again = 0.0

        def answered() -> object:
            # Ready means that the client has found the service; an answer given before the service has found the client
            # as well is lost (ros2/rmw_fastrtps), so it is asked for again.
            nonlocal again
            if time.monotonic() > again and len(futures) < 2:
                futures.append(client.call_async(request))
                again = time.monotonic() + seconds / 2
            return next((future for future in futures if future.done()), None)

        future = self.until(answered, seconds)
        self.node.destroy_client(client)
        return future.result()

    def transition(self, name: str, label: str) -> bool:
        """Ask a lifecycle node for a transition: configure, activate, deactivate, cleanup."""
        from lifecycle_msgs.msg import Transition
        from lifecycle_msgs.srv import ChangeState

        request = ChangeState.Request(transition=Transition(label=label))
        # The label is enough for rclpy; the id is what its C++ peers look at.
        request.transition.id = getattr(Transition, f"TRANSITION_{label.upper()}")
        return self.call(ChangeState, f"/{name}/change_state", request).success

    def close(self) -> None:
        os.environ.pop("ROS_HOME")
        if self.home_before is not None:
            os.environ["ROS_HOME"] = self.home_before
        running = [child for child in self.children if child.stdout and not child.stdout.closed]
        printed = [self.stop(child) for child in running]
        self.executor.shutdown()
        self.node.destroy_node()
        self.context.try_shutdown()
        self.home.cleanup()
        assert not any("Traceback" in text for text in printed), printed
        assert not any(child.returncode for child in running), [child.returncode for child in running]


@pytest.fixture
def model_file(tmp_path: Path) -> Path:
    """The hand-written ONNX detector that the tests of the runtime use."""
    spec = importlib.util.spec_from_file_location("runtime_conftest", ROOT / "tests" / "runtime" / "conftest.py")
    runtime = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(runtime)
    path = tmp_path / "detector.onnx"
    path.write_bytes(runtime.build_model(runtime.make_info()).SerializeToString())
    return path


@pytest.fixture
def ros() -> Iterator[Ros]:
    session = Ros()
    yield session
    session.close()


@pytest.fixture(scope="module")
def module_ros() -> Iterator[Ros]:
    """The same for tests of one file that share a running node."""
    session = Ros()
    yield session
    session.close()
