"""Whole runs on toy pictures: they learn, survive kill -9 and refuse what cannot go on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from hassod_ros import files
from hassod_ros.coco import from_coco
from hassod_ros.detection.base import InstanceOptions
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.errors import InputError
from hassod_ros.evaluation.scorer import while_training
from hassod_ros.images import read_image
from hassod_ros.learning import stages
from hassod_ros.learning.config import DataConfig, MeanTeacherConfig, Recipe, RunConfig, StageConfig, save_recipe
from hassod_ros.learning.stages import burn_in, mean_teacher
from tests.learning.killing import kill_after_the_first_checkpoint

pytestmark = [pytest.mark.timeout(1200), pytest.mark.usefixtures("one_thread")]

REPO = Path(__file__).parents[2]
EVALUATE = {"evaluate_every": 2, "evaluate_annotations": "some.json", "evaluate_images": "some"}
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture
def recipe(toy_set, tiny_detector, tmp_path) -> Recipe:
    stage = {"optimizer": "adamw", "learning_rate": 0.003, "warmup": 2, "precision": "fp32", "precise_bn": 2}
    return Recipe(
        model=tiny_detector,
        data=DataConfig(str(toy_set.images), str(toy_set.labels), short_sides=(48, 64), max_side=80),
        burn_in=StageConfig(iterations=9, batch_size=2, **stage),
        mean_teacher=MeanTeacherConfig(
            iterations=6, batch_size=2, unlabelled_batch=2, ema_decay=0.9, score_threshold=0.05, **stage
        ),
        run=RunConfig(str(tmp_path / "run"), device="cpu", workers=0, checkpoint_every=3, log_every=3, picture_every=6),
    )


def _with(recipe: Recipe, **sections: dict) -> Recipe:
    changed = {name: dataclasses.replace(getattr(recipe, name), **values) for name, values in sections.items()}
    return dataclasses.replace(recipe, **changed)


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=True)["model"]


def _assert_equal(first: Path, second: Path) -> None:
    one, other = _weights(first), _weights(second)
    assert one.keys() == other.keys()
    different = [name for name, value in one.items() if not torch.equal(value, other[name])]
    assert different == []


def _start(recipe: Recipe, script: str, tmp_path: Path, *launcher: str, group: bool = False) -> subprocess.Popen:
    path = tmp_path / f"{script}.yaml"
    save_recipe(recipe, path)
    command = [sys.executable, *launcher, str(REPO / "train" / f"{script}.py"), "--config", str(path)]
    return subprocess.Popen(
        command,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=group,
    )


def test_learns_rectangles_and_their_parts(recipe, toy_set):
    recipe = _with(
        recipe,
        model={"fpn_channels": 32, "box_width": 64, "mask_channels": 32, "stage_ious": (0.5,), "rpn_samples": 64},
        data={"short_sides": (64,)},
        burn_in={"iterations": 100, "batch_size": 6, "copy_paste": 0.0, "schedule": "cosine", "warmup": 10},
        run={"log_every": 10},
    )
    path = burn_in(recipe)

    events = EventAccumulator(str(path.parent)).Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert [event.step for event in events.Scalars("train/loss")] == list(range(10, 101, 10))
    assert losses[-1] < 0.6 * losses[0]
    assert events.Tags()["images"] == ["labels_and_predictions"]

    untrained = _recall(_untrained(path), toy_set)
    trained = _recall(open_detector(path), toy_set)
    assert untrained < 0.2
    assert trained > 0.6


def _untrained(path: Path):
    model = open_detector(path)
    torch.manual_seed(0)
    return type(model)(model.config).eval()


@torch.no_grad()
def _recall(model, toy_set) -> float:
    """Share of the masks that a detection above 0.2 meets with IoU > 0.5 and the right level."""
    hits = []
    for image in toy_set.content["images"]:
        size = image["height"], image["width"]
        truth = from_coco([a for a in toy_set.content["annotations"] if a["image_id"] == image["id"]], size)
        pixels = torch.from_numpy(read_image(toy_set.images / image["file_name"])).permute(2, 0, 1)[None]
        found = model(pixels)[0].to_instances(size, InstanceOptions(score_threshold=0.2))
        masks = found.dense()
        for mask, level in zip(truth.dense(), truth.levels, strict=True):
            same = masks[found.levels == level]
            overlap = (same & mask).sum((1, 2)) / np.maximum((same | mask).sum((1, 2)), 1)
            hits.append(overlap.max(initial=0) > 0.5)
    return float(np.mean(hits))


@pytest.mark.parametrize("script", ["detector", "mean_teacher"])
def test_a_killed_run_goes_on_to_the_same_weights(recipe, tmp_path, script):
    stage = "burn_in" if script == "detector" else "mean_teacher"
    if stage == "mean_teacher":
        initial = burn_in(_with(recipe, burn_in={"iterations": 1}))
        recipe = _with(recipe, mean_teacher={"initial": str(initial), "final": "teacher"})
    recipe = _with(recipe, **{stage: {"iterations": 8}})
    folder = tmp_path / "killed" / stage
    killed = _with(recipe, run={"output": str(tmp_path / "killed"), "workers": 1, "checkpoint_every": 3})

    save_recipe(killed, tmp_path / "killed.yaml")
    words = ["--config", str(tmp_path / "killed.yaml")]
    kill_after_the_first_checkpoint("hassod_ros.learning.loop", script, words, folder / "checkpoint.pt")
    assert not (folder / "model.pth").exists()
    assert torch.load(folder / "checkpoint.pt", weights_only=True)["iteration"] == 3

    train = burn_in if stage == "burn_in" else mean_teacher
    straight = _with(recipe, run={"output": str(tmp_path / "straight")})
    _assert_equal(train(killed), train(straight))


def test_two_runs_do_not_train_into_one_folder(recipe, monkeypatch):
    monkeypatch.setattr(files, "_END_LIMIT", 0.1)
    monkeypatch.setattr(stages, "_labels", None)  # it is told before they are read
    with (
        files.alone(Path(recipe.run.output, "burn_in")),
        pytest.raises(InputError, match=r"another run writes .*burn_in at this moment"),
    ):
        burn_in(recipe)
    assert not Path(recipe.run.output).exists()


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("stage", ["burn_in", "mean_teacher"])
def test_two_processes_learn_what_one_learns_in_two_parts(recipe, tmp_path, stage, device):
    # On a machine with one GPU both processes use that one.
    if device != "cpu" and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    recipe = _with(recipe, run={"device": device})
    # Batch norm statistics belong to a process; so they are frozen here, and everything else must agree.
    frozen = {"model": {"backbone_norm": "frozen", "fpn_norm": "none"}}
    recipe = _with(recipe, burn_in={"iterations": 3, "accumulate": 2}, mean_teacher={"iterations": 3}, **frozen)
    one = _with(recipe, mean_teacher={"accumulate": 2})
    path = burn_in(one)
    if stage == "mean_teacher":
        path = mean_teacher(one)
    two = _with(
        recipe,
        burn_in={"accumulate": 1},
        mean_teacher={"initial": str(path.parents[1] / "burn_in" / "model.pth")},
        run={"output": str(tmp_path / "two")},
    )
    script = "detector" if stage == "burn_in" else stage
    process = _start(two, script, tmp_path, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
    output, _ = process.communicate(timeout=400)
    assert process.returncode == 0, output
    one_weights, two_weights = _weights(path), _weights(tmp_path / "two" / stage / "model.pth")
    for name, value in one_weights.items():
        torch.testing.assert_close(two_weights[name], value, rtol=1e-3, atol=1e-4, msg=name)


def test_mean_teacher_starts_from_burn_in_and_goes_on_from_its_own_checkpoint(recipe):
    burn_in(_with(recipe, burn_in={"iterations": 2}))
    path = mean_teacher(recipe)
    events = EventAccumulator(str(path.parent)).Reload()
    assert [event.value for event in events.Scalars("train/label_weight")] == pytest.approx([0.8943, 0.2723], abs=1e-4)
    assert "train/teacher/loss_rpn_cls" in events.Tags()["scalars"]
    first = path.rename(path.with_name("first.pth"))
    _assert_equal(first, mean_teacher(recipe))  # finished: nothing is trained again
    teacher = mean_teacher(_with(recipe, run={"output": f"{recipe.run.output}2"}, mean_teacher={
        "initial": str(path.parents[1] / "burn_in" / "model.pth"), "final": "teacher"
    }))  # fmt: skip
    assert not all(torch.equal(value, _weights(teacher)[name]) for name, value in _weights(path).items())


def test_mean_teacher_without_weights_says_what_to_do(recipe):
    with pytest.raises(InputError, match=r"burn_in/model.pth does not exist: .* run train/detector.py"):
        mean_teacher(recipe)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_mixed_precision_trains(recipe, precision):
    path = burn_in(_with(recipe, burn_in={"precision": precision, "iterations": 3}))
    events = EventAccumulator(str(path.parent)).Reload()
    assert np.isfinite([event.value for event in events.Scalars("train/loss")]).all()


def test_refuses_the_checkpoint_of_another_recipe(recipe):
    burn_in(_with(recipe, burn_in={"iterations": 3}))
    with pytest.raises(InputError, match=r"burn_in.clip_norm \(1.0 there, 2.0 now\), run.seed \(0 there, 5 now\)"):
        burn_in(_with(recipe, burn_in={"iterations": 4, "clip_norm": 2.0}, run={"seed": 5}))
    burn_in(_with(recipe, burn_in={"iterations": 3}, run={"workers": 1}))  # what does not change the result is free


def test_a_run_goes_on_longer_in_a_moved_folder_to_the_same_weights(recipe, toy_set, tmp_path):
    stage = {"iterations": 4, "precise_bn": 0}
    straight = burn_in(_with(recipe, burn_in=stage, run={"output": str(tmp_path / "straight")}))
    burn_in(_with(recipe, burn_in={**stage, "iterations": 2}))
    moved = tmp_path / "elsewhere"
    toy_set.images.parent.rename(moved)
    data = {"images": str(moved / "images"), "annotations": str(moved / "labels.json")}
    _assert_equal(burn_in(_with(recipe, burn_in=stage, data=data)), straight)


def test_a_run_goes_on_in_other_shares(recipe):
    """As with another number of processes: the same pictures a step, divided otherwise."""
    burn_in(_with(recipe, burn_in={"iterations": 2}))
    path = burn_in(_with(recipe, burn_in={"iterations": 4, "accumulate": 2}))
    state = torch.load(path.with_name("checkpoint.pt"), weights_only=True)
    assert (state["iteration"], state["groups"]) == (4, [2])


def test_precise_bn_sees_pictures_without_pasted_instances(recipe, monkeypatch):
    """The statistics are those of momentum-free averages over pictures as they are, as the released hook makes them."""
    rates, first = [], stages.iterate

    def watched(stream, numbers, **options):
        rates.append((len(numbers), stream.copy_paste_rate))
        return first(stream, numbers, **options)

    monkeypatch.setattr(stages, "iterate", watched)
    path = burn_in(_with(recipe, burn_in={"iterations": 1, "precise_bn": 3, "copy_paste": 1.0}))
    assert rates == [(3, 0.0)]
    counted = {int(value) for name, value in _weights(path).items() if name.endswith("num_batches_tracked")}
    assert counted == {3}


def test_the_best_detector_of_a_run_is_kept(recipe):
    figures = iter([0.2, 0.5, 0.3])
    kept = []

    def score(detector: torch.nn.Module) -> dict[str, float]:
        kept.append({name: value.clone() for name, value in detector.state_dict().items()})
        return {"AR@100": next(figures), "AP": 0.0}

    path = burn_in(_with(recipe, burn_in={"iterations": 6}, run=EVALUATE), score)
    best = _weights(path.with_name("best.pth"))
    assert all(torch.equal(best[name], value) for name, value in kept[1].items())
    events = EventAccumulator(str(path.parent)).Reload()
    found = events.Scalars("evaluation/AR@100")
    assert [event.step for event in found] == [2, 4, 6]
    assert [event.value for event in found] == pytest.approx([0.2, 0.5, 0.3])
    assert torch.load(path.with_name("checkpoint.pt"), weights_only=True)["best"] == 0.5


def test_scores_of_a_detector_while_it_is_trained(recipe, toy_set):
    run = {**EVALUATE, "evaluate_annotations": str(toy_set.labels), "evaluate_images": str(toy_set.images)}
    scorer = while_training(_with(recipe, run=run))
    detector = CascadeMaskRCNN(recipe.model).train()
    found = scorer(detector)
    assert list(found) == ["AR@100", "AR@1000", "AP"]
    assert all(0 <= value <= 1 for value in found.values())
    assert detector.training
    assert while_training(recipe) is None
    with pytest.raises(InputError, match="evaluate_every needs"):
        _with(recipe, run={"evaluate_every": 5})


def test_a_loss_that_is_not_finite_stops_with_the_batch_saved(recipe):
    with pytest.raises(InputError, match=r"the loss is not finite at iteration \d .*not_finite_\d_0.pt") as caught:
        burn_in(_with(recipe, burn_in={"learning_rate": 1e30, "optimizer": "sgd", "clip_norm": 0.0, "warmup": 0}))
    folder = Path(recipe.run.output) / "burn_in"
    (path,) = folder.glob("not_finite_*.pt")
    assert str(path) in str(caught.value)
    saved = torch.load(path, weights_only=True)
    assert len(saved["names"]) == 2
    assert saved["batches"][0]["images"].dtype == torch.uint8
    assert not np.isfinite(list(saved["losses"].values())).all()
    assert not (folder / "model.pth").exists()


def test_a_batch_that_cannot_be_shared_is_refused(recipe):
    with pytest.raises(InputError, match=r"burn_in.batch_size is 2, which 1 processes x 3 accumulated steps"):
        burn_in(_with(recipe, burn_in={"accumulate": 3}))


def test_an_absent_gpu_is_named(recipe):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=r"run.device is cuda, but torch sees no GPU"):
        burn_in(_with(recipe, run={"device": "cuda"}))
    with pytest.raises(InputError, match=r"run.device gpu is unknown"):
        burn_in(_with(recipe, run={"device": "gpu"}))


def test_a_finished_run_says_so_and_replaced_weights_are_another_run(recipe, toy_set, capsys):
    first = burn_in(_with(recipe, burn_in={"iterations": 1, "precise_bn": 0}))
    recipe = _with(recipe, burn_in={"iterations": 1, "precise_bn": 0, "initial": str(first)})
    recipe = _with(recipe, run={"output": f"{recipe.run.output}2"})
    burn_in(recipe)
    assert "already finished" not in capsys.readouterr().out

    # The same files by other names are the same run.
    names = {"images": os.path.relpath(toy_set.images)}
    burn_in(_with(recipe, data=names, burn_in={"initial": os.path.relpath(first)}))
    assert "checkpoint.pt holds all 1 iterations; to go on longer give more --burn_in.it" in capsys.readouterr().out

    content = torch.load(first, weights_only=True)
    next(iter(content["model"].values())).add_(1.0)
    torch.save(content, first)
    with pytest.raises(InputError, match=r"another recipe: burn_in.initial"):
        burn_in(recipe)


def test_replaced_labels_of_equal_number_are_another_run_and_a_rewritten_file_is_not(recipe, toy_set):
    recipe = _with(recipe, burn_in={"iterations": 1, "precise_bn": 0})
    path = burn_in(recipe)
    first = path.stat()
    os.utime(toy_set.labels)
    os.utime(path)  # as after the checkpoint
    burn_in(recipe)
    assert path.stat().st_ino == first.st_ino  # finished weights are not written anew

    one, other = (entry["segmentation"] for entry in toy_set.content["annotations"][:2])
    one["counts"], other["counts"] = other["counts"], one["counts"]
    toy_set.labels.write_text(json.dumps(toy_set.content))
    with pytest.raises(InputError, match=r"another recipe: data.labels"):
        burn_in(recipe)


def test_mean_teacher_after_another_burn_in_is_another_run(recipe):
    first = burn_in(_with(recipe, burn_in={"iterations": 1, "precise_bn": 0}))
    recipe = _with(recipe, mean_teacher={"iterations": 1, "precise_bn": 0})
    mean_teacher(recipe)
    content = torch.load(first, weights_only=True)
    next(iter(content["model"].values())).add_(1.0)
    torch.save(content, first)
    with pytest.raises(InputError, match=r"another recipe: mean_teacher.initial"):
        mean_teacher(recipe)


def test_precision_auto_is_fp32_on_a_cpu_without_bf16_and_the_first_line_comes_at_once(recipe, monkeypatch, capsys):
    monkeypatch.setattr(torch.cpu, "get_capabilities", dict, raising=False)
    stage = {"iterations": 2, "precise_bn": 0}
    _assert_equal(
        burn_in(_with(recipe, burn_in={**stage, "precision": "auto"})),
        burn_in(_with(recipe, burn_in=stage, run={"output": f"{recipe.run.output}2"})),
    )
    assert any(line.startswith("1/2 ") for line in capsys.readouterr().out.splitlines())


def test_ctrl_c_keeps_the_iteration_and_the_same_command_goes_on(recipe, tmp_path):
    run = {"checkpoint_every": 1000, "log_every": 1, "workers": 1}
    recipe = _with(recipe, burn_in={"iterations": 400}, run=run)
    process = _start(recipe, "detector", tmp_path, group=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("2/400"):
            break
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: the workers get it too
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 130, output
    kept = torch.load(tmp_path / "run" / "burn_in" / "checkpoint.pt", weights_only=True)["iteration"]
    assert 2 <= kept < 400
    assert f"stopped after {kept} of 400 iterations; the same command goes on" in output
