"""Retraining: what is checked before it begins, and how looks are voted on; the whole is in tests/nodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from hassod_ros.chain import retrain as module
from hassod_ros.chain.retrain import Retrain, retrain
from hassod_ros.chain.voted_labels import vote
from hassod_ros.default_model import default_model
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from tests.chain.toy_retrain import REPO, make_start, make_task

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start"))


@pytest.fixture
def task(tmp_path: Path, start: Path) -> Retrain:
    return make_task(tmp_path, start)


def test_recordings_of_which_nothing_is_kept_end_the_run_at_once(task: Retrain) -> None:
    with pytest.raises(InputError, match=r"extract left no frame in images, see .*contact_sheet.jpg; .*--bright 1"):
        retrain(dataclasses.replace(task, extract=("--rate", "0", "--dark", "-1")), lambda line: None)


def test_what_is_wrong_is_said_before_the_first_step(task: Retrain, tmp_path: Path) -> None:
    for change, sentence in (
        ({"start": "nightly"}, "is no registry of models"),
        ({"weights": None}, "cannot be trained further without its checkpoint"),
        ({"sources": (tmp_path / "none.mcap",)}, "none.mcap does not exist"),
        ({"recipe": tmp_path / "none.yaml"}, "the recipe .* does not exist"),
        ({"replay": tmp_path / "none"}, "is no folder"),
        ({"keep": 1.5}, "keep is a share from 0 to 1, it is 1.5"),
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
