"""Models rolled out to real nodes over real DDS, under load, with failures and kills."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import itertools
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from export.rollout import main
from hassod_msgs.msg import InstanceArray
from hassod_msgs.srv import ReloadModel
from hassod_ros.deploy.registry import IMPORTED, REFUSED, Registry
from hassod_ros.deploy.watch import Report
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.rollout import _before

ROOT = Path(__file__).resolve().parents[2]
NODES = ["/r1/perception_node", "/r2/perception_node"]
RATE = 30.0


class Robots:
    """Two nodes that run version 1 of a registry, and a camera for both."""

    def __init__(self, ros, folder: Path) -> None:
        self.ros, self.folder = ros, folder
        self.registry = Registry(folder / "models", create=True)
        self.sha256 = {}
        for number, text in enumerate(("threshold:0.002", "threshold:0.001", "fails"), 1):
            file = folder / "made"
            file.write_text(f"{text}\n{number}")
            self.sha256[self.registry.register(file, status=IMPORTED).sha256] = number
        self.registry.set_alias("stable", self.registry.resolve("1"))
        self.camera = ros.node.create_publisher(Image, "/image", 10)
        ros.node.create_timer(1 / RATE, self._publish)
        self._stamps = itertools.count(1)
        self.running: dict[str, list[int]] = {}
        for node in NODES:
            script = str(Path(__file__).with_name("file_node.py"))
            values = {"model": self.registry.resolve("1").model, "autostart": "true", "diagnostics_period": 0.2}
            words = [word for name, value in values.items() for word in ("-p", f"{name}:={value}")]
            names = ["-r", f"__ns:={node.rpartition('/')[0]}", "-r", "image:=/image"]
            ros.run([sys.executable, script, "--ros-args", *words, *names])
            self.running[node] = []
            ros.node.create_subscription(InstanceArray, f"{node}/instances", self._note(node), 50)
        ros.until(lambda: all(self.running.values()), 60)

    def _note(self, node: str):
        return lambda message: self.running[node].append(self.sha256[message.model_sha256])

    def _publish(self) -> None:
        pixels = np.full((48, 64, 3), 10, np.uint8)
        pixels[10:40, 10:50] = 90
        stamp = self.ros.node.get_clock().now().to_msg()
        self.camera.publish(array_to_image(pixels, "rgb8", Header(stamp=stamp, frame_id=str(next(self._stamps)))))

    def command(self, verb: str, *words: str) -> subprocess.Popen[str]:
        script = str(ROOT / "export" / f"{verb}.py")
        command = [sys.executable, script, "--registry", str(self.registry.root), "--nodes", *NODES, *words]
        environment = dict(os.environ, ROS_DOMAIN_ID=str(self.ros.domain), PYTHONFAULTHANDLER="1", PYTHONUNBUFFERED="1")
        return subprocess.Popen(
            command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )

    def finish(self, child: subprocess.Popen[str]) -> str:
        try:
            self.ros.until(lambda: child.poll() is not None, 120)
        except AssertionError:
            child.send_signal(signal.SIGABRT)  # Python then prints where each thread is
            pytest.fail(f"it did not end; it printed: {child.communicate()[0]}")
        return child.communicate()[0]

    def done(self, verb: str, *words: str) -> str:
        """What a call printed that did what it was asked for; a node that other programs slowed down is asked again."""
        for _ in range(5):
            child = self.command(verb, *words)
            printed = self.finish(child)
            if not child.returncode:
                return printed
            assert re.search(r"images per second instead of|ms instead of", printed), printed
        pytest.fail(printed)

    def now(self) -> list[int]:
        """Version that each node runs, by its next results."""
        for results in self.running.values():
            results.clear()
        self.ros.until(lambda: all(len(results) > 2 for results in self.running.values()))
        return [results[-1] for results in self.running.values()]


@pytest.fixture
def robots(ros, tmp_path):
    return Robots(ros, tmp_path)


def test_rollout_and_rollback_under_load(robots):
    for results in robots.running.values():
        results.clear()
    printed = robots.done("rollout", "--version", "2", "--watch", "1.5")
    assert "2 nodes run perception/2" in printed
    assert printed.index(f"{NODES[0]}: loading") < printed.index("watching") < printed.index(f"{NODES[1]}: loading")
    assert robots.now() == [2, 2]
    assert robots.registry.aliases() == {"stable": 2}

    assert "runs perception/2 already" in robots.done("rollout", "--version", "stable", "--watch", "0.5")

    robots.done("rollback", "--watch", "0.5")
    assert robots.now() == [1, 1]
    assert robots.registry.aliases() == {"stable": 1}


def test_a_model_that_fails_on_the_canary_is_rolled_back_and_no_other_node_has_seen_it(robots):
    for results in robots.running.values():
        results.clear()
    child = robots.command("rollout", "--version", "3", "--watch", "20")
    printed = robots.finish(child)
    assert child.returncode == 2, printed
    assert "this model cannot do real pictures" in printed
    assert "every node runs what it ran before" in printed
    assert f"{NODES[1]}: loading" not in printed
    assert robots.now() == [1, 1]
    assert set(robots.running[NODES[1]]) == {1}
    assert robots.registry.aliases() == {"stable": 1}
    assert robots.registry.history()[-1]["state"] == "failed"


def test_a_killed_rollout_leaves_each_node_on_one_of_both_and_the_next_call_finishes_it(robots):
    rng = random.Random(0)
    for wanted in ("2", "1", "2"):
        child = robots.command("rollout", "--version", wanted, "--watch", "0.5")
        lines = iter(child.stdout.readline, "")
        next(lines)  # it has found the nodes and begins
        time.sleep(rng.uniform(0, 1.0))
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert set(robots.now()) <= {1, 2}
        robots.done("rollout", "--version", wanted, "--watch", "0.5")
        assert robots.now() == [int(wanted)] * 2


def test_a_second_call_for_the_same_nodes_is_told(robots):
    child = robots.command("rollout", "--version", "2", "--watch", "60")
    assert "loading" in child.stdout.readline()
    second = robots.command("rollback", "--version", "1", "--watch", "0.3")
    assert "another rollout or rollback changes /r1/perception_node at this moment" in robots.finish(second)
    assert second.returncode == 2
    child.send_signal(signal.SIGINT)
    assert "every node goes back" in robots.finish(child)
    assert robots.now() == [1, 1]


def test_only_a_call_that_did_not_end_says_what_nodes_ran_before(tmp_path):
    registry = Registry(tmp_path / "models", create=True)
    (tmp_path / "made").write_text("two")
    version = registry.register(tmp_path / "made", status=IMPORTED)
    now = {"/a": Report(version.sha256, "", 0.0, 0.0), "/b": Report("other", "", 0.0, 0.0)}

    def tell(state):
        registry.tell("rollout", version=str(version), state=state, nodes={"/a": "one", "/b": "one"})

    assert _before(registry, version, now) == {"/a": version.sha256, "/b": "other"}
    tell("begun")
    assert _before(registry, version, now) == {"/a": "one", "/b": "other"}
    for state in ("done", "failed"):
        tell("begun")
        tell(state)
        assert _before(registry, version, now) == {"/a": version.sha256, "/b": "other"}


def test_models_are_copied_to_where_the_nodes_see_them(robots):
    (robots.folder / "robot").mkdir()
    copy = f"cp {{file}} {robots.folder / 'robot'}/"
    robots.done("rollout", "--version", "2", "--watch", "0.3", "--copy", copy)
    (file,) = (robots.folder / "robot").iterdir()
    assert file.name.startswith("perception-2-")
    assert robots.now() == [2, 2]
    child = robots.command("rollout", "--version", "1", "--watch", "0.3", "--copy", "false {file}")
    assert "copying to /r1/perception_node failed" in robots.finish(child)
    assert robots.now() == [2, 2]


def test_what_cannot_be_rolled_out_is_one_sentence(robots):
    version = robots.registry.register(robots.folder / "made", status=REFUSED, reason="it is worse")
    for words, sentence in (
        (["--version", str(version.number)], "was refused (it is worse)"),
        (["--version", "9"], "has no perception '9'"),
    ):
        child = robots.command("rollout", *words)
        assert sentence in robots.finish(child)
        assert child.returncode == 2
    child = robots.command("rollback")
    assert "knows of no model that /r1/perception_node ran before" in robots.finish(child)
    robots.registry.resolve("1").model.write_text("changed")
    child = robots.command("rollout", "--version", "1")
    assert "is not the file that was registered" in robots.finish(child)


def test_a_node_that_does_not_exist_is_named(ros, tmp_path):
    registry = Registry(tmp_path / "models", create=True)
    (tmp_path / "made").write_text("threshold")
    registry.register(tmp_path / "made")
    command = [sys.executable, "export/rollout.py", "--registry", str(registry.root), "--version", "1"]
    environment = dict(os.environ, ROS_DOMAIN_ID=str(ros.domain))
    done = subprocess.run([*command, "--nodes", "/gone"], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert "the network has no service /gone/reload_model" in done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--nodes", "a b"], "'/a b' cannot be a node"),
        (["--nodes", "/n", "--alias", "a b"], "'a b' cannot be an alias"),
        (["--nodes", "/n", "--copy", "scp {files}"], "is no command ('files'); it may hold {file}, {host} and {node}"),
        (["--nodes", "/n", "--copy", "scp '{file}"], "is no command (No closing quotation)"),
        (["--nodes", "/n", "--copy", "no_such_program {file}"], "there is no program 'no_such_program' to copy with"),
    ],
)
def test_words_that_would_fail_later_are_refused_before_a_node_is_asked(tmp_path, words, says, capsys):
    registry = Registry(tmp_path / "models", create=True)
    (tmp_path / "made").write_text("threshold")
    registry.register(tmp_path / "made")
    assert main(["--registry", str(registry.root), "--version", "1", *words]) == 2
    assert says in capsys.readouterr().err


def test_a_node_loads_models_from_its_folders_only(ros, tmp_path):
    allowed, other = tmp_path / "allowed", tmp_path / "other"
    for folder in (allowed, other):
        folder.mkdir()
        (folder / "model").write_text("threshold")
    (allowed / "link").symlink_to(other / "model")
    (other / "link").symlink_to(allowed / "model")
    ros.start("file_node.py", model=allowed / "model", autostart=True, model_roots=f"[{allowed}]")
    request = ReloadModel.Request

    def load(path: Path) -> tuple[bool, str]:
        answer = ros.call(ReloadModel, "/perception_node/reload_model", request(path=str(path)))
        return answer.success, answer.message

    ros.until(lambda: "not configured" not in load(allowed / "model")[1])
    assert load(allowed / "model")[0]
    assert load(other / "link")[0]  # where it leads counts
    for path in (other / "model", allowed / "link", allowed / ".." / "other" / "model"):
        success, message = load(path)
        assert not success
        assert "outside of model_roots" in message
