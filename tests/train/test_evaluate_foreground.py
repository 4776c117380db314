"""`evaluate --task ...`, from a folder of pictures to figures."""

import json

import numpy as np
import pytest
from PIL import Image

from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.method import make_method
from hassod_ros.discovery.states import save_state
from hassod_ros.images import read_image
from hassod_ros.train.evaluate import main

FEATURES = ["--features", "handcrafted"]
SMALL = ["--set=size=96", "--set=crf=null"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A set in the layouts of ECSSD and of plain labels: a disc before a plain wall."""
    root = tmp_path_factory.mktemp("set")
    for kind in ("images", "ground_truth_mask", "labels"):
        (root / kind).mkdir()
    for seed in range(4):
        rng = np.random.default_rng(seed)
        y, x = np.mgrid[:96, :128]
        mask = (y - 48) ** 2 + (x - 44 - 10 * seed) ** 2 < 26**2
        image = np.full((96, 128, 3), (90, 110, 140), np.uint8)
        image[mask] = rng.integers(0, 30, (mask.sum(), 3)) + ((220, 60, 0) if seed % 2 else (0, 220, 20))
        Image.fromarray(image).save(root / "images" / f"{seed}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(root / "ground_truth_mask" / f"{seed}.png")
        Image.fromarray((mask * (1 + seed % 2)).astype(np.uint8)).save(root / "labels" / f"{seed}.png")
    return root


@pytest.fixture(scope="module")
def state(folder, tmp_path_factory):
    method = make_method(
        "lightcluster", {"size": 96, "crf": None, "levels": ["image"], "image_clusters": 3, "classes": 2}
    )
    features = load_features("handcrafted")
    pictures = (read_image(path) for path in sorted((folder / "images").iterdir()))
    path = tmp_path_factory.mktemp("state") / "lightcluster.npz"
    save_state(path, method.fit((method.prepare(each, 8) for each in pictures), features))
    return path


def run(task, folder, tmp_path, *options):
    status = main(["--task", task, "--annotations", str(folder), "--report", str(tmp_path), *options])
    assert status == 0
    return json.loads((tmp_path / "metrics.json").read_text())["scores"]


def test_baselines_and_a_learner_see_the_disc(folder, state, tmp_path):
    border = run("saliency", folder, tmp_path, "--method", "border", *FEATURES, *SMALL)
    whole = run("saliency", folder, tmp_path, "--method", "whole", *FEATURES, *SMALL)
    learnt = run("saliency", folder, tmp_path, "--method", "lightcluster", *FEATURES, "--state", str(state))
    assert border["IoU"] > 1.5 * whole["IoU"]
    assert learnt["IoU"] > 1.5 * whole["IoU"]
    assert whole["IoU"] == pytest.approx(np.pi * 26**2 / (96 * 128), abs=0.01)


def test_maps_of_a_folder_are_scored(folder, tmp_path):
    perfect = run("saliency", folder, tmp_path, "--predictions", str(folder / "ground_truth_mask"))
    assert (perfect["IoU"], perfect["MAE"]) == (1, 0)
    classes = run("segmentation", folder, tmp_path, "--predictions", str(folder / "labels"))
    assert (classes["mIoU"], classes["majority mIoU"]) == (1, 1)


def test_classes_and_retrieval(folder, state, tmp_path):
    options = ["--method", "lightcluster", *FEATURES, "--state", str(state)]
    segmented = run("segmentation", folder, tmp_path, *options)
    assert 0 < segmented["mIoU"] <= segmented["majority accuracy"] <= 1
    assert segmented["mIoU std"] > 0
    retrieved = run("retrieval", folder, tmp_path, *options)
    assert 0.2 < retrieved["mIoU"] <= retrieved["accuracy"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--task", "saliency"], "scores a --method or the maps"),
        (["--task", "saliency", "--method", "lightcluster", *FEATURES], "give its file with --state"),
        (["--task", "segmentation", "--method", "border", *FEATURES], "needs a method with classes"),
        (["--task", "retrieval", "--predictions", "x"], "maps do not hold"),
        (["--task", "saliency", "--method", "border", *FEATURES, "--set=colour=1"], "has only the options size"),
        (["--task", "saliency", "--method", "border", *FEATURES, "--state", "x.npz"], "learns nothing"),
        (["--task", "corloc", "--method", "border", *FEATURES], "known layouts of boxes"),
        (["--method", "border"], "--method is for --task saliency"),
    ],
)
def test_what_does_not_fit_is_said(folder, capsys, options, message):
    if "--method" not in options and "--predictions" not in options:
        options = [*options, "--model", "none.onnx"]
    annotations = folder / "ground_truth_mask" / "0.png" if options[0] == "--method" else folder
    if options[0] == "--method":
        annotations = folder / "truth.json"
        annotations.write_text('{"images": [{"id": 1, "file_name": "a", "height": 4, "width": 4}], "annotations": []}')
    assert main(["--annotations", str(annotations), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_map_of_another_size_and_a_missing_one(folder, tmp_path, capsys):
    Image.fromarray(np.zeros((5, 5), np.uint8)).save(tmp_path / "0.png")
    command = ["--task", "saliency", "--annotations", str(folder), "--predictions", str(tmp_path)]
    assert main(command) == 2
    assert "0.png is 5x5, its picture 128x96" in capsys.readouterr().err
    (tmp_path / "0.png").unlink()
    assert main(command) == 2
    assert "has no map 0.png" in capsys.readouterr().err
