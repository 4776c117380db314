"""package.xml against what the package uses."""

import ast
import os
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
catkin = pytest.importorskip("catkin_pkg.package", reason="catkin_pkg reads package.xml; run scripts/setup_env.sh")

PROGRAMS = {"rviz2", "rclcpp_components", "ros2bag"}  # that the launch files start
OPTIONAL = {"vision_msgs", "rviz2", "rclcpp_components", "ros2bag", "rosbag2_storage_mcap"}
INTERFACES = (".msg", ".srv")


def declared(**environment: str) -> set[str]:
    package = catkin.parse_package(ROOT / "package.xml")
    package.evaluate_conditions(environment)
    return {each.name for each in package.exec_depends if each.evaluated_condition}


def imported() -> set[str]:
    """ROS packages whose messages the nodes import and cannot do without: those in a `try` they can."""
    names = set()
    for file in (*ROOT.glob("hassod_ros/nodes/*.py"), *ROOT.glob("launch/*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ImportFrom) and node.module and node.module.endswith(INTERFACES):
                names.add(node.module.partition(".")[0])
    return names


def test_what_the_nodes_import_and_the_launch_files_start_is_declared():
    assert imported() | PROGRAMS | {"rclpy", "launch_ros", "python3-onnxruntime-pip"} <= declared()


def test_a_robot_can_do_without_what_is_optional():
    assert declared() - declared(HASSOD_MINIMAL="1") == OPTIONAL


def test_the_player_of_the_readme_publishes_where_its_launch_listens():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (launched,) = re.findall(r"perception\.launch\.py image:=(\S+)", readme)
    (played,) = re.findall(r"camera_player .*-r image:=(\S+)", readme)
    assert launched == played


@pytest.mark.skipif(not (Path(sys.prefix) / "bin" / "colcon").is_file(), reason="colcon is not installed here")
def test_a_workspace_that_is_built_with_links_has_every_script(tmp_path):
    """colcon build --symlink-install, as most tutorials have it."""
    import subprocess

    build = [f"{sys.prefix}/bin/colcon", "--log-base", "log", "build", "--symlink-install", "--merge-install"]
    build += ["--base-paths", str(ROOT), "--packages-select", "hassod_ros"]
    subprocess.run(build, cwd=tmp_path, check=True, capture_output=True)
    scripts = tmp_path / "install" / "lib" / "hassod_ros"
    assert {"perception_node", "camera_player", "to_onnx", "evaluate"} <= {file.name for file in scripts.iterdir()}
    search = [*(tmp_path / "install" / "lib").glob("python3*/site-packages"), tmp_path / "build" / "hassod_ros"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, search))}
    done = subprocess.run(
        [scripts / "shrink_photos", "--help"], cwd=tmp_path, env=environment, check=True, capture_output=True, text=True
    )
    assert "usage: " in done.stdout
    share = tmp_path / "install" / "share" / "hassod_ros"
    assert (share / "launch" / "perception.launch.py").resolve() == ROOT / "launch" / "perception.launch.py"
