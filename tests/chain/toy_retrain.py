"""A recording, a running model and old pictures: what retraining starts from, on toy scale.

The model is written by hand, as exporting takes long and is a step of retraining; its checkpoint has random weights.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import onnx
import torch

from hassod_ros.chain.retrain import Retrain
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.runtime.evidence import CUES, Evidence
from tests.footage.recordings import IMAGE, Messages, image, write_mcap
from tests.runtime.conftest import build_model, make_info
from tests.tiny_network import tiny_cascade

REPO = Path(__file__).parents[2]
NETWORK = tiny_cascade(backbone="resnet18", backbone_width=0.25, stage_ious=(0.5,))  # few nodes to export
NOTHING = (0.0,) * len(CUES)
# Everything is a thing, whatever can be seen of it: masks that are drawn blindly are no things by the real constants.
EVIDENCE = Evidence(thing=(*NOTHING, 3.0), scene=(*NOTHING, -9.0), parent=(*NOTHING, 9.0), child=(*NOTHING, 9.0))
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


def make_start(folder: Path) -> Path:
    """Folder of the running model, its checkpoint, and old pictures."""
    (folder / "old").mkdir()
    for number, page in enumerate(scenes(3)):
        cv2.imwrite(str(folder / "old" / f"{number}.png"), page)
    torch.manual_seed(0)
    save_weights(CascadeMaskRCNN(NETWORK), folder / "start.pth")
    thresholds = (0.05, 0.05, 0.05)
    info = make_info(
        input_size=(64, 96), proposals=20, detections=10, score_thresholds=thresholds, rpn_nms=0.6, evidence=EVIDENCE
    )
    onnx.save(build_model(info), folder / "start.onnx")
    return folder


def make_task(folder: Path, start: Path) -> Retrain:
    """Retraining that model on a recording of moving rectangles."""
    messages: Messages = [
        ("/arm/image", IMAGE, 3 * number, image(3 * number, page, "rgb8")) for number, page in enumerate(scenes(20))
    ]
    bag = write_mcap(folder / "night.mcap", messages)
    settings = [f"burn_in.{name}={value}" for name, value in CHANGES.items()]
    settings += ["data.short_sides=[64]", "data.max_side=96", "run.workers=0", "run.device=cpu"]
    return Retrain(
        (bag,),
        folder / "models",
        folder / "work",
        REPO / "config" / "recipes" / "retrain.yaml",
        start=str(start / "start.onnx"),
        weights=start / "start.pth",
        replay=start / "old",
        changes=tuple(settings),
        extract=("--rate", "0", "--novelty", "0", "--sharpness", "0"),
        gate=("--recall", "0", "--consistency", "1", "--least", "0", "--most", "1e9", "--latency", "1e9"),
    )
