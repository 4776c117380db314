import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.train.evaluate import main
from tests.tiny_network import narrow_cascade


@pytest.fixture
def data(tmp_path):
    """Two pictures with one object each, and predictions that find one of the two."""
    annotations, images = [], []
    for i in (1, 2):
        mask = np.zeros((48, 64), np.uint8, order="F")
        mask[8:40, 10:50] = 1
        code = rle.encode(mask)
        code = {"size": code["size"], "counts": code["counts"].decode()}
        area = int(mask.sum())
        annotations.append(
            {"id": i, "image_id": i, "segmentation": code, "bbox": [10, 8, 40, 32], "area": area, "iscrowd": 0}
        )
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
        pixels = np.full((48, 64, 3), 100, np.uint8)
        pixels[:, ::8] = 200  # in a blank picture nothing is found
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (tmp_path / "found.json").write_text(json.dumps([annotations[0] | {"score": 0.9}]))
    return tmp_path


def test_predictions_become_tables_and_report(data, capsys):
    arguments = ["--annotations", data / "truth.json", "--images", data, "--predictions", data / "found.json"]
    assert main([str(argument) for argument in [*arguments, "--report", data / "report"]]) == 0
    assert "2 images, 2 annotations, 1 predictions" in capsys.readouterr().out
    metrics = json.loads((data / "report" / "metrics.json").read_text())
    assert metrics["mask"]["AR@1"] == 0.5
    assert len(metrics["facts"]["predictions sha256"]) == 64
    assert (data / "report" / "report.html").stat().st_size > 5000


@pytest.fixture
def checkpoint_arguments(data):
    """Evaluation of an untrained detector on the two pictures."""
    torch.manual_seed(0)
    config = narrow_cascade(box_width=16, mask_channels=8, rpn_post_nms=(50, 20))
    save_weights(CascadeMaskRCNN(config), data / "model.pth")
    arguments = ["--annotations", data / "truth.json", "--images", data, "--checkpoint", data / "model.pth"]
    options = ["--short-side", 64, "--max-detections", 7, "--report", data / "report"]
    return [str(argument) for argument in [*arguments, *options]]


def test_checkpoint(data, checkpoint_arguments):
    assert main(checkpoint_arguments) == 0
    predictions = json.loads((data / "report" / "predictions.json").read_text())
    assert 0 < len(predictions) <= 14
    assert {"level", "parent_id", "score"} <= predictions[0].keys()
    metrics = json.loads((data / "report" / "metrics.json").read_text())
    assert metrics["counts"]["predictions"] == len(predictions)


def test_exported_model_gives_all_it_finds(data):
    spec = importlib.util.spec_from_file_location("models", Path(__file__).parents[1] / "runtime" / "conftest.py")
    models = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(models)
    info = models.make_info(score_thresholds=(0.99, 0.99, 0.99))  # a robot would show nothing
    onnx.save(models.build_model(info), data / "model.onnx")
    arguments = ["--annotations", data / "truth.json", "--images", data, "--model", data / "model.onnx"]
    assert main([str(argument) for argument in [*arguments, "--report", data / "report"]]) == 0
    metrics = json.loads((data / "report" / "metrics.json").read_text())
    assert metrics["counts"]["predictions_per_image"] == len(models.BOXES)
    assert metrics["mask"]["AR@10"] > 0  # its first box overlaps the object with IoU 0.76


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--predictions", "absent.json"], "absent.json cannot be read"),
        (["--model", "absent.onnx"], "a model needs the images"),
        (["--model", "absent.onnx", "--images", "."], "absent.onnx"),
        (["--model", "defualt", "--images", "."], "the nearest name is default"),
        (["--model", "training_free", "--images", "."], "training_free is no file; make labels with pseudo_label"),
        (["--checkpoint", "absent.pth", "--images", "."], "absent.pth"),
        (["--checkpoint", "absent.pth", "--images", ".", "--color-weight", "-1"], "color_weight must not be negative"),
    ],
)
def test_bad_input_is_one_sentence(data, capsys, arguments, message):
    assert main(["--annotations", str(data / "truth.json"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert len(error.splitlines()) == 1


def test_runs_from_a_checkout(data):
    command = [sys.executable, "-m", "hassod_ros.train.evaluate", "--annotations", str(data / "none.json")]
    done = subprocess.run([*command, "--predictions", "x"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "none.json cannot be read" in done.stderr


def test_a_checkpoint_is_not_taken_for_an_exported_model(data, capsys):
    """It would be letterboxed to another size, and --short-side would count for nothing."""
    arguments = ["--annotations", data / "truth.json", "--images", data, "--model", data / "model.pth"]
    (data / "model.pth").write_bytes(b"")
    assert main([str(argument) for argument in arguments]) == 2
    assert "is no exported model (.onnx); give a trained detector with --checkpoint" in capsys.readouterr().err


def test_a_missing_picture_and_one_of_another_size_are_found_before_the_work(data, capsys):
    (data / "1.png").unlink()
    Image.fromarray(np.zeros((3, 2000, 3), np.uint8)).save(data / "2.png")
    arguments = ["--annotations", data / "truth.json", "--images", data, "--model", "default-fp32"]
    assert main([str(argument) for argument in [*arguments, "--report", data / "report"]]) == 2
    error = capsys.readouterr().err
    assert "2 of 2 pictures are faulty: " in error
    assert "1.png does not exist" in error
    assert "2.png is (3, 2000) (height, width), its annotations are for (48, 64)" in error
    assert not (data / "report" / "predictions.json").exists()


def test_what_was_predicted_is_kept_when_a_picture_fails(data, checkpoint_arguments, capsys):
    noise = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    Image.fromarray(noise).save(data / "1.png")
    Image.fromarray(noise).save(data / "2.png")
    (data / "2.png").write_bytes((data / "2.png").read_bytes()[:4000])  # its header is whole
    assert main(checkpoint_arguments) == 2
    assert "2.png is damaged" in capsys.readouterr().err
    predictions = json.loads((data / "report" / "predictions.json").read_text())
    assert {prediction["image_id"] for prediction in predictions} == {1}


@pytest.mark.parametrize("file", ["truth", "found"])
def test_run_lengths_that_do_not_add_up_are_named_where_evaluation_never_ended(data, capsys, file):
    content = json.loads((data / f"{file}.json").read_text())
    entries = content["annotations"] if file == "truth" else content
    entries[0]["segmentation"] = {"size": [48, 64], "counts": [100, 50, 10_000_000]}
    (data / f"{file}.json").write_text(json.dumps(content))
    assert main(["--annotations", str(data / "truth.json"), "--predictions", str(data / "found.json")]) == 2
    assert "run lengths that add up to 10000150, its image has 3072 pixels" in capsys.readouterr().err
