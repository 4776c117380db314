import pytest

pytest.importorskip("rclpy", reason="ROS 2 is missing: source scripts/env.sh")

import sys

from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from hassod_ros.errors import InputError
from hassod_ros.nodes.overrides import unknown_overrides, useless_files
from hassod_ros.nodes.parameters import Parameter, declare, values

TABLE = (
    Parameter(name="max_rate", default=0.0, low=0.0, high=10.0, unit="Hz", description="A rate."),
    Parameter(name="count", default=1, low=0, high=9, description="A number."),
    Parameter(name="names", default=["a"], description="Some names."),
    Parameter(name="numbers", formerly="numbers_of_old", default=[0.0, 0.0], description="Two numbers."),
    Parameter(name="places", default=[0, 0], description="Two whole numbers."),
)
PLAYER = """
/**/camera_player:
  ros__parameters: {source: SOURCE, rate: 50, pan_zoom: 3, sizes: 5, loop: false, count: 2, width: 32, height: 24}
"""


@pytest.fixture
def make(module_ros):
    nodes = []

    def make(**overrides: object) -> Node:
        given = [RosParameter(name.replace("__", "."), value=value) for name, value in overrides.items()]
        nodes.append(Node("tried", context=module_ros.context, parameter_overrides=given))
        declare(nodes[-1], TABLE)
        return nodes[-1]

    yield make
    for node in nodes:
        node.destroy_node()


def test_a_whole_number_is_a_float_where_a_float_is_meant(make):
    node = make(max_rate=5)
    read = values(node, TABLE)["max_rate"]
    assert (read, type(read)) == (5.0, float)
    assert node.set_parameters([RosParameter("max_rate", value=3)])[0].successful
    read = values(node, TABLE)["max_rate"]
    assert (read, type(read)) == (3.0, float)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (11, "max_rate is out of range: it must be 0 to 10 Hz, not 11"),
        (-0.5, "max_rate out of range"),
        (float("nan"), "max_rate out of range"),
        ("fast", "max_rate must be a number, not 'fast'"),
        (True, "max_rate must be a number, not True"),
    ],
)
def test_what_is_no_number_or_out_of_range_is_refused_at_the_start_and_later(make, value, reason):
    with pytest.raises(InputError, match=f"parameter max_rate is wrong: .*{reason}"):
        make(max_rate=value)
    (result,) = make().set_parameters([RosParameter("max_rate", value=value)])
    assert not result.successful
    assert reason in result.reason


def test_an_empty_list_ends_the_start_with_a_sentence(ros, tmp_path):
    file = tmp_path / "empty.yaml"
    file.write_text("/**:\n  ros__parameters:\n    cameras: []\n")
    child = ros.run(
        [sys.executable, "-m", "hassod_ros.nodes.perception_node", "--ros-args", "--params-file", str(file)]
    )
    printed = child.communicate(timeout=60)[0]
    assert child.returncode == 2
    assert "cameras is empty; give it a value, or leave it out" in printed.splitlines()[-1]


def test_whole_numbers_stay_whole(make):
    with pytest.raises(InputError, match="parameter count is wrong"):
        make(count=1.5)


def test_names_that_do_not_exist_are_said_with_the_nearest_that_does(make):
    node = make(maxrate=5.0, zzzzzz=1, max_rate=1.0, qos_overrides__x=1, use_sim_time=False)
    assert unknown_overrides(node) == [
        "there is no parameter maxrate, so its value has no effect; did you mean max_rate?",
        "there is no parameter zzzzzz, so its value has no effect; see docs/ros_api.md",
    ]


def test_an_old_name_is_still_read_and_not_unknown(make):
    node = make(numbers_of_old=[3, 4])
    assert values(node, TABLE)["numbers"] == [3.0, 4.0]
    assert not unknown_overrides(node)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"numbers": [1.0]}, "numbers must be 2 numbers, not [1.0]"),
        ({"places": [1, 2, 3]}, "places must be 2 numbers, not [1, 2, 3]"),
        ({"places": [1.5, 2.5]}, "type"),
    ],
)
def test_lists_of_numbers(make, changes, reason):
    node = make(numbers=[5, 6], places=[7, 8])
    read = values(node, TABLE)
    assert (read["numbers"], read["places"]) == ([5.0, 6.0], [7, 8])
    ((name, value),) = changes.items()
    (result,) = node.set_parameters([RosParameter(name, value=value)])
    assert not result.successful
    assert reason in result.reason


def test_only_files_without_a_section_for_the_node_are_useless(tmp_path):
    mine, other = tmp_path / "mine.yaml", tmp_path / "other.yaml"
    mine.write_text("/**/tried:\n  ros__parameters: {count: 1}\n")
    other.write_text("tried:\n  ros__parameters: {count: 1}\n")
    arguments = ["node", "--ros-args", "--params-file", str(mine), "--params-file", str(other), "-p", "count:=2"]
    assert not useless_files(arguments, "/tried")
    (sentence,) = useless_files(arguments, "/robot/tried")
    assert sentence.startswith(
        f"the parameter file {other} holds nothing for /robot/tried, only for /tried; write /**/tried:"
    )


def test_a_running_node_takes_what_the_documents_print_and_says_what_it_does_not_know(ros, tmp_path):
    """The form of docs/ros_api.md, under a namespace; misspelt names and sections; whole numbers."""
    import cv2
    import numpy as np

    cv2.imwrite(str(tmp_path / "0.png"), np.zeros((24, 32, 3), np.uint8))
    files = {"good": PLAYER.replace("SOURCE", str(tmp_path)), "bad": "camera_player:\n  ros__parameters: {rate: 5}\n"}
    arguments = []
    for name, content in files.items():
        (tmp_path / f"{name}.yaml").write_text(content)
        arguments += ["--params-file", str(tmp_path / f"{name}.yaml")]
    command = [sys.executable, "-m", "hassod_ros.nodes.camera_player", "--ros-args", "-r", "__ns:=/robot", *arguments]
    child = ros.run(command)
    ros.until(lambda: child.poll() is not None)
    printed = ros.stop(child)
    assert child.returncode == 0
    assert "finished after 2 images" in printed
    assert "there is no parameter sizes, so its value has no effect" in printed
    assert f"{tmp_path}/bad.yaml holds nothing for /robot/camera_player, only for /camera_player" in printed
