"""Retraining: what is checked before it begins, and how looks are voted on; the whole is in tests/nodes."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest

from hassod_ros.chain import retrain as module
from hassod_ros.chain import voted_labels
from hassod_ros.chain.retrain import Retrain, retrain
from hassod_ros.chain.voted_labels import View, label_one, look, vote
from hassod_ros.default_model import default_model
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.errors import InputError
from hassod_ros.images import list_images, read_image
from hassod_ros.instances import Instances
from tests.chain.toy_retrain import REPO, make_start, make_task
from tests.runtime.conftest import build_model, make_info

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_start(tmp_path_factory.mktemp("start"))


@pytest.fixture
def task(tmp_path: Path, start: Path) -> Retrain:
    return make_task(tmp_path, start)


def test_recordings_of_which_nothing_is_kept_end_the_run_at_once(
    task: Retrain, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "night").mkdir()
    cv2.imwrite(str(tmp_path / "night" / "a.png"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="extract ended with status 2, see above"):
        retrain(dataclasses.replace(task, sources=(tmp_path / "night",)), lambda line: None)
    assert "kept 0 of 1 frames (1 dark)" in capfd.readouterr().err


def test_a_recording_too_short_to_hold_frames_back_ends_the_run_at_once(task: Retrain, tmp_path: Path) -> None:
    (tmp_path / "night").mkdir()
    cv2.imwrite(str(tmp_path / "night" / "a.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    with pytest.raises(
        InputError, match=r"extract left no pair .* in held_back, see .*contact_sheet.jpg; .*--bright 1"
    ):
        retrain(dataclasses.replace(task, sources=(tmp_path / "night",)), lambda line: None)


def test_a_model_is_not_judged_by_the_picture_that_it_learned_from(task: Retrain, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    picture = cv2.resize(random.integers(0, 256, (8, 8, 3), np.uint8), (64, 64))
    (tmp_path / "night").mkdir()
    for number in range(20):
        noisy = picture + random.normal(0, 1, picture.shape)
        cv2.imwrite(str(tmp_path / "night" / f"{number:02}.png"), np.clip(noisy, 0, 255).astype(np.uint8))
    with pytest.raises(InputError, match="no pair of frames that differs from those to train on in held_back"):
        retrain(dataclasses.replace(task, sources=(tmp_path / "night",)), lambda line: None)


def test_the_gate_judges_by_old_pictures_that_training_does_not_see(
    task: Retrain, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old"
    for number in range(90):
        (old / str(number // 50)).mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(old / str(number // 50) / f"{number:02}.png"), np.full((8, 8, 3), number, np.uint8))
    trained: list[int] = []
    given: dict[str, tuple[object, ...]] = {}
    monkeypatch.setattr(module, "command", lambda verb, *words, **_: given.update({verb: words}))
    monkeypatch.setattr(voted_labels, "label", lambda pool, *_, **__: trained.extend(values(pool / module.OLD)))

    def values(folder: Path) -> list[int]:
        return [int(read_image(path)[0, 0, 0]) for path in list_images(folder)]

    steps = module.plan(dataclasses.replace(task, replay=old), module._running(task))
    by_name = {step.name: step for step in steps}
    for _ in range(2):  # as after a kill
        trained.clear()
        by_name["labels"].run(by_name["labels"].folder)
    by_name["gate"].run(by_name["gate"].folder)
    judged = values(Path(str(given["gate"][given["gate"].index("--pictures") + 1])))
    assert sorted(trained + judged) == list(range(90))
    assert judged == [*range(17, 25), *range(58, 66)]


def test_pictures_that_moved_are_linked_anew(tmp_path: Path) -> None:
    (tmp_path / "new.png").touch()
    (tmp_path / "pool").symlink_to(tmp_path / "gone.png")
    module._link(tmp_path / "pool", tmp_path / "new.png")
    assert (tmp_path / "pool").resolve() == tmp_path / "new.png"


def test_an_int8_model_is_not_compared_with_a_float_one(task: Retrain, tmp_path: Path) -> None:
    onnx.save(build_model(make_info(precision="int8")), tmp_path / "int8.onnx")
    task = dataclasses.replace(task, start=str(tmp_path / "int8.onnx"))
    with pytest.raises(InputError, match="perception/1 is int8, and the new model would be fp32, which the gate refu"):
        retrain(dataclasses.replace(task, gate=()), lambda line: None)
    export = ("--precision", "int8", "--annotations", "a.json", "--annotated-images", "a")
    for change in ({"gate": (), "export": export}, {"gate": ("--latency", "3")}):
        changed = dataclasses.replace(task, **change)
        module._check_precision(changed, module._running(changed))


def test_what_is_wrong_is_said_before_the_first_step(task: Retrain, tmp_path: Path) -> None:
    for change, sentence in (
        ({"start": "nightly"}, "is no registry of models"),
        ({"weights": None}, "cannot be trained further without its checkpoint"),
        ({"start": "default-int8", "weights": None}, "default-int8 cannot be trained further .* is int8, start from"),
        ({"sources": (tmp_path / "none.mcap",)}, "none.mcap does not exist"),
        ({"recipe": tmp_path / "none.yaml"}, "the recipe .* does not exist"),
        ({"replay": tmp_path / "none"}, "is no folder"),
        ({"keep": 1.5}, "keep is a share from 0 to 1, it is 1.5"),
        ({"gate": ("--recall", "2")}, "gate: argument --recall: '2' is not a number from 0 to 1; see gate --help"),
        ({"export": ("--colour", "3")}, "to_onnx: unrecognized arguments: --colour 3"),
        ({"export": ("--precision", "int8")}, "int8 needs an annotated set to measure the loss"),
        ({"rollout": ("--canary", "none")}, "rollout: argument --canary: 'none' is not a whole number"),
        ({"changes": ("burn_in.iteration=3",)}, "burn_in.iteration, which does not exist"),
        ({"changes": ("burn_in.iterations=many",)}, "iterations"),
        ({"labels": "vote", "features": "tiny"}, "the tiny features .* do not exist"),
        ({"labels": "discovery", "features": "handcraftd"}, "timm knows no model 'handcraftd'"),
    ):
        with pytest.raises(InputError, match=sentence):
            retrain(dataclasses.replace(task, **change), lambda line: None)
    assert not task.work.exists()


def test_a_file_that_is_no_model_is_not_registered(task: Retrain, tmp_path: Path) -> None:
    (tmp_path / "hello.onnx").write_text("hello")
    task = dataclasses.replace(task, start=str(tmp_path / "hello.onnx"), registry=tmp_path / "none_yet")
    with pytest.raises(InputError, match=r"hello\.onnx is cut short or is not an ONNX file"):
        retrain(task, lambda line: None)
    assert not task.registry.exists()


def test_two_nights_of_one_name_are_two(task: Retrain, tmp_path: Path) -> None:
    nights = [tmp_path / night / "camera" for night in ("monday", "tuesday")]
    for number, night in enumerate(nights):
        night.mkdir(parents=True)
        cv2.imwrite(str(night / "a.png"), np.full((8, 8, 3), 90 * number, np.uint8))
    running = module._running(task)
    folders = [
        module.plan(dataclasses.replace(task, sources=sources), running)[0].folder
        for sources in (tuple(nights), (nights[1],), (nights[0],))
    ]
    assert len({*folders}) == 3


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


SIZE = (100, 100)
WHOLE = (0, 0, 100, 100)


def masks(*boxes: tuple[int, int, int, int], scores: float = 0.3, size: tuple[int, int] = SIZE) -> Instances:
    dense = np.zeros((len(boxes), *size), bool)
    for mask, (x0, y0, x1, y1) in zip(dense, boxes, strict=True):
        mask[y0:y1, x0:x1] = True
    return Instances.from_dense(dense, image_size=size, scores=np.full(len(boxes), scores))


def found_boxes(found: Instances) -> dict[tuple[int, ...], float]:
    return {tuple(box): round(float(score), 3) for box, score in zip(found.regions.tolist(), found.scores, strict=True)}


def test_a_label_is_worth_its_mean_over_the_views_that_could_have_seen_it() -> None:
    both, seldom, in_one_tile, never = (5, 5, 25, 25), (70, 70, 95, 95), (65, 5, 75, 15), (30, 80, 60, 95)
    views = [
        View(WHOLE, masks(both, seldom, scores=0.3)),
        View(WHOLE, masks(both, scores=0.5)),
        View((0, 0, 60, 60), masks(both, scores=0.1)),
        View((40, 0, 100, 60), masks(in_one_tile, scores=0.6)),  # three views could have seen it
        View(WHOLE, masks(never, scores=0.1)),
    ]
    found = vote(views)
    assert found_boxes(found) == {both: 0.225, in_one_tile: 0.15, seldom: 0.1}
    assert (np.diff(found.scores) <= 0).all()


def test_the_mask_that_agrees_most_stands_for_all_and_wholes_have_parts() -> None:
    wide, middle, narrow, part = (10, 10, 60, 60), (10, 10, 57, 60), (10, 10, 54, 60), (20, 20, 30, 30)
    views = [View(WHOLE, masks(box, part, scores=score)) for box, score in ((wide, 0.9), (middle, 0.5), (narrow, 0.4))]
    found = vote(views)
    assert found_boxes(found) == {middle: 0.6, part: 0.6}
    levels = dict(zip(map(tuple, found.regions.tolist()), found.levels.tolist(), strict=True))
    assert levels == {middle: 0, part: 1}


def test_discovery_alone_makes_no_label_but_counts_beside_the_model() -> None:
    known, unknown = (5, 5, 25, 25), (30, 30, 70, 70)  # no tile holds the second
    picture = np.zeros((*SIZE, 3), np.uint8)
    picture[5:25, 5:25] = 255

    def bright(image: np.ndarray) -> Instances:
        rows, columns = np.nonzero(image[..., 0])
        size = image.shape[:2]
        if not len(rows):
            return Instances.empty(size)
        box = (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        return masks(tuple(map(int, box)), scores=0.2, size=size)

    alone = label_one(picture, bright, None)
    assert found_boxes(alone) == {known: 0.2}  # mirrored, and in the tiles, it lies where it is
    voted = label_one(picture, bright, masks(known, unknown, scores=1.0))
    assert found_boxes(voted) == {known: round((4 * 0.2 + 0.1) / 5, 3)}


def test_what_a_tile_cuts_is_no_label_and_what_lies_in_it_is_larger_there() -> None:
    looked: list[tuple[int, int]] = []

    def all_of_it(image: np.ndarray) -> Instances:
        looked.append(image.shape[:2])
        return masks((0, 0, image.shape[1], image.shape[0]), size=image.shape[:2])

    views = look(np.zeros((50, 100, 3), np.uint8), all_of_it)
    assert looked == [(50, 100)] * 2 + [(30, 60)] * 8
    assert [len(view.found) for view in views] == [1, 1, *[0] * 8]
    assert {view.window for view in views[2:]} == {(0, 0, 60, 30), (40, 0, 100, 30), (0, 20, 60, 50), (40, 20, 100, 50)}


def test_nothing_found_is_no_label() -> None:
    assert len(label_one(np.zeros((*SIZE, 3), np.uint8), lambda image: Instances.empty(image.shape[:2]), None)) == 0
