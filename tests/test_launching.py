"""What the launch files check; tests/nodes/test_launch.py tries the files themselves, where launch is installed."""

import pytest

pytest.importorskip("ament_index_python", reason="ROS 2 is missing: source scripts/env.sh")

from hassod_ros.errors import InputError
from hassod_ros.launching import (
    full_name,
    is_true,
    model_path,
    require_component,
    require_package,
    require_program,
    to_number,
    unknown_arguments,
)


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A prefix with the package `a_camera`, which registers two components."""
    index = tmp_path / "share" / "ament_index" / "resource_index"
    for kind, content in (("packages", ""), ("rclcpp_components", "a::Mono;lib/m.so\na::Stereo;lib/s.so\n")):
        (index / kind).mkdir(parents=True)
        (index / kind / "a_camera").write_text(content)
    (index / "packages" / "plain").touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", str(tmp_path))


def test_packages_and_components_that_are_installed_pass(installed):
    require_package("a_camera", "x:=y")
    require_component("a_camera", "a::Stereo", "camera_driver:=a_camera/a::Stereo")


@pytest.mark.parametrize("name", ["rviz2", "no such name"])
def test_a_missing_package_is_named_with_its_remedy(installed, name):
    with pytest.raises(InputError, match=f"rviz:=true needs the package {name}, which .* sudo apt install ros-"):
        require_package(name, "rviz:=true")


@pytest.mark.parametrize(
    ("package", "have"), [("a_camera", "it has: a_camera/a::Mono, a_camera/a::Stereo"), ("plain", "it has: none")]
)
def test_a_component_that_does_not_exist_is_refused_with_those_that_do(installed, package, have):
    with pytest.raises(InputError, match=f"the package {package} has no component a::Depth; {have}"):
        require_component(package, "a::Depth", "camera_driver")


def test_arguments_that_a_launch_file_does_not_have_are_named_with_the_nearest(tmp_path):
    file = tmp_path / "perception.launch.py"
    file.touch()
    known, typed = ("model", "image"), ["modle:=a.onnx", "image:=/x", "zzz:=b:=c", "--debug"]
    sentences = [
        "modle is no argument of perception.launch.py and does nothing; model is one",
        "zzz is no argument of perception.launch.py and does nothing; there are: image, model",
    ]
    launch = ["/opt/ros/bin/ros2", "launch"]
    assert unknown_arguments(file, known, [*launch, "hassod_ros", "perception.launch.py", *typed]) == sentences
    assert unknown_arguments(file, known, [*launch, str(file), *typed]) == sentences
    # Another file that includes this one may have arguments of its own.
    assert unknown_arguments(file, known, [*launch, "my_robot", "perception.launch.py", *typed]) == []
    assert unknown_arguments(file, known, [*launch, "hassod_ros", "replay.launch.py", *typed]) == []
    assert unknown_arguments(file, known, []) == []


def test_programs():
    require_program("python3 -c 'pass'", "prefix")
    require_program("", "prefix")
    with pytest.raises(InputError, match="prefix cannot be read: No closing quotation"):
        require_program("nice 'a", "prefix")
    with pytest.raises(InputError, match="prefix needs the program no_such_program"):
        require_program("no_such_program -x 'a b'", "prefix")


def test_the_model_in_a_precision(tmp_path):
    for name in ("a.onnx", "a-int8.onnx"):
        (tmp_path / name).touch()
    path = str(tmp_path / "a.onnx")
    assert model_path(path, "int8") == str(tmp_path / "a-int8.onnx")
    assert [model_path(path, precision) for precision in ("", "fp32")] == [path] * 2
    assert model_path("default", "int8") == "default-int8"
    assert model_path("", "") == ""


@pytest.mark.parametrize(
    ("model", "precision", "sentence"),
    [
        ("default", "fp16", "not shipped in fp16 .there is: default, default-int8"),
        ("", "int8", "give model:=PATH.onnx or model:=default too"),
        ("", "fp16", "give model:=PATH.onnx too"),
        ("training_free", "fp16", "give model:=PATH.onnx too"),
        ("/nowhere/a.onnx", "fp16", "/nowhere/a-fp16.onnx does not exist; export it with to_onnx --precision fp16"),
    ],
)
def test_advice_about_precisions_works(model, precision, sentence):
    with pytest.raises(InputError, match=sentence):
        model_path(model, precision)


def test_yes_and_no_and_numbers_are_read_or_named():
    assert [is_true("loop", text) for text in ("true", "False")] == [True, False]
    assert (to_number("rate", "2.5", float), to_number("width", "640", int)) == (2.5, 640)
    with pytest.raises(InputError, match=r"^loop:=maybe is neither true nor false$"):
        is_true("loop", "maybe")
    with pytest.raises(InputError, match=r"^rate:=fast is not a number$"):
        to_number("rate", "fast", float)
    with pytest.raises(InputError, match=r"^width:=2\.5 is not a whole number$"):
        to_number("width", "2.5", int)


def test_slashes_around_a_namespace_and_empty_parts_leave_no_trace_in_a_name():
    assert full_name("/cell/", "perception_node") == full_name("cell", "perception_node") == "/cell/perception_node"
    assert full_name("", "perception_node", "left") == "/perception_node/left"
    assert full_name("", "perception_node", "") == "/perception_node"
