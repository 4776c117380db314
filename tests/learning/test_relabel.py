import dataclasses
import json

import numpy as np
import pytest
import torch
from hassod_ros.train import relabel as script

from hassod_ros.detection.cascade_mask_rcnn import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.detection.detections import Detections
from hassod_ros.errors import InputError
from hassod_ros.images import read_image
from hassod_ros.learning import relabel as module
from hassod_ros.learning.annotations import load_annotations
from hassod_ros.learning.config import RelabelConfig
from hassod_ros.learning.relabel import draw_masks, label, relabel

TOY = RelabelConfig(sides=(80, 64), score_threshold=0.0, detections=6, superpixels=20.0)


@pytest.fixture
def checkpoint(tmp_path, tiny_detector):
    torch.manual_seed(0)
    save_weights(CascadeMaskRCNN(tiny_detector), tmp_path / "model.pth")
    return tmp_path / "model.pth"


def disc(height, width, centre, radius):
    y, x = np.mgrid[:height, :width] + 0.5
    return np.hypot(y - centre[0], x - centre[1]) < radius


@pytest.mark.parametrize("enlarged", [1, 3])
def test_outlines_follow_the_image(enlarged):
    truth = disc(120 * enlarged, 160 * enlarged, (60 * enlarged, 80 * enlarged), 40 * enlarged)
    pixels = np.where(disc(120, 160, (60, 80), 40)[..., None], [200, 60, 40], [50, 90, 120]).astype(np.uint8)
    y, x = (np.mgrid[:28, :28] + 0.5) / 14 - 1
    cells = 1 / (1 + np.exp(6 * (np.hypot(y, x) - 0.8)))  # 0.5 a fifth inside the rim
    found = Detections(
        boxes=torch.tensor([[40.0, 20, 120, 100]]),
        scores=torch.ones(1),
        level_probabilities=torch.zeros(1, 0),
        mask_probabilities=torch.from_numpy(cells.astype(np.float32))[None],
        size=(120, 160),
    )

    def iou(snap: float) -> float:
        config = RelabelConfig(snap=snap, mask_threshold=0.5)
        (mask,) = draw_masks(found, pixels, truth.shape, config)
        assert (mask.shape, mask.dtype) == (truth.shape, np.uint8)
        return (mask & truth).sum() / (mask | truth).sum()

    assert iou(0.0) == pytest.approx(0.64, abs=0.03)  # 0.8 of the radius
    assert iou(0.9) > 0.85


def test_a_box_without_area_has_no_mask():
    found = Detections(
        boxes=torch.tensor([[5.0, 5, 5, 9], [0, 0, 0.4, 30]]),
        scores=torch.ones(2),
        level_probabilities=torch.zeros(2, 0),
        mask_probabilities=torch.ones(2, 28, 28),
        size=(30, 40),
    )
    nothing, strip = draw_masks(found, np.zeros((30, 40, 3), np.uint8), (30, 40), RelabelConfig())
    assert nothing.sum() == 0
    assert strip[:, 2:].sum() == 0


def test_labels_of_a_folder_are_those_of_each_image(checkpoint, toy_set, tmp_path):
    (toy_set.images / "7.png").write_bytes(b"no picture")
    summary = relabel(toy_set.images, checkpoint, tmp_path / "new.json", TOY, device="cpu")
    assert (summary.images, [failure["file_name"] for failure in summary.failures]) == (6, ["7.png"])
    read = load_annotations(tmp_path / "new.json", toy_set.images)
    assert (len(read), len(read.levels)) == (6, summary.annotations)
    content = json.loads((tmp_path / "new.json").read_text())
    assert content["info"]["config"] == json.loads(json.dumps(dataclasses.asdict(TOY)))
    alone = label(module._detector(checkpoint, TOY, "cpu"), read_image(toy_set.images / "2.png"), TOY)
    there = [each for each in content["annotations"] if each["image_id"] == 3]
    assert [each["segmentation"] for each in there] == [each["segmentation"] for each in alone.to_coco(3)]
    assert (np.diff(alone.scores) <= 0).all()
    assert len(alone) > 1


def test_every_second_look_is_mirrored_and_all_are_in_pixels_of_the_largest(checkpoint, toy_set):
    image = read_image(toy_set.images / "2.png")
    model = module._detector(checkpoint, TOY, "cpu")
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    mirrored = pixels.flip(-1)
    height, width = pixels.shape[1:]
    seen = module._look(model, mirrored, (height, width), mirror=False)
    turned = module._look(model, pixels, (2 * height, 2 * width), mirror=True)
    assert turned.size == (2 * height, 2 * width)
    torch.testing.assert_close(turned.scores, seen.scores)
    x0, y0, x1, y1 = seen.boxes.T * 2
    torch.testing.assert_close(turned.boxes, torch.stack([2 * width - x1, y0, 2 * width - x0, y1], dim=1))
    torch.testing.assert_close(turned.mask_probabilities, seen.mask_probabilities.flip(-1))


def test_a_run_goes_on_where_it_stopped(checkpoint, toy_set, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "SHARD", 2)
    relabel(toy_set.images, checkpoint, tmp_path / "whole.json", TOY, device="cpu")
    write, written, stop = module.Shards.write, [], True

    def note(self, number, records):
        if stop and written:
            raise KeyboardInterrupt
        written.append(number)
        write(self, number, records)

    monkeypatch.setattr(module.Shards, "write", note)
    with pytest.raises(KeyboardInterrupt):
        relabel(toy_set.images, checkpoint, tmp_path / "part.json", TOY, device="cpu")
    stop = False
    relabel(toy_set.images, checkpoint, tmp_path / "part.json", TOY, device="cpu")
    assert written == [0, 1, 2]
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("whole.json", "part.json"))
    assert first["annotations"] == second["annotations"]


def test_bad_input(checkpoint, toy_set, tmp_path, capsys):
    arguments = ["--checkpoint", str(checkpoint), "--images", str(toy_set.images), "--out"]
    (tmp_path / "there.json").write_text("{}")
    assert script.main([*arguments, str(tmp_path / "there.json")]) == 2
    assert "there.json exists; remove it" in capsys.readouterr().err
    assert script.main([*arguments, str(tmp_path / "new.json"), "--relabel.snap", "1.5"]) == 2
    assert "snap must lie in [0, 1], it is 1.5" in capsys.readouterr().err
    with pytest.raises(InputError, match="processes must be at least 1"):
        relabel(toy_set.images, checkpoint, tmp_path / "new.json", processes=0)
    assert script.main(["--images", str(toy_set.images), "--out", "new.json"]) == 2
    assert "--checkpoint is missing" in capsys.readouterr().err
    with pytest.raises(InputError, match="sides must be pixel counts from 32 on"):
        RelabelConfig(sides=())
