"""Segments photographs, a video or a bag: ros2 launch hassod_ros replay.launch.py source:=PHOTOS rviz:=true."""

from __future__ import annotations

import posixpath
import sys
from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
    SetLaunchConfiguration,
    Shutdown,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

from hassod_ros.errors import InputError
from hassod_ros.launching import (
    end_with_refusal,
    full_name,
    is_true,
    require_package,
    require_program,
    tell_unknown,
    to_number,
)

ARGUMENTS = (
    ("source", None, "Folder of images, text file with one path a line, image, video, or a bag (folder, mcap, db3)."),
    ("loop", "true", "Start again at the end; otherwise everything ends there."),
    ("rate", "30.0", "Photographs and videos: images per second."),
    ("speed", "1.0", "Bags: 2.0 plays twice as fast as recorded."),
    ("width", "0", "Photographs and videos: width in pixels, 0 = as they are."),
    ("height", "0", "Photographs and videos: height in pixels, 0 = as they are."),
    ("pan_zoom", "0.0", "Move a window over each photograph for so many seconds, 0 = show each photograph once."),
)
KINDS = {"rate": float, "speed": float, "pan_zoom": float, "width": int, "height": int}
GRACE = "1.0"  # s before each round of a bag


def generate_launch_description() -> LaunchDescription:
    perception = PythonLaunchDescriptionSource(str(Path(__file__).with_name("perception.launch.py")))
    description = LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS),
            OpaqueFunction(function=check),
            OpaqueFunction(function=choose_clock),
            IncludeLaunchDescription(perception),
            OpaqueFunction(function=play),
        ]
    )
    return tell_unknown(__file__, description)


def check(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Refuse what would fail after the node has been started."""
    source = Path(LaunchConfiguration("source").perform(context)).expanduser()
    if not source.exists():
        raise InputError(f"the source {source} does not exist; check the path")
    if is_bag(source):
        require_program("ros2", "a bag")
        require_package("ros2bag", "a bag")
    for name, kind in KINDS.items():
        to_number(name, LaunchConfiguration(name).perform(context), kind)
    is_true("loop", LaunchConfiguration("loop").perform(context))
    return []


def choose_clock(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """With a bag the time is the bag's."""
    bag = is_bag(Path(LaunchConfiguration("source").perform(context)).expanduser())
    return [SetLaunchConfiguration("use_sim_time", "true")] if bag else []


def play(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """The process that publishes the images, on the topic that the node listens to."""

    def given(name: str) -> str:
        return LaunchConfiguration(name).perform(context)

    source = Path(given("source")).expanduser().absolute()
    loop = is_true("loop", given("loop"))
    if is_bag(source):
        # What is played before the node listens is lost; after that both sides still need a moment to find each other.
        node = full_name(given("namespace"), "perception_node")
        wait = [sys.executable, "-m", "hassod_ros.nodes.when_active", node]
        options = ["--clock", "--rate", given("speed"), "--delay", GRACE, *(["--loop"] if loop else [])]
        command = [*wait, "ros2", "bag", "play", str(source), *options]
        return [ExecuteProcess(cmd=command, output="screen", on_exit=Shutdown()), end_with_refusal()]
    image = given("image")
    return [
        Node(
            package="hassod_ros",
            executable="camera_player",
            namespace=given("namespace"),
            parameters=[
                {"source": ParameterValue(str(source), value_type=str), "loop": loop, "wait": True},
                {name: kind(given(name)) for name, kind in KINDS.items() if name != "speed"},
            ],
            remappings=[
                ("image", image),
                ("camera_info", posixpath.join(posixpath.dirname(image), "camera_info")),
            ],
            output="screen",
            on_exit=Shutdown(),
        ),
        end_with_refusal(),
    ]


def is_bag(source: Path) -> bool:
    """Whether rosbag2 wrote it."""
    return source.suffix in (".mcap", ".db3") or (source / "metadata.yaml").is_file()
