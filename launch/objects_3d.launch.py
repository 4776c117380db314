"""Finds things in space: ros2 launch hassod_ros objects_3d.launch.py image:=/camera/color/image_raw depth:=...

With source:=FOLDER recorded colour and depth take the camera's place.
"""

from __future__ import annotations

import posixpath
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetEnvironmentVariable,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from hassod_ros.errors import InputError
from hassod_ros.launching import full_name, give_up, is_true, tell_unknown, to_number
from hassod_ros.params_file import require_section

CONFIG = Path(__file__).parent.parent / "config"
NAME = "objects_3d_node"

ARGUMENTS = (
    ("image", "image", "Topic of the camera's colour images."),
    ("camera_info", "", "Topic of their camera_info. Empty: camera_info beside image."),
    ("depth", "depth", "Topic of the depth images."),
    ("depth_info", "", "Topic of their camera_info. Empty: camera_info beside depth; with source: depth/camera_info."),
    ("source", "", "Recorded colour and depth instead of a camera: a folder, an index of frames, or a recording."),
    ("rate", "5.0", "With source: images per second."),
    ("loop", "true", "With source: start again at the end; otherwise everything ends there."),
    ("frame_id", "camera", "With source: frame of the images, where the source does not say."),
    ("target_frame", "", "Frame to publish in. Empty: as in params_file."),
    ("planning_scene", "", "Topic of MoveIt's planning scene. Empty: ~/planning_scene."),
    ("namespace", "", "Namespace of the nodes."),
    ("params_file", str(CONFIG / "manipulation.yaml"), "YAML file with the parameters of both nodes."),
    ("autostart", "true", "Configure and activate the nodes."),
    ("use_sim_time", "false", "Take the time from /clock."),
    ("log_level", "info", "Least level that is logged."),
)


def generate_launch_description() -> LaunchDescription:
    perception = PythonLaunchDescriptionSource(str(Path(__file__).with_name("perception.launch.py")))
    profile = EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=str(CONFIG / "fastdds.xml"))
    description = LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS),
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
            OpaqueFunction(function=check),
            IncludeLaunchDescription(perception),
            OpaqueFunction(function=start),
        ]
    )
    return tell_unknown(__file__, description)


def check(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Refuse what would fail after the first node has been started."""
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    require_section(given["params_file"], full_name(given["namespace"], NAME))
    if given["source"] and not Path(given["source"]).expanduser().exists():
        raise InputError(f"the source {given['source']} does not exist; check the path")
    for name in ("loop", "autostart", "use_sim_time"):
        is_true(name, given[name])
    to_number("rate", given["rate"], float)
    return []


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """objects_3d_node, and the player where there is a source."""
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    beside = "depth/camera_info" if given["source"] else "camera_info"
    image, depth = given["image"], given["depth"]
    topics = {
        "image": image,
        "camera_info": given["camera_info"] or posixpath.join(posixpath.dirname(image), "camera_info"),
        "depth": depth,
        "depth/camera_info": given["depth_info"] or posixpath.join(posixpath.dirname(depth), beside),
    }
    parameters = {
        "autostart": is_true("autostart", given["autostart"]),
        "use_sim_time": is_true("use_sim_time", given["use_sim_time"]),
    }
    if given["target_frame"]:
        parameters["target_frame"] = ParameterValue(given["target_frame"], value_type=str)
    outputs = {"~/planning_scene": given["planning_scene"]} if given["planning_scene"] else {}
    node = Node(
        package="hassod_ros",
        executable=NAME,
        name=NAME,
        namespace=given["namespace"],
        parameters=[given["params_file"], parameters],
        remappings=[*topics.items(), ("instances", "perception_node/instances"), *outputs.items()],
        arguments=["--ros-args", "--log-level", given["log_level"]],
        respawn=True,
        respawn_delay=1.0,
        output="screen",
    )
    actions: list[LaunchDescriptionEntity] = [node]
    if given["source"]:
        source = str(Path(given["source"]).expanduser().absolute())
        actions.append(
            Node(
                package="hassod_ros",
                executable="camera_player",
                namespace=given["namespace"],
                parameters=[
                    {
                        "source": ParameterValue(source, value_type=str),
                        "frame_id": ParameterValue(given["frame_id"], value_type=str),
                        "rate": to_number("rate", given["rate"], float),
                        "loop": is_true("loop", given["loop"]),
                        "wait": True,
                    }
                ],
                remappings=list(topics.items()),
                output="screen",
                on_exit=Shutdown(),
            )
        )
    return [*actions, give_up(*actions)]
