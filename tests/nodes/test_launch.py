"""Runs where launch and a colcon-built hassod_ros are installed."""

import pytest

pytest.importorskip("launch_ros", reason="launch and launch_ros are not installed; PyPI does not have them")

import os
import re
import signal
import sys
from pathlib import Path

import cv2
import numpy as np
from ament_index_python.packages import PackageNotFoundError, get_package_share_directory
from composition_interfaces.srv import LoadNode
from launch.launch_description_sources import get_launch_description_from_python_launch_file
from rcl_interfaces.srv import GetParameters
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Header

from hassod_msgs.msg import InstanceArray, Verdict
from hassod_ros.inspection.reference import learn, save
from hassod_ros.inspection.settings import Settings
from hassod_ros.nodes.convert import array_to_image
from tests.inspection.parts import part, taken
from tests.nodes.bench import bright

PROGRAM = """
import sys
from launch import LaunchDescription, LaunchService
from launch.actions import IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
file, *arguments = sys.argv[1:]
source = PythonLaunchDescriptionSource(file)
action = IncludeLaunchDescription(source, launch_arguments=[argument.split(":=") for argument in arguments])
service = LaunchService()
service.include_launch_description(LaunchDescription([action]))
sys.exit(service.run())
"""
RECORDER = """#!{python}
import pathlib, signal, sys
pathlib.Path({file!r}).write_text("\\n".join(sys.argv[1:]))
signal.sigwait([signal.SIGINT, signal.SIGTERM])
"""
FILES = ("perception", "multi_camera", "replay", "objects_3d", "manipulation")


@pytest.fixture
def folder():
    try:
        return Path(get_package_share_directory("hassod_ros")) / "launch"
    except PackageNotFoundError:
        pytest.skip("hassod_ros is not built by colcon here")


@pytest.fixture
def start(ros, folder):
    def start(name: str, *arguments: object):
        return ros.run([sys.executable, "-c", PROGRAM, f"{folder}/{name}.launch.py", *map(str, arguments)])

    return start


@pytest.fixture
def recorded(tmp_path, monkeypatch):
    """Put a program in the place of one that is not installed here; returns the file that gets its arguments."""

    def install(package: str, program: str) -> Path:
        prefix, file = tmp_path / "prefix", tmp_path / f"{program}.txt"
        script = prefix / "lib" / package / program
        script.parent.mkdir(parents=True)
        script.write_text(RECORDER.format(python=sys.executable, file=str(file)))
        script.chmod(0o755)
        index = prefix / "share" / "ament_index" / "resource_index" / "packages" / package
        index.parent.mkdir(parents=True, exist_ok=True)
        index.touch()
        monkeypatch.setenv("AMENT_PREFIX_PATH", f"{prefix}:{os.environ['AMENT_PREFIX_PATH']}")
        monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
        return file

    return install


def white() -> Image:
    return array_to_image(np.full((48, 64, 3), 250, np.uint8), "rgb8", Header())


def test_perception_activates_the_node_and_brings_a_killed_one_back(ros, start, model_file):
    arguments = ("namespace:=robot", "image:=/camera/image_raw", "prefix:=nice -n 5")
    child = start("perception", *arguments, f"model:={model_file}")
    camera = ros.node.create_publisher(Image, "/camera/image_raw", 10)
    answers = ros.collect(InstanceArray, "/robot/perception_node/instances")

    def answered() -> bool:
        camera.publish(white())
        return bool(answers)

    ros.until(answered, 60)
    with open(f"/proc/{child.pid}/task/{child.pid}/children") as file:
        (node,) = (int(pid) for pid in file.read().split())
    assert os.getpriority(os.PRIO_PROCESS, node) == 5
    os.kill(node, signal.SIGKILL)
    ros.until(lambda: not os.path.exists(f"/proc/{node}"))
    answers.clear()
    ros.until(answered, 60)


