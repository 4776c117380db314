"""Segments a camera's images: ros2 launch hassod_ros perception.launch.py image:=/camera/image_raw."""

from __future__ import annotations

import re
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, OpaqueFunction, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import ComposableNodeContainer, LoadComposableNodes, Node
from launch_ros.descriptions import ComposableNode
from launch_ros.parameter_descriptions import ParameterValue

from hassod_ros.errors import InputError
from hassod_ros.launching import (
    full_name,
    give_up,
    is_true,
    model_path,
    require_component,
    require_package,
    require_program,
    tell_unknown,
)
from hassod_ros.params_file import require_section, sections

CONFIG = Path(__file__).parent.parent / "config"
NAME = "perception_node"
LEVELS = ("whole", "part", "subpart")

# For the node, the camera's driver and rviz, unless it is set already.
ENVIRONMENT = {
    # Without it images do not fit through Fast DDS's shared memory; other middlewares ignore it.
    "FASTDDS_DEFAULT_PROFILES_FILE": str(CONFIG / "fastdds.xml"),
    # glibc otherwise gives the memory of every large image back to the kernel and fetches it anew for the next.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(256 * 2**20),
}

# name, default, description, values allowed
ARGUMENTS = (
    ("image", "image", "Topic of the camera's images; with cameras: of each of them, below its name.", ()),
    ("cameras", "", "Several cameras in one node: front,wrist or front=/a/image_raw,wrist=/b/image. Empty: one.", ()),
    (
        "image_transport",
        "",
        "raw, or compressed for TOPIC/compressed. Empty: as in params_file.",
        ("", "raw", "compressed"),
    ),
    ("model", "", "Path of an exported model, default, default-int8 or training_free. Empty: as in params_file.", ()),
    (
        "precision",
        "",
        "fp16 or int8 takes MODEL-fp16.onnx or MODEL-int8.onnx, which lies beside MODEL.onnx. Empty or fp32: model.",
        ("", "fp32", "fp16", "int8"),
    ),
    ("namespace", "", "Namespace of the node, and of the camera's driver.", ()),
    ("params_file", str(CONFIG / "perception.yaml"), "YAML file with the node's parameters.", ()),
    ("autostart", "true", "Configure and activate the node, also after it died and was started again.", ()),
    ("respawn", "true", "Start the node again when it dies.", ()),
    ("use_sim_time", "false", "Take the time from /clock.", ()),
    ("log_level", "info", "Least level that is logged.", ("debug", "info", "warn", "error", "fatal")),
    ("prefix", "", "Command in front of the node's, to bind it to cores for example: taskset -c 2,3.", ()),
    ("rviz", "false", "Show image, overlay and label maps of the (first) camera in rviz2.", ()),
    (
        "camera_driver",
        "",
        "Component that publishes the images, as PACKAGE/CLASS: v4l2_camera/v4l2_camera::V4L2Camera. One is loaded for "
        "each camera, in the camera's namespace. Empty: the drivers run already.",
        (),
    ),
    ("camera_params_file", "", "YAML file with the parameters of the camera_driver.", ()),
    ("container", "", "Running container to load the camera_driver into. Empty: start one.", ()),
)


def generate_launch_description() -> LaunchDescription:
    description = LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text, choices=list(choices) or None)
                for name, value, text, choices in ARGUMENTS
            ),
            *(
                SetEnvironmentVariable(name, EnvironmentVariable(name, default_value=value))
                for name, value in ENVIRONMENT.items()
            ),
            OpaqueFunction(function=start),
        ]
    )
    return tell_unknown(__file__, description)


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The processes to start, now that the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    topics = camera_topics(given["cameras"], given["image"])
    check(given)
    node = perception(given, topics)
    actions: list[LaunchDescriptionEntity] = [node, give_up(node)]
    if given["camera_driver"]:
        actions.append(drivers(given, list(topics)))
    if is_true("rviz", given["rviz"]):
        actions.append(rviz(given, topics))
    return actions


