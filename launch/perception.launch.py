"""Segments a camera's images: ros2 launch hassod_ros perception.launch.py image:=/camera/image_raw."""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    EmitEvent,
    GroupAction,
    RegisterEventHandler,
    SetEnvironmentVariable,
)
from launch.conditions import IfCondition
from launch.event_handlers import OnProcessStart
from launch.events import matches_action
from launch.substitutions import EnvironmentVariable, LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from launch_ros.parameter_descriptions import ParameterValue
from lifecycle_msgs.msg import Transition

CONFIG = Path(__file__).parent.parent / "config"

ARGUMENTS = (
    ("image", "image", "Topic of the camera's images (sensor_msgs/Image)."),
    ("model", "training_free", "Path of an exported model, or training_free, which needs none."),
    ("namespace", "", "Namespace of the node."),
    ("params_file", str(CONFIG / "perception.yaml"), "YAML file with the node's parameters."),
    ("autostart", "true", "Configure and activate the node, also after it was started again."),
    ("respawn", "true", "Start the node again when it dies."),
    ("use_sim_time", "false", "Take the time from /clock."),
    ("log_level", "info", "debug, info, warn, error or fatal."),
)


def generate_launch_description():
    node = LifecycleNode(
        package="hassod_ros",
        executable="perception_node",
        name="perception_node",
        namespace=LaunchConfiguration("namespace"),
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "model": ParameterValue(LaunchConfiguration("model"), value_type=str),
                "use_sim_time": ParameterValue(LaunchConfiguration("use_sim_time"), value_type=bool),
            },
        ],
        remappings=[("image", LaunchConfiguration("image"))],
        arguments=["--ros-args", "--log-level", LaunchConfiguration("log_level")],
        respawn=LaunchConfiguration("respawn"),
        respawn_delay=1.0,
        output="screen",
    )

    def change(transition):
        return EmitEvent(event=ChangeState(lifecycle_node_matcher=matches_action(node), transition_id=transition))

    # LifecycleNode(autostart=True) would be shorter, but older distributions do not have it.
    configure = OnProcessStart(target_action=node, on_start=[change(Transition.TRANSITION_CONFIGURE)])
    activate = OnStateTransition(
        target_lifecycle_node=node,
        start_state="configuring",
        goal_state="inactive",
        entities=[change(Transition.TRANSITION_ACTIVATE)],
    )
    profile = EnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", default_value=str(CONFIG / "fastdds.xml"))
    return LaunchDescription(
        [
            *(DeclareLaunchArgument(name, default_value=value, description=text) for name, value, text in ARGUMENTS),
            # Without it images do not fit through Fast DDS's shared memory; other middlewares ignore it.
            SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
            GroupAction(
                [RegisterEventHandler(configure), RegisterEventHandler(activate)],
                scoped=False,
                condition=IfCondition(LaunchConfiguration("autostart")),
            ),
            node,
        ]
    )
