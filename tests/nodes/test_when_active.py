import sys
import time

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

from hassod_ros.nodes.when_active import main

WAIT = [sys.executable, "-m", "hassod_ros.nodes.when_active"]


def test_the_command_runs_once_the_node_is_active(ros, tmp_path):
    file = tmp_path / "ran"
    child = ros.run([*WAIT, "/perception_node", sys.executable, "-c", f"open({str(file)!r}, 'w')"])
    ros.start("threshold_node.py", model="threshold")
    assert ros.transition("perception_node", "configure")
    time.sleep(0.5)
    assert child.poll() is None
    assert not file.exists()
    assert ros.transition("perception_node", "activate")
    ros.until(lambda: child.poll() is not None)
    assert child.returncode == 0
    assert file.exists()


def test_waiting_ends_with_ctrl_c(ros):
    child = ros.run([*WAIT, "/nobody", "true"])
    ros.until(lambda: [1 for name, _ in ros.node.get_node_names_and_namespaces() if name == "when_active"])
    printed = ros.stop(child)
    assert child.returncode in (0, 130)
    assert "Traceback" not in printed
    ros.children.remove(child)


def test_without_a_command_the_use_is_said(capsys):
    for arguments in ([], ["/perception_node"]):
        assert main(arguments) == 2
        assert "use: when_active NODE COMMAND" in capsys.readouterr().err
