"""Segments several cameras with one model: ros2 launch hassod_ros multi_camera.launch.py cameras:=front,wrist."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration

from hassod_ros.launching import tell_unknown

ARGUMENTS = (
    ("cameras", "front,wrist", "Names of the cameras, or NAME=TOPIC where a topic is not NAME/IMAGE."),
    ("image", "image_raw", "Topic of each camera's images, below its name."),
)


def generate_launch_description() -> LaunchDescription:
    perception = PythonLaunchDescriptionSource(str(Path(__file__).with_name("perception.launch.py")))
    names = [name for name, *_ in ARGUMENTS]
    description = LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS),
            IncludeLaunchDescription(
                perception, launch_arguments=[(name, LaunchConfiguration(name)) for name in names]
            ),
        ]
    )
    return tell_unknown(__file__, description)