def check(given: dict[str, str]) -> None:
    """Refuse what would fail after the first process has been started: that one would stay."""
    require_section(given["params_file"], full_name(given["namespace"], NAME))
    require_program(given["prefix"], f"prefix:={given['prefix']!r}")
    if is_true("rviz", given["rviz"]):
        require_package("rviz2", "rviz:=true")
    if given["camera_params_file"]:
        sections(given["camera_params_file"])
    if given["camera_driver"] and not given["container"]:  # a running container may have packages of its own
        package, _, plugin = given["camera_driver"].partition("/")
        if not plugin:
            raise InputError(f"camera_driver is {given['camera_driver']!r}; write PACKAGE/CLASS")
        require_package("rclcpp_components", "camera_driver")
        require_component(package, plugin, f"camera_driver:={given['camera_driver']}")


def perception(given: dict[str, str], topics: dict[str, str]) -> Node:
    """The node; arguments that are not given leave the params_file's values as they are."""
    parameters = {
        "autostart": is_true("autostart", given["autostart"]),
        "use_sim_time": is_true("use_sim_time", given["use_sim_time"]),
    }
    if model := model_path(given["model"], given["precision"]):
        parameters["model"] = ParameterValue(model, value_type=str)
    if given["image_transport"]:
        parameters["image_transport"] = given["image_transport"]
    if given["cameras"]:
        parameters["cameras"] = ParameterValue(list(topics), value_type=list[str])
    inputs = {f"{name}/image" if name else "image": topic for name, topic in topics.items()}
    # The node activates itself: a transition that the launch file asks for after a crash can reach the services of the
    # dead process, which stay visible for some seconds. It also works on distributions without LifecycleNode.autostart.
    return Node(
        package="hassod_ros",
        executable=NAME,
        name=NAME,
        namespace=given["namespace"],
        parameters=[given["params_file"], parameters],
        remappings=[
            *inputs.items(),
            *((f"{name}/compressed", f"{topic}/compressed") for name, topic in inputs.items()),
        ],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        prefix=given["prefix"],
        respawn=is_true("respawn", given["respawn"]),
        respawn_delay=1.0,
        output="screen",
    )


def drivers(given: dict[str, str], names: list[str]) -> ComposableNodeContainer | LoadComposableNodes:
    """A driver for each camera, together in one container."""
    package, _, plugin = given["camera_driver"].partition("/")
    file = given["camera_params_file"]
    nodes = [
        ComposableNode(
            package=package,
            plugin=plugin,
            name="camera",
            namespace="/".join(part for part in (given["namespace"], name) if part),
            parameters=[*([file] if file else []), {"use_sim_time": is_true("use_sim_time", given["use_sim_time"])}],
        )
        for name in names
    ]
    if given["container"]:
        return LoadComposableNodes(composable_node_descriptions=nodes, target_container=given["container"])
    return ComposableNodeContainer(
        package="rclcpp_components",
        executable="component_container",
        name="camera_container",
        namespace=given["namespace"],
        composable_node_descriptions=nodes,
        output="screen",
    )


def rviz(given: dict[str, str], topics: dict[str, str]) -> Node:
    """rviz2 with the names of its layout led to the topics of the first camera."""
    name, image = next(iter(topics.items()))
    outputs = full_name(given["namespace"], NAME, name)
    return Node(
        package="rviz2",
        executable="rviz2",
        namespace=given["namespace"],
        parameters=[{"use_sim_time": is_true("use_sim_time", given["use_sim_time"])}],
        arguments=["-d", str(CONFIG / "rviz" / "perception.rviz")],
        remappings=[
            ("/image", image),
            *((f"/{NAME}/{topic}", f"{outputs}/{topic}") for topic in ("overlay", *(f"labels/{x}" for x in LEVELS))),
        ],
    )


def camera_topics(cameras: str, image: str) -> dict[str, str]:
    """Topic by camera; the only camera of a node has no name."""
    if not cameras:
        return {"": image}
    topics: dict[str, str] = {}
    for entry in cameras.split(","):
        name, _, topic = entry.strip().partition("=")
        if not re.fullmatch(r"[A-Za-z]\w*", name) or name in topics:
            raise InputError(
                f"cameras:={cameras!r} holds {name!r} twice, or as a name that a topic cannot have; give each camera a "
                "name of its own, of letters, digits and underscores"
            )
        topics[name] = topic or f"{name}/{image.strip('/')}"
    return topics
