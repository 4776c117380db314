import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import os
import re
import subprocess
import sys

import cv2
import numpy as np

from hassod_ros import cli
from hassod_ros.errors import InputError
from hassod_ros.nodes.arguments import reason, refuse_stray, stray_words

NODES = [name for name, verb in cli.VERBS.items() if verb.node]


def ended(name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Status, output and errors of a node that ends by itself."""
    command = [sys.executable, "-m", f"hassod_ros.nodes.{name}", *arguments]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", NODES)
def test_help_names_the_parameters_and_starts_nothing(name):
    status, printed, errors = ended(name, "--help")
    assert (status, errors) == (0, "")
    assert printed.startswith(f"usage: {name} [--ros-args -p PARAMETER:=VALUE ")
    assert f"{name}: " in printed
    assert "\n  source\n" in printed if name == "camera_player" else "\n  autostart (default: false)\n" in printed


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["model:=a.onnx"], "'model:=a.onnx' stands outside .* write --ros-args -p model:=a.onnx for a parameter"),
        (["-p", "model:=a.onnx"], "write --ros-args -p model:=a.onnx for a parameter, --ros-args -r model:=a.onnx"),
        (["--ros-arg", "-p", "model:=a.onnx"], "'--ros-arg' means nothing here; did you mean --ros-args?"),
        (["a.onnx"], "'a.onnx' stands outside of the ROS arguments; write --ros-args -p PARAMETER:=VALUE"),
        (["--ros-args", "-p", "threads:=2", "--", "a.onnx"], "'a.onnx' stands outside"),
    ],
)
def test_what_ros_would_pass_over_is_refused(words, sentence):
    with pytest.raises(InputError, match=sentence):
        refuse_stray(words)


def test_ros_arguments_are_nobody_elses_business():
    words = ["--ros-args", "-p", "threads:=2", "-r", "image:=/camera", "--log-level", "debug"]
    assert stray_words(words) == []
    refuse_stray(words)


def test_a_forgotten_flag_ends_the_node():
    status, _, errors = ended("perception_node", "model:=/nowhere.onnx")
    assert status == 2
    assert errors.startswith("perception_node: 'model:=/nowhere.onnx' stands outside of the ROS arguments; write ")


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--params-file", "/nowhere.yaml"], "the parameter file /nowhere.yaml cannot be read"),
        (["-p", "model=default"], "ROS cannot begin: .*'-p model=default'.*; write --ros-args -p PARAMETER:=VALUE"),
        (["--log-level", "loud"], "ROS cannot begin: .*'--log-level loud'"),
        (["--parms-file", "a.yaml"], "ROS cannot begin: .*--parms-file"),
    ],
)
def test_arguments_that_ros_refuses_are_one_sentence(words, sentence):
    status, _, errors = ended("perception_node", "--ros-args", *words)
    assert status == 2
    assert "Traceback" not in errors
    *_, last = errors.splitlines()
    assert re.match(f"perception_node: {sentence}", last), last


@pytest.mark.parametrize("home", ["", "/dev/null"])
def test_a_home_without_room_for_logs_is_told_the_remedy(home, monkeypatch):
    for variable in ("ROS_HOME", "ROS_LOG_DIR"):
        monkeypatch.delenv(variable, raising=False)
    status, _, errors = ended("camera_player", HOME=home)
    assert status == 2
    assert errors.splitlines()[-1].startswith("camera_player: ROS has no folder for its logs (")
    assert errors.endswith("; set ROS_LOG_DIR to one that can be written\n")


TWINS = """
import sys
from hassod_ros.nodes import run
from hassod_ros.nodes.camera_player import CameraPlayer

run.TWIN_PERIOD = 0.1
sys.exit(run.run(CameraPlayer))
"""


def test_a_node_warns_of_another_one_of_its_name_and_of_no_other(ros, tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.full((40, 40, 3), 9, np.uint8))
    command = [sys.executable, "-c", TWINS]
    words = ["--ros-args", "-p", f"source:={tmp_path}", "-r"]
    others = [ros.run([*command, *words, f"__ns:=/{name}"]) for name in ("a", "b")]
    ros.until(
        lambda: len([name for name, _ in ros.node.get_node_names_and_namespaces() if name == "camera_player"]) == 2
    )
    twin = ros.run([*command, *words, "__ns:=/b"])
    lines: list[str] = []
    while not any("another node /b/camera_player runs: their results mix" in line for line in lines):
        lines.append(twin.stdout.readline())
        assert lines[-1], lines
    assert "another node" not in ros.stop(others[0])


def test_a_reason_of_ros_loses_the_lines_of_its_source():
    error = RuntimeError("failed to initialize rcl: Couldn't do x. Error: y, at /src/a.c:3, at /src/b.c:4")
    assert reason(error, []).startswith("ROS cannot begin: Couldn't do x. Error: y; write ")
