"""From a recording to a registered model on toy pictures, with a network of random weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from hassod_ros.chain import retrain as module
from hassod_ros.chain.retrain import Retrain, plan, retrain
from hassod_ros.chain.voted_labels import vote
from hassod_ros.default_model import default_model
from hassod_ros.deploy.onnx_export import ExportOptions, export_onnx
from hassod_ros.deploy.registry import Registry
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import open_detector, save_weights
from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.instances import Instances
from tests.footage.recordings import IMAGE, Messages, image, write_mcap

pytestmark = [pytest.mark.timeout(900), pytest.mark.usefixtures("one_thread")]

REPO = Path(__file__).parents[2]
NETWORK = DetectorConfig(
    backbone="resnet18",
    fpn_channels=16,
    anchor_sizes=(8.0, 16.0, 32.0, 64.0, 128.0),
    rpn_pre_nms=(100, 50),
    rpn_post_nms=(50, 20),
    rpn_samples=32,
    box_samples=32,
    box_layers=1,
    box_width=32,
    mask_layers=1,
    mask_channels=16,
    detections=20,
)
CHANGES = {
    "iterations": 3,
    "batch_size": 2,
    "warmup": 1,
    "precise_bn": 0,
}


def scenes(count: int) -> list[np.ndarray]:
    """Rectangles that move before a background that changes slowly."""
    found = []
    for number in range(count):
        page = np.full((64, 96, 3), 60 + 3 * number, np.uint8)
        cv2.rectangle(page, (5 + 2 * number, 10), (30 + 2 * number, 40), (200, 40, 40), -1)
        cv2.rectangle(page, (60, 5 + number), (90, 25 + number), (30, 200, 60), -1)
        found.append(page)
    return found


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the running model, its checkpoint, and old pictures."""
    folder = tmp_path_factory.mktemp("start")
    (folder / "old").mkdir()
    for number, page in enumerate(scenes(3)):
        cv2.imwrite(str(folder / "old" / f"{number}.png"), page)
    torch.manual_seed(0)
    save_weights(CascadeMaskRCNN(NETWORK), folder / "start.pth")
    options = ExportOptions(
        input_size=(64, 96), images=folder / "old", proposals=20, detections=10, score_thresholds=(0.05, 0.05, 0.05)
    )
    export_onnx(open_detector(folder / "start.pth"), folder / "start.onnx", options, weights_sha256="")
    return folder


@pytest.fixture
def task(tmp_path: Path, start: Path) -> Retrain:
    messages: Messages = [
        ("/arm/image", IMAGE, 3 * number, image(3 * number, page, "rgb8")) for number, page in enumerate(scenes(20))
    ]
    bag = write_mcap(tmp_path / "night.mcap", messages)
    settings = [f"burn_in.{name}={value}" for name, value in CHANGES.items()]
    settings += ["data.short_sides=[64]", "data.max_side=96", "run.workers=0", "run.device=cpu"]
    return Retrain(
        (bag,),
        tmp_path / "models",
        tmp_path / "work",
        REPO / "config" / "recipes" / "retrain.yaml",
        start=str(start / "start.onnx"),
        weights=start / "start.pth",
        replay=start / "old",
        changes=tuple(settings),
        extract=("--rate", "0", "--novelty", "0", "--sharpness", "0"),
        gate=("--recall", "0", "--consistency", "1", "--least", "0", "--most", "1e9", "--latency", "1e9"),
    )


