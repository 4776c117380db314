"""The whole chain on toy photographs."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import ray
import torch
from PIL import Image
from torch.distributed.launcher.api import elastic_launch

from hassod_ros.chain import steps
from hassod_ros.chain.default_model import (
    DefaultModelRecipe,
    ExportConfig,
    LabelConfig,
    PoolConfig,
    SelfTrainingConfig,
    make_default_model,
    plan,
)
from hassod_ros.chain.steps import Step
from hassod_ros.coco import to_coco
from hassod_ros.deploy import onnx_export
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.discovery.features import load_features
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.learning import together
from hassod_ros.learning.config import (
    DataConfig,
    MeanTeacherConfig,
    RelabelConfig,
    RunConfig,
    StageConfig,
    save_recipe,
)
from hassod_ros.learning.pretraining.config import PretrainConfig
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.train import default_model as script

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("one_thread")]

REPO = Path(__file__).parents[2]
STAGE = {"optimizer": "adamw", "learning_rate": 0.002, "warmup": 2, "precision": "fp32", "precise_bn": 0}


@pytest.fixture
def photos(tmp_path) -> Path:
    """Eight pictures of two rectangles each, and their annotations beside them."""
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    images, annotations = [], []
    for i in range(1, 9):
        pixels, masks = np.full((64, 96, 3), 30 * i, np.uint8), np.zeros((2, 64, 96), bool)
        masks[0, 8:40, 10 : 30 + i] = masks[1, 20:60, 50 + i : 90] = True
        for mask in masks:
            pixels[mask] = random.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{i}.jpg")
        images.append({"id": i, "file_name": f"{i}.jpg", "height": 64, "width": 96})
        annotations += to_coco(Instances.from_dense(masks, image_size=(64, 96)), i, first_id=len(annotations) + 1)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (tmp_path / "dev.json").write_text(json.dumps(content))
    return folder


@pytest.fixture
def recipe(photos, tmp_path) -> DefaultModelRecipe:
    return DefaultModelRecipe(
        model=DetectorConfig(
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
        ),
        data=DataConfig(short_sides=(64,), max_side=96),
        burn_in=StageConfig(iterations=24, batch_size=2, **STAGE),
        mean_teacher=MeanTeacherConfig(iterations=3, batch_size=2, unlabelled_batch=2, **STAGE),
        run=RunConfig(str(tmp_path / "run"), device="cpu", workers=0, checkpoint_every=1, log_every=4, picture_every=0),
        pool=PoolConfig(str(photos)),
        features=PretrainConfig(
            picture_side=48,
            width=24,
            depth=2,
            global_size=32,
            local_size=16,
            local_views=1,
            prototypes=32,
            head_width=16,
            iterations=4,
            batch_size=4,
        ),
        labels=LabelConfig("tiny", set=("size=64", "crf=null", "filters.min_area=20"), cpus=1),
        export=ExportConfig(size=(64, 96), proposals=30, detections=10, int8=False),
    )


def _with(recipe: DefaultModelRecipe, **sections: dict) -> DefaultModelRecipe:
    changed = {name: dataclasses.replace(getattr(recipe, name), **values) for name, values in sections.items()}
    return dataclasses.replace(recipe, **changed)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def _place_labels(recipe: DefaultModelRecipe, tmp_path: Path) -> dict[str, Step]:
    """The steps by name, with the annotations in the place of pseudo-labels."""
    steps = {step.name: step for step in plan(recipe)}
    steps["labels"].folder.mkdir(parents=True)
    shutil.copyfile(tmp_path / "dev.json", steps["labels"].path("labels.json"))
    return steps


def test_labels_come_from_pre_trained_features(recipe, tmp_path):
    recipe = dataclasses.replace(recipe, until="labels")
    folders = make_default_model(recipe, list)
    ray_runs = ray.is_initialized()
    assert list(folders) == ["pool", "features", "labels"]
    info = json.loads((folders["labels"] / "labels.json").read_text())["info"]
    weights = load_features("tiny", folders["features"] / "features.safetensors", "cpu", "fp32").weights_sha256
    assert (info["features"], info["weights_sha256"], info["config"]["size"]) == ("tiny", weights, 64)
    assert not ray_runs
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*")}
    assert make_default_model(recipe, list) == folders
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*.*")} == before


def test_two_processes_share_the_batches(recipe, tmp_path, monkeypatch):
    started = []

    def launch(config, entry):
        started.append(config.nproc_per_node)
        return elastic_launch(config, entry)

    monkeypatch.setattr(together, "elastic_launch", launch)
    recipe = _with(recipe, labels={"features": "handcrafted"}, burn_in={"iterations": 2})
    recipe = dataclasses.replace(recipe, processes=2, until="burn_in")
    steps = _place_labels(recipe, tmp_path)
    make_default_model(recipe, list)
    saved = torch.load(steps["burn_in"].path("burn_in/checkpoint.pt"), weights_only=True)
    assert (saved["iteration"], started) == (2, [2])


def test_what_one_of_several_processes_says_arrives(recipe, tmp_path):
    recipe = dataclasses.replace(_with(recipe, labels={"features": "handcrafted"}), processes=2, until="burn_in")
    steps = _place_labels(recipe, tmp_path)
    steps["labels"].path("labels.json").write_text("{}")
    with pytest.raises(InputError, match=r"one of 2 processes that train together failed: InputError: .*labels\.json"):
        make_default_model(recipe, list)


def test_a_killed_chain_goes_on_and_ends_with_the_same_weights(recipe, tmp_path):
    recipe = dataclasses.replace(_with(recipe, labels={"features": "handcrafted"}), until="mean_teacher")
    steps = _place_labels(recipe, tmp_path)
    elsewhere = _with(recipe, run={"output": str(tmp_path / "elsewhere")})
    _place_labels(elsewhere, tmp_path)
    save_recipe(recipe, tmp_path / "recipe.yaml")
    command = [sys.executable, str(REPO / "train" / "default_model.py"), "--config", str(tmp_path / "recipe.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    checkpoint = steps["burn_in"].path("burn_in/checkpoint.pt")
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 900
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.kill()
    process.wait()
    assert steps["pool"].done
    assert not steps["burn_in"].done
    assert 1 <= torch.load(checkpoint, weights_only=True)["iteration"] < 24

    said: list[str] = []
    make_default_model(recipe, said.append)
    assert [line[14:22].strip() for line in said[:4]] == ["done", "done", "continue", "to do"]
    make_default_model(elsewhere)
    there = next(step for step in plan(elsewhere) if step.name == "mean_teacher")
    ours, theirs = (_weights(step.path("mean_teacher/model.pth")) for step in (steps["mean_teacher"], there))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_second_round_learns_from_what_the_detector_finds(recipe, tmp_path):
    second = SelfTrainingConfig(
        rounds=1,
        average=True,
        relabel=RelabelConfig(sides=(96,), score_threshold=0.0, detections=5, color_weight=0.0, mask_threshold=0.3),
        burn_in=StageConfig(iterations=2, batch_size=2, **STAGE),
        mean_teacher=MeanTeacherConfig(iterations=2, batch_size=2, unlabelled_batch=2, **STAGE),
    )
    recipe = dataclasses.replace(_with(recipe, labels={"features": "handcrafted"}), until="average")
    recipe = dataclasses.replace(recipe, self_training=second)
    steps = _place_labels(recipe, tmp_path)
    torch.manual_seed(0)
    for name in ("burn_in", "mean_teacher"):  # as if they had been trained
        save_weights(CascadeMaskRCNN(recipe.model), steps[name].path(f"{name}/model.pth"))
    folders = make_default_model(recipe, list)
    assert list(folders)[-5:] == ["mean_teacher", "relabel_2", "burn_in_2", "mean_teacher_2", "average"]
    labels = json.loads((folders["relabel_2"] / "labels.json").read_text())
    assert len(labels["images"]) == 8
    assert 0 < len(labels["annotations"]) <= 40
    name = "roi_heads.box_head.0.fc1.weight"  # two small steps away from where the round began
    stages = {"mean_teacher": "mean_teacher", "burn_in_2": "burn_in", "mean_teacher_2": "mean_teacher"}
    first, then, last = (_weights(folders[step] / f"{stage}/model.pth")[name] for step, stage in stages.items())
    assert 0 < (then - first).abs().max() < 0.01
    assert 0 < (last - then).abs().max() < 0.01
    torch.testing.assert_close(_weights(folders["average"] / "model.pth")[name], (then + last) / 2)
    saved = torch.load(folders["burn_in_2"] / "burn_in/checkpoint.pt", weights_only=True)
    assert saved["settings"]["run.seed"] == recipe.run.seed + 1


def test_export_and_report_follow_a_trained_model(recipe, photos, tmp_path, monkeypatch, capsys):
    dev = {"annotations": str(tmp_path / "dev.json"), "images": str(photos), "count": 3}
    int8 = {"int8": True, "int8_size": (96, 128), "int8_detections": 5, "int8_score_thresholds": (0.4, 0.4, 0.4)}
    changes = {"rpn_nms": 0.7, "nms": 0.6, "mask_threshold": 0.4, "sampling_ratio": 1}
    recipe = _with(recipe, dev=dev, labels={"features": "handcrafted"}, export=changes | int8)
    monkeypatch.setattr(onnx_export, "average_recall", lambda *_: 0.5)  # that of random weights is chance
    real, configs = onnx_export.export_onnx, []
    monkeypatch.setattr(
        onnx_export, "export_onnx", lambda model, *args, **kw: (configs.append(model.config), real(model, *args, **kw))
    )
    steps = _place_labels(recipe, tmp_path)
    assert list(steps) == ["pool", "labels", "burn_in", "mean_teacher", "export", "report", "export_int8"]
    torch.manual_seed(0)
    for name in ("burn_in", "mean_teacher"):  # as if they had been trained
        save_weights(CascadeMaskRCNN(recipe.model), steps[name].path(f"{name}/model.pth"))
    said: list[str] = []
    folders = make_default_model(recipe, said.append)
    assert list(folders) == list(steps)
    assert said[-1].startswith("export_int8: ")
    assert configs == [recipe.model.changed(**changes)] * 2
    info = read_model_info(steps["export"].path("model.onnx"))
    assert (info.recipe, info.input_size, info.detections) == ("default_model", (64, 96), 10)
    assert info.score_thresholds == (0.5, 0.5, 0.5)
    info = read_model_info(steps["export_int8"].path("model_int8.onnx"))
    assert (info.precision, info.input_size, info.detections) == ("int8", (96, 128), 5)
    assert info.score_thresholds == (0.4, 0.4, 0.4)
    scores = json.loads(steps["report"].path("scores.json").read_text())
    assert list(scores) == ["labels", "model"]
    assert all(found["counts"]["images"] == 3 for found in scores.values())
    assert scores["labels"]["mask"]["AR@100"] > 0.1
    ratio = scores["model"]["mask"]["AR@100"] / scores["labels"]["mask"]["AR@100"]
    assert f"AR@100 of the model is {ratio:.2f} times" in capsys.readouterr().out
    for name in scores:
        assert (steps["report"].folder / name / "report.html").is_file()
    other = {step.name: step.folder for step in plan(_with(recipe, export={"int8_size": None}))}
    assert [name for name, folder in other.items() if folder != folders[name]] == ["export_int8"]
    record = json.loads(steps["export"].path("step.json").read_text())
    assert list(record["outputs"]) == ["model.onnx"]


def test_each_value_renews_the_steps_that_depend_on_it_and_no_others(recipe, photos, tmp_path):
    def renewed(other: DefaultModelRecipe) -> list[str]:
        old = {step.name: step.folder.name for step in plan(recipe)}
        return [step.name for step in plan(other) if old.get(step.name) != step.folder.name]

    trained = ["burn_in", "mean_teacher", "export"]
    assert renewed(recipe) == []
    assert renewed(_with(recipe, run={"output": "elsewhere", "workers": 3, "device": "cuda"})) == []
    assert renewed(_with(recipe, labels={"cpus": 2})) == []
    assert renewed(_with(recipe, export={"detections": 20})) == ["export"]
    assert renewed(_with(recipe, mean_teacher={"ema_decay": 0.9})) == ["mean_teacher", "export"]
    assert renewed(_with(recipe, model={"box_width": 64})) == trained
    assert renewed(_with(recipe, labels={"set": ()})) == ["labels", *trained]
    assert renewed(_with(recipe, features={"depth": 3})) == ["features", "labels", *trained]
    everything = ["pool", "features", "labels", *trained]
    assert renewed(_with(recipe, run={"seed": 1})) == everything[1:]
    assert renewed(_with(recipe, pool={"max_side": 50})) == everything
    shutil.copytree(photos, tmp_path / "copy")
    assert renewed(_with(recipe, pool={"photos": str(tmp_path / "copy")})) == []
    (tmp_path / "copy" / "1.jpg").unlink()
    assert renewed(_with(recipe, pool={"photos": str(tmp_path / "copy")})) == everything


def test_pre_training_can_be_skipped(recipe, tmp_path):
    def names(**values: object) -> list[str]:
        return [step.name for step in plan(_with(recipe, labels=values))]

    (tmp_path / "w.safetensors").write_bytes(b"weights")
    assert "features" in names(features="tiny")
    assert "features" in names(features="tiny+handcrafted")
    assert "features" not in names(features="handcrafted")
    assert "features" not in names(features="vit_tiny_patch16_224")
    assert "features" not in names(features="tiny", weights=str(tmp_path / "w.safetensors"))


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"pool": {"photos": ""}}, "needs photographs; give their folder or list with --pool.photos"),
        ({"pool": {"photos": "nowhere"}}, "nowhere does not exist"),
        ({"data": {"images": "x"}}, "data.images is made by the chain itself"),
        ({"mean_teacher": {"initial": "x"}}, "mean_teacher.initial is made by the chain itself"),
        ({"labels": {"weights": "x.pth"}}, "labels.weights x.pth does not exist"),
        ({"labels": {"set": ("colour=1",)}}, "no option 'colour'"),
        ({"labels": {"set": ("colour",)}}, "'colour' is not NAME=VALUE"),
        ({"dev": {"annotations": "x.json"}}, "dev.annotations x.json does not exist"),
        ({"dev": {"annotations": "DEV"}}, "dev.images '' is no folder"),
        ({"export": {"size": (100, 96)}}, r"export.size must be multiples of 32, it is \[100, 96\]"),
        ({"export": {"int8_size": (96, 100)}}, r"export.int8_size must be multiples of 32, it is \[96, 100\]"),
    ],
)
def test_what_is_wrong_is_said_before_the_work(recipe, tmp_path, sections, message):
    if sections.get("dev") == {"annotations": "DEV"}:
        sections = {"dev": {"annotations": str(tmp_path / "dev.json")}}
    with pytest.raises(InputError, match=message):
        make_default_model(_with(recipe, **sections))
    assert not (tmp_path / "run").exists()


def test_a_missing_package_is_named_before_the_work(recipe, tmp_path, monkeypatch):
    lacking = {"ray", "onnxscript"}
    monkeypatch.setattr(steps, "find_spec", lambda name: None if name in lacking else find_spec(name))
    with pytest.raises(InputError, match=r"missing: onnxscript \(step export\), ray \(step labels\); run pip install"):
        make_default_model(recipe)
    assert not (tmp_path / "run").exists()
    make_default_model(dataclasses.replace(recipe, until="pool"))  # needs none of them


def test_the_script_says_what_is_wrong(recipe, tmp_path, capsys):
    save_recipe(recipe, tmp_path / "recipe.yaml")
    arguments = ["--config", str(tmp_path / "recipe.yaml")]
    assert script.main([*arguments, "--until", "lunch"]) == 2
    assert "there is no step 'lunch'; choose one of pool, features, labels" in capsys.readouterr().err
    assert script.main([*arguments, "--labels.featrues", "tiny"]) == 2
    assert "the nearest name is labels.features" in capsys.readouterr().err


def test_a_later_config_file_counts_more(recipe, tmp_path, capsys):
    save_recipe(recipe, tmp_path / "recipe.yaml")
    (tmp_path / "small.yaml").write_text("labels:\n  features: handcrafted\nburn_in:\n  iterations: 2\n")
    arguments = ["--config", str(tmp_path / "recipe.yaml"), "--config", str(tmp_path / "small.yaml"), "--until", "pool"]
    assert script.main(arguments) == 0
    changed = _with(recipe, labels={"features": "handcrafted"}, burn_in={"iterations": 2})
    assert capsys.readouterr().out.splitlines()[-1] == f"pool: {plan(changed)[0].folder}"
