from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from export.gate import main
from hassod_ros.default_model import default_model
from hassod_ros.deploy.gate import Frames, GateConfig, agreement, compare, look, pick, recall, small_masks
from hassod_ros.errors import InputError
from hassod_ros.footage.sources import pan_zoom
from hassod_ros.instances import Instances
from tests.footage.test_select import scene


class ByColor:
    """Finds what is brighter than each of some values; `spoil` changes the masks (N, H, W) of each call."""

    info = None
    backend = ""
    batch = 1

    def __init__(self, spoil: Callable[[np.ndarray], np.ndarray] = lambda masks: masks) -> None:
        self._spoil = spoil

    def __call__(self, image: np.ndarray, *, color_order: str = "RGB") -> Instances:
        grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
        masks = self._spoil(np.array([grey > value for value in (60, 120, 180, 220)]))
        masks = masks[masks.any(axis=(1, 2))]
        return Instances.from_dense(masks, image_size=grey.shape, scores=np.linspace(0.9, 0.5, len(masks)))

    def segment(self, images: Sequence[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        return [self(image) for image in images]

    def configure(self, selection: object) -> None: ...
    def warm_up(self) -> None: ...
    def close(self) -> None: ...


@pytest.fixture
def frames(tmp_path: Path) -> Path:
    """Two cameras, four frames in a row each."""
    for camera in range(2):
        folder = tmp_path / "frames" / f"camera{camera}"
        folder.mkdir(parents=True)
        for number, frame in enumerate(list(pan_zoom(scene(camera), (120, 160), 80))[:4]):
            cv2.imwrite(str(folder / f"{number}.png"), frame[..., ::-1])
    return tmp_path / "frames"


def flicker(rng: np.random.Generator, share: float) -> Callable[[np.ndarray], np.ndarray]:
    """Masks that are moved about at random, by up to a share of the picture."""

    def move(masks: np.ndarray) -> np.ndarray:
        reach = int(share * masks.shape[1])
        return np.array([np.roll(mask, rng.integers(-reach, reach + 1, 2), (0, 1)) for mask in masks])

    return move


def verdicts(frames: Path, candidate: ByColor) -> dict[str, bool]:
    models = {"running": ByColor(), "candidate": candidate}
    found, pairs = look(sorted(frames.rglob("*.png")), models, say=lambda line: None)
    assert pairs == 6  # the two cameras are no neighbours
    checks = compare(*found.values(), *found.values(), GateConfig(latency=np.inf))
    return {check.name: check.passed for check in checks}


def test_a_model_passes_against_itself(frames: Path) -> None:
    assert all(verdicts(frames, ByColor()).values())


def test_masks_that_jump_about_lose_consistency(frames: Path) -> None:
    found = verdicts(frames, ByColor(flicker(np.random.default_rng(0), 0.1)))
    assert not found["temporal consistency"]
    assert not found["mirrored consistency"]


def test_few_huge_masks_are_consistent_and_refused(frames: Path) -> None:
    found = verdicts(frames, ByColor(lambda masks: np.ones_like(masks[:1])))
    assert found["temporal consistency"]
    assert found["mirrored consistency"]
    assert not found["instances per frame"]
    assert not found["recall of confident masks"]


def test_more_than_it_finds_itself_in_the_mirror_is_not_asked_of_another() -> None:
    grid = np.zeros((8, 8, 16), bool)
    grid[range(8), range(8), :8] = True  # a line each, on the left
    found = Instances.from_dense(grid, image_size=(8, 16), scores=np.full(8, 0.9))
    mirror = Instances.from_dense(grid[:, :, ::-1], image_size=(8, 16), scores=np.full(8, 0.9))

    def asked(own: int, candidate: int) -> tuple[float | None, bool]:
        frames = Frames([found], [mirror], [1.0], {}, [1.0])
        old = Frames([found], [mirror.select(np.arange(own))]), Frames([found.select(np.arange(candidate))])
        (check,) = (each for each in compare(frames, frames, *old, GateConfig()) if "recall" in each.name)
        return check.running, check.passed

    assert asked(8, 7) == (1.0, False)
    assert asked(7, 7) == (7 / 8, True)
    assert asked(7, 6) == (7 / 8, False)


def test_a_slower_model_of_another_precision_is_told_to_be_one(frames: Path) -> None:
    found, _ = look(sorted(frames.rglob("*.png")), {"a": ByColor(), "b": ByColor()}, say=lambda line: None)
    running, candidate = found.values()
    running.precision, candidate.precision = "int8", "fp32"
    candidate.seconds = [2 * seconds for seconds in running.seconds]
    check = compare(running, candidate, running, candidate, GateConfig())[-1]
    assert check.sentence.endswith("1.1 is allowed: it is fp32 and the running model int8, export it likewise")
    candidate.precision = "int8"
    assert compare(running, candidate, running, candidate, GateConfig())[-1].sentence.endswith("1.1 is allowed")


def test_a_model_that_finds_nothing_is_refused(frames: Path) -> None:
    found = verdicts(frames, ByColor(lambda masks: masks[:0]))
    assert not found["instances per frame"]
    assert not found["covered area"]
    assert not found["recall of confident masks"]


def test_agreement_of_known_masks() -> None:
    halves = np.zeros((2, 4, 4), bool)
    halves[0, :2] = halves[1, 2:] = True
    assert agreement(halves, halves) == 1.0
    assert agreement(halves[:1], halves) == pytest.approx((1 + 1 + 0) / 3)
    assert agreement(halves[:1], np.ones((1, 4, 4), bool)) == pytest.approx(0.5)
    assert agreement(halves[:0], halves[:0]) == 1.0
    assert agreement(halves[:0], halves) == 0.0


def test_recall_counts_confident_masks_only() -> None:
    masks = np.zeros((2, 8, 8), bool)
    masks[0, :4] = masks[1, 4:] = True
    sure = Instances.from_dense(masks, image_size=(8, 8), scores=np.array([0.9, 0.3]))
    only_first = sure.select(np.array([0]))
    assert recall([sure], [only_first], confident=0.6) == (1.0, 1)
    assert recall([sure], [only_first], confident=0.1) == (0.5, 2)
    sides = Instances.from_dense(masks.transpose(0, 2, 1), image_size=(8, 8), scores=np.array([0.9, 0.3]))
    left = sides.select(np.array([0]))
    assert recall([left], [left], confident=0.6) == (1.0, 1)
    assert recall([left], [left], confident=0.6, reflected=True) == (0.0, 1)
    assert recall([sides], [left], confident=0.1, reflected=True) == (0.5, 2)
    with pytest.raises(InputError, match="finds nothing"):
        recall([Instances.empty((8, 8))], [sure], confident=0.6)


def test_frames_are_picked_in_pairs() -> None:
    paths = [Path(str(number)) for number in range(100)]
    chosen = [int(str(path)) for path in pick(paths, 10)]
    assert len(chosen) == 10
    assert all(b - a == 1 for a, b in zip(chosen[::2], chosen[1::2], strict=True))
    assert pick(paths, 200) == paths


def test_frames_score_without_a_neighbour() -> None:
    rows = Frames(mirrored=[0.5, 0.7], temporal={1: 0.9})
    assert [rows.score(0), rows.score(1)] == [0.5, pytest.approx(0.8)]


def with_noise(path: Path, share: float) -> Path:
    import onnx
    from onnx import numpy_helper

    model, rng = onnx.load(default_model()), np.random.default_rng(0)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor).astype(np.float32)
        if values.ndim >= 2 and values.size > 100 and tensor.data_type in (1, 10):
            noisy = values + rng.normal(0, share * values.std(), values.shape)
            tensor.CopyFrom(numpy_helper.from_array(noisy.astype(numpy_helper.to_array(tensor).dtype), tensor.name))
    onnx.save(model, path)
    return path


def test_the_shipped_model_is_accepted_against_itself_and_a_spoiled_one_refused(tmp_path: Path, frames: Path) -> None:
    command = [str(frames / "camera0"), "--running", "default", "--max-frames", "2", "--latency", "1e9", "--out"]
    assert main([*command, str(tmp_path / "same"), "--candidate", "default"]) == 0
    noise = with_noise(tmp_path / "noise.onnx", 0.6)
    assert main([*command, str(tmp_path / "noise"), "--candidate", str(noise)]) == 1
    for name, word in (("same", "accepted"), ("noise", "refused")):
        found = json.loads((tmp_path / name / "gate.json").read_text())
        assert found["accepted"] == (name == "same")
        page = (tmp_path / name / "report.html").read_text()
        assert f">{word}<" in page
        assert page.count("data:image/jpeg") == 4  # old beside new, worst and best of two frames
    assert "recall" in found["reason"] or "masks of the running model" in found["reason"]


def test_what_cannot_be_judged_is_one_sentence(tmp_path: Path, frames: Path, capsys: pytest.CaptureFixture) -> None:
    wrong = ["--running", str(tmp_path / "none.onnx"), "--candidate", "default", "--out", str(tmp_path / "out")]
    assert main([str(frames), *wrong]) == 2
    assert main([str(tmp_path / "nothing"), "--running", "default", "--candidate", "default"]) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert printed.count("gate: ") == 2


@pytest.mark.parametrize("size", [(37, 61), (300, 500), (1, 7)])
def test_small_masks_are_the_nearest_pixels_of_full_ones(size):
    rng = np.random.default_rng(0)
    masks = np.zeros((6, *size), bool)
    for mask in masks:
        (y0, y1), (x0, x1) = (sorted(rng.integers(0, side + 1, 2)) for side in size)
        mask[y0 : y1 + 1, x0 : x1 + 1] = rng.random(mask[y0 : y1 + 1, x0 : x1 + 1].shape) < 0.7
    instances = Instances.from_dense(masks[masks.any((1, 2))], image_size=size)
    shape = (12, 20)
    rows, columns = (((np.arange(to) + 0.5) * side / to).astype(int) for to, side in zip(shape, size, strict=True))
    np.testing.assert_array_equal(small_masks(instances, shape), instances.dense()[:, rows[:, None], columns])