def test_arguments_that_are_not_given_leave_the_params_file_as_it_is(ros, start, model_file, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text(
        f"/**:\n  ros__parameters:\n    model: {model_file}\n    image_transport: compressed\n    max_instances: 1\n"
    )
    start("perception", f"params_file:={file}", "image:=/camera/image_raw")
    camera = ros.node.create_publisher(CompressedImage, "/camera/image_raw/compressed", 10)
    answers = ros.collect(InstanceArray, "/perception_node/instances")
    data = cv2.imencode(".jpg", bright(48, 64))[1].tobytes()

    def answered() -> bool:
        camera.publish(CompressedImage(format="jpeg", data=data))
        return bool(answers)

    ros.until(answered, 60)
    assert len(answers[0].instances) == 1


def test_multi_camera_serves_each_camera_under_its_name(ros, start, model_file):
    start("multi_camera", "cameras:=front,wrist=/arm/color/image", "namespace:=robot", f"model:={model_file}")
    topics = {"front": "/robot/front/image_raw", "wrist": "/arm/color/image"}
    cameras = [ros.node.create_publisher(Image, topic, 10) for topic in topics.values()]
    answers = [ros.collect(InstanceArray, f"/robot/perception_node/{name}/instances") for name in topics]

    def answered() -> bool:
        for camera in cameras:
            camera.publish(white())
        return all(answers)

    ros.until(answered, 60)


def test_replay_shows_a_folder_and_ends(ros, start, model_file, tmp_path):
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"{i}.png"), np.full((48, 64, 3), 250 - i, np.uint8))
    answers = ros.collect(InstanceArray, "/perception_node/instances")
    arguments = (f"source:={tmp_path}", "image:=/camera/image_raw", "rate:=5.0", "width:=32", "height:=24")
    child = start("replay", *arguments, f"model:={model_file}", "loop:=false")
    ros.until(lambda: ros.node.count_publishers("/camera/camera_info"), 60)
    ros.until(lambda: child.poll() is not None, 60)
    assert "finished after 5 images" in ros.stop(child)
    assert child.returncode == 0
    assert (answers[0].width, answers[0].height) == (32, 24)


def test_replay_plays_a_bag_on_its_own_clock_once_the_node_listens(ros, start, recorded, model_file, tmp_path):
    recorded("ros2bag", "ros2bag")
    arguments = recorded("ros2cli", "ros2")
    (tmp_path / "bag").mkdir()
    (tmp_path / "bag" / "metadata.yaml").touch()
    ros.collect(InstanceArray, "/perception_node/instances")  # without a use the node would leave the camera's topic
    start("replay", f"source:={tmp_path / 'bag'}", "speed:=0.5", f"model:={model_file}")
    ros.until(arguments.exists, 60)
    ros.executor.spin_once(timeout_sec=0.5)
    assert ros.node.count_subscribers("/image")
    options = ["--clock", "--rate", "0.5", "--delay", "1.0", "--loop"]
    assert arguments.read_text().split() == ["bag", "play", f"{tmp_path}/bag", *options]
    request = GetParameters.Request(names=["use_sim_time"])
    assert ros.call(GetParameters, "/perception_node/get_parameters", request).values[0].bool_value


def test_rviz_is_led_to_the_topics_of_the_first_camera(ros, start, recorded, model_file):
    arguments = recorded("rviz2", "rviz2")
    ros.collect(InstanceArray, "/robot/perception_node/front/instances")
    start("multi_camera", "namespace:=robot", f"model:={model_file}", "rviz:=true")
    ros.until(lambda: arguments.exists() and ros.node.count_subscribers("/robot/front/image_raw"), 60)
    given = arguments.read_text().split()
    assert "/image:=front/image_raw" in given
    assert "/perception_node/overlay:=/robot/perception_node/front/overlay" in given
    assert "/perception_node/labels/part:=/robot/perception_node/front/labels/part" in given
    assert Path(given[given.index("-d") + 1]).is_file()


