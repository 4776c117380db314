"""An inspection cell: ros2 launch hassod_ros inspection.launch.py image:=/camera/image_raw, or source:=FOLDER."""

from __future__ import annotations

import posixpath
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, ExecuteProcess, OpaqueFunction, SetEnvironmentVariable, Shutdown
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from hassod_ros.errors import InputError
from hassod_ros.launching import full_name, give_up, is_true, require_package, require_program, tell_unknown, to_number
from hassod_ros.params_file import require_section

CONFIG = Path(__file__).parent.parent / "config"
NAME = "inspection_node"
GRACE = "1.0"  # s before a bag

ARGUMENTS = (
    ("image", "image", "Topic of the camera's images."),
    ("trigger", "trigger", "Topic of the triggers (std_msgs/Empty)."),
    ("source", "", "In place of a camera: folder of images, text file with one path a line, image, video, or a bag."),
    ("rate", "2.0", "Photographs and videos: images per second."),
    ("loop", "false", "Photographs, videos and bags: start again at the end; otherwise everything ends there."),
    ("reference", "", "Name of the reference, or an .npz file of learn_reference. Empty: the one last in use."),
    ("mode", "", "triggered or continuous. Empty: as in params_file, and continuous with a source."),
    ("model", "", "Path of an exported detector, default, default-int8 or none. Empty: as in params_file."),
    ("log_dir", "", "Folder of a log with pictures of bad parts. Empty: as in params_file."),
    ("namespace", "", "Namespace of the node."),
    ("params_file", str(CONFIG / "inspection.yaml"), "YAML file with the node's parameters."),
    ("use_sim_time", "false", "Take the time from /clock; a bag does."),
    ("respawn", "true", "Start the node again when it dies."),
)
CHOICES = {"mode": ["", "triggered", "continuous"]}


def generate_launch_description() -> LaunchDescription:
    profile = EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=str(CONFIG / "fastdds.xml"))
    description = LaunchDescription(
        [
            *(
                DeclareLaunchArgument(name, default_value=value, description=text, choices=CHOICES.get(name))
                for name, value, text in ARGUMENTS
            ),
            # Without it images do not fit through Fast DDS's shared memory; other middlewares ignore it.
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
            OpaqueFunction(function=start),
        ]
    )
    return tell_unknown(__file__, description)


def start(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The processes to start, now that the arguments are known."""
    given = {name: LaunchConfiguration(name).perform(context) for name, *_ in ARGUMENTS}
    source = Path(given["source"]).expanduser().absolute() if given["source"] else None
    require_section(given["params_file"], full_name(given["namespace"], NAME))
    if source is None:
        return [node := inspection(given), give_up(node)]
    if not source.exists():
        raise InputError(f"the source {source} does not exist; check the path")
    if is_bag(source):
        require_program("ros2", "a bag")
        require_package("ros2bag", "a bag")
        given["use_sim_time"] = "true"
    given["mode"] = given["mode"] or "continuous"
    node, camera = inspection(given), player(given, source)
    return [node, camera, give_up(node, camera)]


def inspection(given: dict[str, str]) -> Node:
    """The node; arguments that are not given leave the params_file's values as they are."""
    parameters = {"autostart": True, "use_sim_time": is_true("use_sim_time", given["use_sim_time"])}
    for name in ("reference", "mode", "model", "log_dir"):
        if given[name]:
            parameters[name] = ParameterValue(given[name], value_type=str)
    return Node(
        package="hassod_ros",
        executable=NAME,
        name=NAME,
        namespace=given["namespace"],
        parameters=[given["params_file"], parameters],
        remappings=[
            ("image", given["image"]),
            ("image/compressed", f"{given['image']}/compressed"),
            ("trigger", given["trigger"]),
        ],
        respawn=is_true("respawn", given["respawn"]),
        respawn_delay=1.0,
        output="screen",
    )


def player(given: dict[str, str], source: Path) -> Node | ExecuteProcess:
    """What publishes the images of a source, on the topic that the node listens to."""
    if is_bag(source):
        # What is played before the node listens is lost; after that both sides still need a moment to find each other.
        command = [
            sys.executable,
            "-m",
            "hassod_ros.nodes.when_active",
            full_name(given["namespace"], NAME),
            "ros2",
            "bag",
            "play",
            str(source),
        ]
        loop = ["--loop"] if is_true("loop", given["loop"]) else []
        return ExecuteProcess(cmd=[*command, "--clock", "--delay", GRACE, *loop], output="screen", on_exit=Shutdown())
    image = given["image"]
    return Node(
        package="hassod_ros",
        executable="camera_player",
        namespace=given["namespace"],
        parameters=[
            {
                "source": ParameterValue(str(source), value_type=str),
                "loop": is_true("loop", given["loop"]),
                "rate": to_number("rate", given["rate"], float),
                "wait": True,
            }
        ],
        remappings=[("image", image), ("camera_info", posixpath.join(posixpath.dirname(image), "camera_info"))],
        output="screen",
        on_exit=Shutdown(),
    )


def is_bag(source: Path) -> bool:
    """Whether rosbag2 wrote it."""
    return source.suffix in (".mcap", ".db3") or (source / "metadata.yaml").is_file()
