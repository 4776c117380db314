"""Chains of commands: each done once, those of the shipped chain on toy pictures."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from skimage import data

from hassod_ros.chain.commands import Command, command, command_steps, read_chain
from hassod_ros.chain.steps import run_steps
from hassod_ros.cli import VERBS
from hassod_ros.errors import InputError
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.train import default_model as script
from tests.tiny_network import TINY

REPO = Path(__file__).parents[2]
CHAIN = REPO / "config" / "chains" / "default_model.yaml"
RECIPES = REPO / "config" / "recipes"
POOL = Command(
    "pool", "small photographs", "shrink_photos --images {photos} --out {pool} --max-side {side}", ("pool.json",)
)
AGAIN = Command(
    "again", "smaller ones", "shrink_photos --images {pool}/images --out {again} --max-side 40", ("pool.json",)
)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


def test_commands_run_once_and_again_where_something_has_changed(photos, tmp_path, capfd):
    steps = command_steps([POOL, AGAIN], tmp_path / "run", {"photos": photos, "side": 80})
    run_steps(steps, until="again")
    sizes = [Image.open(path).size for step in steps for path in sorted((step.folder / "images").iterdir())]
    assert [max(size) for size in sizes] == [80, 80, 40, 40]
    assert json.loads((steps[1].folder / "step.json").read_text())["needs"] == {"pool": steps[0].key}

    capfd.readouterr()
    run_steps(command_steps([POOL, AGAIN], tmp_path / "run", {"photos": photos, "side": 80}), until="again")
    assert "to do" not in capfd.readouterr().out
    other = command_steps([POOL, AGAIN], tmp_path / "run", {"photos": photos, "side": 60})
    assert not other[0].done
    assert not other[1].done  # what it reads from has changed
    assert {step.key for step in other}.isdisjoint(step.key for step in steps)


def test_files_and_folders_count_by_what_they_hold_wherever_they_lie(photos, tmp_path):
    def key(**values: Path) -> str:
        line = "pseudo_label --images {photos} --out {labels}/labels.json --features {file}"
        return command_steps([Command("labels", "labels", line, ("labels.json",))], tmp_path, values)[0].key

    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\n")
    first = key(photos=photos, file=listed)
    copied, moved = shutil.copytree(photos, tmp_path / "copy"), listed.rename(tmp_path / "other.txt")
    assert key(photos=copied, file=moved) == first
    moved.write_text("b.jpg\n")
    assert key(photos=copied, file=moved) != first
    moved.write_text("a.jpg\n")
    (copied / "coffee.png").unlink()
    assert key(photos=copied, file=moved) != first


def test_a_command_that_fails_ends_the_chain_and_has_said_why(tmp_path, capsys):
    steps = command_steps([POOL], tmp_path / "run", {"photos": tmp_path / "none", "side": 80})
    with pytest.raises(InputError, match=r"shrink_photos ended with status 2, see above"):
        run_steps(steps, until="pool")
    assert "none" in capsys.readouterr().err
    assert not steps[0].done


def test_what_one_of_several_processes_says_arrives(tmp_path, capfd):
    words = ("--images", tmp_path / "none", "--out", tmp_path / "out")
    with pytest.raises(InputError, match="shrink_photos ended with status 1, see above"):
        command("shrink_photos", *words, processes=2)
    assert f"{tmp_path / 'none'} does not exist" in capfd.readouterr().err


def test_lines_name_only_what_is_there(tmp_path):
    with pytest.raises(InputError, match=r"step again names \{pool\}, which is not before it; there are: photos"):
        command_steps([AGAIN], tmp_path, {"photos": "x"})
    with pytest.raises(InputError, match="two things called 'pool'"):
        command_steps([POOL, POOL], tmp_path, {"photos": "x", "side": 1})
    with pytest.raises(InputError, match="step a runs 'lunch', which is no verb"):
        command_steps([Command("a", "a", "lunch --now", ("b",))], tmp_path, {})


@pytest.mark.parametrize(
    ("text", "values", "sentence"),
    [
        ("steps: 3", {}, "is no chain of commands"),
        ("steps: {a: {run: x}}", {}, "is no chain of commands"),
        ("steps: {a: {about: x, run: x, makes: y, colour: red}}", {}, "unknown keys colour"),
        ("{values: [photos], steps: {a: {about: x, run: x, makes: y}}}", {}, "needs photos; give it"),
        ("{values: [photos], steps: {a: {about: x, run: x, makes: y}}}", {"photos": "a", "n": "1"}, "knows no n"),
        ("{values: [n], steps: {a: {about: x, run: x, makes: y, processes: '{n}'}}}", {"n": "two"}, "is no chain"),
    ],
)
def test_what_is_wrong_in_a_chain_is_said(text, values, sentence, tmp_path):
    (tmp_path / "chain.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        read_chain(tmp_path / "chain.yaml", values)


def values(**more: str) -> dict[str, str]:
    return {"photos": "P", "machine": "cpu", "processes": "2", "recipes": str(RECIPES), **more}


def test_without_an_annotated_set_what_needs_it_is_left_out():
    whole = [one.name for one in read_chain(CHAIN, values(annotations="A", annotated="B"))]
    part = [one.name for one in read_chain(CHAIN, values())]
    assert part == whole[: len(part)]
    assert whole[len(part) :] == ["export_half", "report", "annotated_labels", "labels_report", "export_int8"]
    assert part[-1] == "export"


@pytest.mark.parametrize("machine", ["gpu", "cpu"])
def test_every_line_of_the_shipped_chain_is_understood(machine):
    for one in read_chain(CHAIN, values(machine=machine, annotations="A", annotated="B")):
        line = one.line.replace("{machine}", machine).replace("{recipes}", str(RECIPES))
        verb, *words = shlex.split(re.sub(r"\{\w+\}", "x", line))
        assert import_module(VERBS[verb].module).build_parser().parse_args(words)


NETWORK = {name: list(value) if isinstance(value, tuple) else value for name, value in TINY.items()}
SMALL = {
    "model": {"backbone": "resnet18", "backbone_width": 0.25, **NETWORK, "stage_ious": [0.5]},
    "data": {"short_sides": [64], "max_side": 96},
}
STAGE = {"optimizer": "adamw", "batch_size": 2, "warmup": 2, "precision": "fp32", "precise_bn": 0, "iterations": 2}


@pytest.mark.timeout(600)
@pytest.mark.usefixtures("one_thread")
def test_the_shipped_chain_goes_from_photographs_to_a_model(tmp_path, capfd):
    """All its lines but those that need an annotated set, with recipes of a tiny network."""
    recipes, photos = tmp_path / "config" / "recipes", tmp_path / "photos"
    recipes.mkdir(parents=True)
    shutil.copy(REPO / "config" / "evidence.json", tmp_path / "config")
    run = {"device": "cpu", "workers": 0, "picture_every": 0}
    stages = {"burn_in": STAGE, "mean_teacher": {**STAGE, "unlabelled_batch": 2}}
    (recipes / "default_model.yaml").write_text(yaml.safe_dump({**SMALL, **stages, "run": run}))
    for end in ("cpu", "2", "2_cpu"):
        (recipes / f"default_model_{end}.yaml").write_text(yaml.safe_dump({"run": {"seed": 1}}))
    photos.mkdir()
    random = np.random.default_rng(0)
    for i in range(4):
        pixels = np.full((64, 96, 3), 30 * i, np.uint8)
        pixels[8:40, 10 : 30 + i], pixels[20:60, 50 + i : 90] = random.integers(0, 256, (2, 3))
        Image.fromarray(pixels).save(photos / f"{i}.png")
    chain = yaml.safe_load(CHAIN.read_text())
    chain["steps"]["labels"]["run"] += " --set size=64 --set crf=null --set filters.min_area=20"
    chain["steps"]["relabel"]["run"] += " --relabel.score_threshold 0 --relabel.sides [96] --relabel.color_weight 0"
    chain["words"]["export_options"] = (
        chain["words"]["export_options"].replace("352x352", "64x96").replace("400", "100")
    )
    (tmp_path / "chain.yaml").write_text(yaml.safe_dump(chain, sort_keys=False))

    words = ["--photos", photos, "--machine", "cpu", "--chain", tmp_path / "chain.yaml", "--recipes", recipes]
    words = [str(word) for word in [*words, "--out", tmp_path / "run"]]
    assert script.main([*words, "--until", "burn_in"]) == 0
    capfd.readouterr()
    assert script.main(words) == 0
    said = capfd.readouterr().out
    assert [line.split()[:2] for line in said.splitlines()[:4]] == [
        *([name, "done"] for name in ("pool", "labels", "burn_in")),
        ["mean_teacher", "to"],
    ]
    folders = dict(line.split(": ") for line in said.splitlines()[-len(read_chain(CHAIN, values())) :])
    info = read_model_info(Path(folders["export"]) / "model.onnx")
    assert (info.recipe, info.input_size, info.evidence is not None) == ("default_model", (64, 96), True)
    name = "roi_heads.box_head.fc1.weight"
    files = ("burn_in_2/burn_in/model.pth", "mean_teacher_2/mean_teacher/model.pth", "average/model.pth")
    first, second, mean = (
        torch.load(Path(folders[step]) / rest, weights_only=True)["model"][name]
        for step, _, rest in (file.partition("/") for file in files)
    )
    assert (first - second).abs().max() > 0
    torch.testing.assert_close(mean, (first + second) / 2)
    assert script.main([*words, "--until", "lunch"]) == 2
    assert "there is no step 'lunch'; choose one of pool, labels" in capfd.readouterr().err
