"""docs/training.md, "From the model that ships", command by command."""

import json
from pathlib import Path

import pytest
import torch

from hassod_ros.cli import main
from hassod_ros.default_model import default_model
from hassod_ros.detection.checkpoints import load_weights, open_detector
from tests.learning.conftest import write_toy_set

RECIPES = Path(__file__).parents[2] / "config" / "recipes"
STEPS = 2
RATE = 1e-4


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_thread")
def test_the_shipped_model_learns_from_a_few_labels_is_exported_and_finds_something(tmp_path):
    """Reported: "the shipped default cannot be fine-tuned"."""
    toy_set, run = write_toy_set(tmp_path / "toy"), tmp_path / "mine"
    words = ["--config", str(RECIPES / "default_model.yaml"), "--config", str(RECIPES / "retrain.yaml")]
    words += ["--burn_in.initial", "default", "--data.images", str(toy_set.images)]
    words += ["--data.annotations", str(toy_set.labels), "--run.output", str(run)]
    small = {"iterations": STEPS, "batch_size": 1, "learning_rate": RATE, "warmup": 0, "precise_bn": 2}
    words += [f"--burn_in.{name}={value}" for name, value in small.items()]
    words += ["--data.short_sides=[96]", "--data.max_side=128", "--run.workers=0", "--run.device=cpu"]
    assert main(["detector", *words]) == 0

    begun = (run / "burn_in" / "initial.pth").read_bytes()
    assert main(["detector", *words, "--data.short_sides=[64]"]) == 2  # refused: other settings
    assert (run / "burn_in" / "initial.pth").read_bytes() == begun

    checkpoint = run / "burn_in" / "model.pth"
    trained = open_detector(checkpoint)
    before = {name: value.clone() for name, value in trained.state_dict().items()}
    load_weights(trained, default_model())  # what it began with, in the same network
    shipped = trained.state_dict()
    heads = [name for name in shipped if name.endswith("weight") and shipped[name].ndim in (2, 4) and "mask" in name]
    assert heads
    moved = [float((before[name] - shipped[name]).abs().max()) for name in heads]
    assert max(moved) > 0
    assert max(moved) < 3 * STEPS * RATE  # AdamW moves a weight by about its rate in each step: these began there

    out = tmp_path / "mine.onnx"
    export = [
        "--out",
        str(out),
        "--images",
        str(toy_set.images),
        "--size",
        "96x128",
        "--score-thresholds",
        "0",
        "0",
        "0",
    ]
    export += ["--proposals", "20", "--detections", "10"]
    assert main(["to_onnx", str(checkpoint), *export]) == 0
    assert main(["predict", str(out), str(toy_set.images), "--out", str(tmp_path / "found")]) == 0
    found = json.loads(Path(tmp_path / "found" / "predictions.json").read_text())
    assert len(found["images"]) == len(toy_set.content["images"])
    assert len(found["annotations"]) > 0
    assert torch.isfinite(torch.tensor([a["score"] for a in found["annotations"]])).all()