def test_the_driver_of_a_camera_is_loaded_into_a_container(ros, start, model_file, tmp_path):
    loaded = []

    def load(request: LoadNode.Request, response: LoadNode.Response) -> LoadNode.Response:
        loaded.append(request)
        response.success = True
        return response

    ros.node.create_service(LoadNode, "/cameras/_container/load_node", load)
    ros.collect(InstanceArray, "/robot/perception_node/wrist/instances")
    file = tmp_path / "camera.yaml"
    file.write_text("/**:\n  ros__parameters:\n    frame_rate: 15.0\n")
    start(
        *("multi_camera", "container:=/cameras", "camera_driver:=v4l2_camera/v4l2_camera::V4L2Camera"),
        *("namespace:=robot", f"camera_params_file:={file}", f"model:={model_file}"),
    )
    ros.until(lambda: len(loaded) == 2 and ros.node.count_subscribers("/robot/wrist/image_raw"), 60)
    assert [(request.package_name, request.plugin_name) for request in loaded] == [
        ("v4l2_camera", "v4l2_camera::V4L2Camera")
    ] * 2
    assert [request.node_namespace for request in loaded] == ["/robot/front", "/robot/wrist"]
    given = {parameter.name: parameter.value for parameter in loaded[0].parameters}
    assert given["frame_rate"].double_value == 15.0


