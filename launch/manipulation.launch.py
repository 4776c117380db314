"""objects_3d.launch.py for a robot arm: boxes in MoveIt's planning scene, and rviz with everything that was found.

ros2 launch hassod_ros manipulation.launch.py image:=/camera/color/image_raw depth:=... target_frame:=base_link
"""

from __future__ import annotations

from pathlib import Path

from launch import LaunchContext, LaunchDescription, LaunchDescriptionEntity
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, OpaqueFunction
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from hassod_ros.launching import full_name, is_true, require_package, tell_unknown

CONFIG = Path(__file__).parent.parent / "config"
OUTPUTS = ("markers", "cloud", "objects")


def generate_launch_description() -> LaunchDescription:
    objects = PythonLaunchDescriptionSource(str(Path(__file__).with_name("objects_3d.launch.py")))
    description = LaunchDescription(
        [
            # Declared before the included file declares it with an empty default.
            DeclareLaunchArgument(
                "planning_scene", default_value="/planning_scene", description="Topic of MoveIt's planning scene."
            ),
            DeclareLaunchArgument("show", default_value="true", description="Show clouds, boxes and grasps in rviz2."),
            OpaqueFunction(function=check),
            IncludeLaunchDescription(objects),
            OpaqueFunction(function=rviz),
        ]
    )
    return tell_unknown(__file__, description)


def check(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """Refuse what would fail after the nodes have been started."""
    if is_true("show", LaunchConfiguration("show").perform(context)):
        require_package("rviz2", "show:=true")
    return []


def rviz(context: LaunchContext) -> list[LaunchDescriptionEntity]:
    """rviz2 with the names of its layout led to the topics of the nodes."""
    given = {
        name: LaunchConfiguration(name).perform(context) for name in ("show", "namespace", "image", "use_sim_time")
    }
    target = LaunchConfiguration("target_frame").perform(context)
    frame = target or LaunchConfiguration("frame_id").perform(context)
    if not is_true("show", given["show"]):
        return []
    prefix = full_name(given["namespace"], "objects_3d_node")
    return [
        Node(
            package="rviz2",
            executable="rviz2",
            namespace=given["namespace"],
            parameters=[{"use_sim_time": is_true("use_sim_time", given["use_sim_time"])}],
            arguments=["-d", str(CONFIG / "rviz" / "manipulation.rviz"), "--fixed-frame", frame],
            remappings=[
                ("/image", given["image"]),
                *((f"/objects_3d_node/{name}", f"{prefix}/{name}") for name in OUTPUTS),
            ],
        )
    ]