def test_a_recording_becomes_a_registered_model_and_the_same_call_does_nothing_again(task: Retrain) -> None:
    said: list[str] = []
    version = retrain(task, said.append)
    names = [line.split()[0] for line in said[:6]]
    assert names == ["extract", "labels", "train", "export", "gate", "register"]
    assert all(" to do " in line for line in said[:6])

    registry = Registry(task.registry)
    assert (version.number, version.status) == (2, "accepted")
    assert version.record["parent"] == {"version": "perception/1", "sha256": sha256(task.start)}
    assert version.record["provenance"]["sources"][0]["sha256"] == sha256(task.sources[0])
    assert version.weights is not None
    assert open_detector(version.weights).config == dataclasses.replace(NETWORK)
    assert (version.folder / "report.html").is_file()
    assert registry.aliases() == {"stable": 1}

    steps = {step.name: step for step in plan(task, registry.resolve("1"))}
    labels = json.loads(steps["labels"].path("labels.json").read_text())
    assert {image["file_name"].split("/")[0] for image in labels["images"]} == {"new", "old"}
    assert len(labels["annotations"]) > 0

    said.clear()
    assert retrain(dataclasses.replace(task, start="stable"), said.append).number == 2
    assert all(" done " in line for line in said)


def test_what_is_wrong_is_said_before_the_first_step(task: Retrain, tmp_path: Path) -> None:
    for change, sentence in (
        ({"start": "nightly"}, "is no registry of models"),
        ({"weights": None}, "cannot be trained further without its checkpoint"),
        ({"sources": (tmp_path / "none.mcap",)}, "none.mcap does not exist"),
        ({"recipe": tmp_path / "none.yaml"}, "the recipe .* does not exist"),
        ({"replay": tmp_path / "none"}, "is no folder"),
    ):
        with pytest.raises(InputError, match=sentence):
            retrain(dataclasses.replace(task, **change), lambda line: None)
    assert not task.work.exists()


def test_missing_packages_are_named_before_the_first_step(task: Retrain, monkeypatch: pytest.MonkeyPatch) -> None:
    from hassod_ros.chain import steps

    monkeypatch.setattr(steps, "find_spec", lambda name: None if name == "onnxscript" else object())
    with pytest.raises(InputError, match=r"packages are missing: onnxscript \(step export\)"):
        retrain(task, lambda line: None)


def test_training_goes_on_from_the_shipped_file(task: Retrain) -> None:
    network = module._network(dataclasses.replace(task, recipe=REPO / "config/recipes/retrain.yaml"), default_model())
    open_detector(default_model(), network)  # every weight fits
    elsewhere = dataclasses.replace(task, recipe=task.registry / "retrain.yaml")
    with pytest.raises(InputError, match="does not say which network it holds"):
        module._network(elsewhere, default_model())


def masks(*boxes: tuple[int, int, int, int]) -> Instances:
    dense = np.zeros((len(boxes), 64, 96), bool)
    for mask, (x0, y0, x1, y1) in zip(dense, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_dense(dense, image_size=(64, 96))


def test_a_mask_counts_where_two_of_three_looks_see_it() -> None:
    both, only_model, model_and_discovery = (5, 5, 25, 25), (40, 5, 60, 25), (70, 5, 90, 25)
    mirror_and_discovery, only_discovery, inside = (5, 35, 25, 60), (40, 35, 60, 60), (8, 8, 20, 20)

    def flip(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
        return 96 - box[2], box[1], 96 - box[0], box[3]

    plain = np.zeros((64, 96, 3), np.uint8)
    plain[:, :48] = 255

    def segment(picture: np.ndarray) -> Instances:
        if picture[0, 0, 0]:
            return masks(both, only_model, model_and_discovery, inside)
        return masks(*map(flip, (both, mirror_and_discovery, inside)))

    found = vote(plain, segment, masks(model_and_discovery, mirror_and_discovery, only_discovery))
    boxes = {tuple(box) for box in found.boxes.astype(int).tolist()}
    assert boxes == {both, model_and_discovery, mirror_and_discovery, inside}
    levels = dict(zip(map(tuple, found.boxes.astype(int).tolist()), found.levels.tolist(), strict=True))
    assert levels[inside] == 1
    assert levels[both] == 0
    alone = vote(plain, segment, None)
    assert {tuple(box) for box in alone.boxes.astype(int).tolist()} == {both, inside}