@pytest.mark.parametrize(
    ("name", "arguments", "sentence"),
    [
        ("perception", ["precision:=int8"], "give model:=PATH.onnx or model:=default too"),
        ("perception", ["model:=/nowhere/model.onnx", "precision:=int8"], "/nowhere/model-int8.onnx does not exist"),
        ("perception", ["model:=default", "precision:=fp16"], "the default model is not shipped in fp16"),
        ("perception", ["camera_driver:=usb_cam"], "write PACKAGE/CLASS"),
        ("perception", ["camera_params_file:=/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        ("perception", ["params_file:=/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        ("perception", ["prefix:=no_such_program -x"], "needs the program no_such_program"),
        ("perception", ["rviz:=maybe"], "rviz:=maybe is neither true nor false"),
        ("perception", ["prefix:='nice"], "cannot be read: No closing quotation"),
        ("multi_camera", ["cameras:=a,a"], "give each camera a name of its own"),
        ("multi_camera", ["cameras:=my cam"], "give each camera a name of its own"),
        ("inspection", ["mode:=once"], "once"),
        ("inspection", ["params_file:=/nowhere.yaml"], "/nowhere.yaml cannot be read"),
        ("inspection", ["source:=/tmp", "rate:=fast"], "rate:=fast is not a number"),
        ("inspection", ["source:=/tmp", "loop:=maybe"], "loop:=maybe is neither true nor false"),
        ("objects_3d", ["source:=/tmp", "rate:=fast"], "rate:=fast is not a number"),
        ("objects_3d", ["source:=/tmp", "loop:=maybe"], "loop:=maybe is neither true nor false"),
        ("manipulation", ["show:=maybe"], "show:=maybe is neither true nor false"),
        ("replay", ["source:=/tmp", "loop:=maybe"], "loop:=maybe is neither true nor false"),
        ("perception", ["log_level:=loud"], "loud"),
        ("replay", ["source:=/nowhere"], "the source /nowhere does not exist"),
        ("replay", ["source:=/tmp", "rate:=fast"], "rate:=fast is not a number"),
    ],
)
def test_wrong_arguments_end_the_launch_with_a_sentence_before_anything_starts(ros, start, name, arguments, sentence):
    child = start(name, *arguments)
    ros.until(lambda: child.poll() is not None, 60)
    printed = child.communicate()[0]
    assert child.returncode == 1
    assert sentence in printed
    assert "process started" not in printed


@pytest.mark.parametrize(
    ("arguments", "package"), [(["rviz:=true"], "rviz2"), (["camera_driver:=a_camera/A"], "rclcpp_components")]
)
def test_what_is_not_installed_ends_the_launch_before_anything_starts(ros, start, arguments, package):
    try:
        get_package_share_directory(package)
        pytest.skip(f"{package} is installed")
    except PackageNotFoundError:
        pass
    child = start("perception", *arguments)
    ros.until(lambda: child.poll() is not None, 60)
    printed = child.communicate()[0]
    assert f"needs the package {package}, which is not installed here" in printed
    assert "process started" not in printed


def test_a_node_with_a_wrong_parameter_is_not_started_again_and_again(ros, start, tmp_path):
    file = tmp_path / "wrong.yaml"
    file.write_text("perception_node:\n  ros__parameters: {max_rate: -5.0}\n")
    child = start("perception", f"params_file:={file}", "respawn:=true")
    ros.until(lambda: child.poll() is not None, 60)  # there is nothing left that runs
    printed = child.communicate()[0]
    assert "parameter max_rate is wrong" in printed
    assert printed.count("process started") == 1


@pytest.mark.parametrize(
    ("name", "node", "arguments"),
    [
        ("inspection", "inspection_node", []),
        ("inspection", "inspection_node", ["source:=SOURCE"]),
        ("objects_3d", "objects_3d_node", ["source:=SOURCE"]),
        ("replay", "perception_node", ["source:=SOURCE"]),
    ],
)
def test_a_node_with_a_wrong_parameter_stays_down_and_its_player_with_it(ros, start, tmp_path, name, node, arguments):
    file = tmp_path / "wrong.yaml"
    file.write_text(f"/**:\n  ros__parameters: {{diagnostics_period: -5.0}}\n{node}:\n  ros__parameters: {{}}\n")
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.full((48, 64, 3), 250, np.uint8))
    arguments = [argument.replace("SOURCE", str(tmp_path / "photos")) for argument in arguments]
    child = start(name, f"params_file:={file}", *arguments)
    ros.until(lambda: child.poll() is not None, 60)
    printed = child.communicate()[0]
    assert "parameter diagnostics_period is wrong" in printed
    assert printed.count(f"[{node}-") > 0
    assert printed.count("process started") == len(set(re.findall(r"\[(\w+)-\d+\]: process started", printed)))


def test_a_misspelt_argument_is_told(ros, start, tmp_path):
    child = start("replay", "source:=/nowhere", "params_fiel:=x.yaml", "rviz:=false")
    ros.until(lambda: child.poll() is not None, 60)
    told = [line for line in child.communicate()[0].splitlines() if "is no argument of" in line]
    assert len(told) == 1
    assert "params_fiel is no argument of replay.launch.py and does nothing; params_file is one" in told[0]


def test_a_params_file_for_another_node_is_refused(ros, start, tmp_path):
    file = tmp_path / "robot.yaml"
    file.write_text("perception_node:\n  ros__parameters: {max_rate: 5}\n")
    child = start("perception", "namespace:=robot", f"params_file:={file}")
    ros.until(lambda: child.poll() is not None, 60)
    assert f"{file} holds nothing for /robot/perception_node, only for /perception_node" in child.communicate()[0]


@pytest.mark.parametrize("name", FILES)
def test_every_argument_is_described(folder, name):
    description = get_launch_description_from_python_launch_file(f"{folder}/{name}.launch.py")
    declared = {argument.name: argument.description for argument in description.get_launch_arguments()}
    assert {"image", "model", "namespace", "params_file", "autostart", "use_sim_time", "rviz"} <= declared.keys()
    assert all(text.endswith((".", "]")) for text in declared.values())


def test_inspection_judges_a_folder_by_a_file_and_ends(ros, start, tmp_path):
    (tmp_path / "parts").mkdir()
    for i, picture in enumerate((part(), part(red=None))):
        cv2.imwrite(str(tmp_path / "parts" / f"{i}.png"), picture[..., ::-1])
    reference = learn([taken(part(), seed) for seed in range(3)], Settings(), name="plate")
    save(reference, tmp_path / "plate.npz")
    verdicts = ros.collect(Verdict, "/cell/inspection_node/verdict")
    arguments = (f"source:={tmp_path / 'parts'}", f"reference:={tmp_path / 'plate.npz'}", "model:=none")
    child = start("inspection", *arguments, "namespace:=cell", f"log_dir:={tmp_path / 'log'}")
    ros.until(lambda: child.poll() is not None, 90)
    assert "finished after 2 images" in ros.stop(child)
    assert child.returncode == 0
    assert [verdict.result for verdict in verdicts] == [Verdict.OK, Verdict.NG]
    assert verdicts[0].reference_name == "plate"
    assert len(list((tmp_path / "log").glob("*.jpg"))) == 1
