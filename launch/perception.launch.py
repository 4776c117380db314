"""Segments a camera's images: ros2 launch hassod_ros perception.launch.py image:=/camera/image_raw."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, SetEnvironmentVariable
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import Node
from launch_ros.parameter_descriptions import ParameterValue

CONFIG = Path(__file__).parent.parent / "config"

ARGUMENTS = (
    ("image", "image", "Topic of the camera's images (sensor_msgs/Image)."),
    ("model", "training_free", "Path of an exported model, or training_free, which needs none."),
    ("namespace", "", "Namespace of the node."),
    ("params_file", str(CONFIG / "perception.yaml"), "YAML file with the node's parameters."),
    ("autostart", "true", "Configure and activate the node, also after it died and was started again."),
    ("respawn", "true", "Start the node again when it dies."),
    ("use_sim_time", "false", "Take the time from /clock."),
    ("log_level", "info", "debug, info, warn, error or fatal."),
)


def generate_launch_description():
    profile = EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=str(CONFIG / "fastdds.xml"))
    # The node activates itself: a transition that the launch file asks for after a crash can reach the services of the
    # dead process, which stay visible for some seconds. It also works on distributions without LifecycleNode.autostart.
    node = Node(
        package="hassod_ros",
        executable="perception_node",
        name="perception_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "model": ParameterValue(LaunchConfiguration("model"), value_type=str),
                "autostart": ParameterValue(LaunchConfiguration("autostart"), value_type=bool),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            },
        ],
        remappings=[("image", LaunchConfiguration("image"))],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=1.0,
        output="screen",
    )
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS),
            # Without it images do not fit through Fast DDS's shared memory; other middlewares ignore it.
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
            node,
        ]
    )
