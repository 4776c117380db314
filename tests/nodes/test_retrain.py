"""One command: a recording in, a better model on running nodes out, under load."""

import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hassod_msgs.msg import InstanceArray
from hassod_ros.chain.retrain import Retrain, plan
from hassod_ros.deploy.registry import Registry
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.files import sha256
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.train import retrain
from tests.chain.toy_retrain import NETWORK, REPO, make_start, make_task, scenes

NODES = ("/r1/perception_node", "/r2/perception_node")
RATE = 30.0  # Hz


def words_of(task: Retrain) -> list[str]:
    """The command line of that task."""
    named = {
        "registry": task.registry,
        "work": task.work,
        "recipe": task.recipe,
        "from": task.start,
        "weights": task.weights,
        "replay": task.replay,
        "extract": " ".join(task.extract),
        "gate": " ".join(task.gate),
        "rollout": "--watch 1",
    }
    words = [*map(str, task.sources), *(f"--{name}={value}" for name, value in named.items())]
    return [*words, *(f"--set={change}" for change in task.changes), "--nodes", *NODES]


@pytest.mark.timeout(900)
def test_a_recording_becomes_a_model_on_running_nodes_and_the_same_call_does_nothing_again(ros, tmp_path, capsys):
    task = make_task(tmp_path, make_start(tmp_path))
    old = sha256(task.start)
    camera = ros.node.create_publisher(Image, "/image", 10)
    pages = itertools.cycle(scenes(20))

    def publish() -> None:  # once there is a new model: training has the cores for itself before
        if not any(Path(task.work).glob("export-*/model.onnx")):
            return
        header = Header(stamp=ros.node.get_clock().now().to_msg(), frame_id="camera")
        camera.publish(array_to_image(next(pages), "rgb8", header))

    ros.node.create_timer(1 / RATE, publish)
    ran: dict[str, list[str]] = {}
    for node in NODES:
        names = ["-r", f"__ns:={node.rpartition('/')[0]}", "-r", "image:=/image"]
        values = ["-p", f"model:={task.start}", "-p", "autostart:=true", "-p", "diagnostics_period:=0.2"]
        ros.run([sys.executable, "-m", "hassod_ros.nodes.perception_node", "--ros-args", *values, *names])
        ran[node] = []
        ros.node.create_subscription(InstanceArray, f"{node}/instances", _note(ran[node]), 50)

    command = [sys.executable, str(REPO / "train" / "retrain.py"), *words_of(task)]
    environment = {**os.environ, "ROS_DOMAIN_ID": str(ros.domain), "OMP_NUM_THREADS": "1"}
    with open(tmp_path / "said", "w", encoding="utf-8") as said:
        child = subprocess.Popen(command, env=environment, stdout=said, stderr=subprocess.STDOUT)
        ros.until(lambda: child.poll() is not None, 800)
    printed = (tmp_path / "said").read_text()
    assert child.returncode == 0, printed
    names = [line.split()[0] for line in printed.splitlines()[:8]]
    assert names == ["extract", "labels", "train", "average", "export", "gate", "register", "rollout"], printed
    assert all(" to do " in line for line in printed.splitlines()[:8])

    registry = Registry(task.registry)
    version = registry.resolve("2")
    assert version.status == "accepted"
    assert version.record["parent"] == {"version": "perception/1", "sha256": old}
    assert version.record["provenance"]["sources"][0]["sha256"] == sha256(task.sources[0])
    assert open_detector(version.weights).config == NETWORK
    trained = open_detector(next(Path(task.work).glob("train-*/burn_in/model.pth"))).state_dict()
    begun, kept = open_detector(task.weights).state_dict(), open_detector(version.weights).state_dict()
    name = "roi_heads.box_head.0.fc1.weight"
    assert (trained[name] - begun[name]).abs().max() > 0
    torch.testing.assert_close(kept[name], 0.7 * begun[name] + 0.3 * trained[name])
    was, now = read_model_info(task.start), read_model_info(version.model)
    assert now.evidence == was.evidence is not None
    assert now.rpn_nms == was.rpn_nms == 0.6  # not as trained
    assert (version.folder / "report.html").is_file()
    labels = json.loads(next(Path(task.work).glob("labels-*/labels.json")).read_text())
    assert {image["file_name"].split("/")[0] for image in labels["images"]} == {"new", "old"}
    assert len(labels["annotations"]) > 0

    for models in ran.values():  # each node went over once, and never back
        count = len(models)
        ros.until(lambda models=models, count=count: len(models) > count + 2)
        change = models.index(version.sha256)
        assert (set(models[:change]), set(models[change:])) == ({old}, {version.sha256})
    assert registry.aliases() == {"stable": 2}

    steps = plan(task, registry.resolve("1"))
    assert all(step.done for step in steps)
    before = [step.folder.stat().st_mtime_ns for step in steps]
    capsys.readouterr()
    assert retrain.main(words_of(task)) == 0
    again = capsys.readouterr().out
    assert all(" done " in line for line in again.splitlines()[:8]), again
    assert [step.folder.stat().st_mtime_ns for step in steps] == before


def _note(models: list[str]):
    return lambda message: models.append(message.model_sha256)
