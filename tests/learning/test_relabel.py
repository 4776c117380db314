import dataclasses
import json

import numpy as np
import pytest
import torch

from hassod_ros.coco import to_coco
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import save_weights
from hassod_ros.errors import InputError
from hassod_ros.images import read_image
from hassod_ros.learning import relabel as module
from hassod_ros.learning.annotations import load_annotations
from hassod_ros.learning.config import RelabelConfig
from hassod_ros.learning.relabel import label, relabel
from hassod_ros.train import relabel as script

TOY = RelabelConfig(sides=(80, 64), score_threshold=0.0, detections=6, color_weight=0.1, mask_threshold=0.3)


@pytest.fixture
def checkpoint(tmp_path, tiny_detector):
    torch.manual_seed(0)
    save_weights(CascadeMaskRCNN(tiny_detector), tmp_path / "model.pth")
    return tmp_path / "model.pth"


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
    assert [each["segmentation"] for each in there] == [each["segmentation"] for each in to_coco(alone, 3)]
    assert (np.diff(alone.scores) <= 0).all()
    assert len(alone) > 1


def test_every_second_look_is_mirrored_and_all_are_in_pixels_of_the_largest(checkpoint, toy_set):
    image = read_image(toy_set.images / "2.png")
    model = module._detector(checkpoint, TOY, "cpu")
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    mirrored = pixels.flip(-1)
    height, width = pixels.shape[1:]
    seen = module._detect(model, mirrored, (height, width), mirror=False)
    turned = module._detect(model, pixels, (2 * height, 2 * width), mirror=True)
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
    assert script.main([*arguments, str(tmp_path / "new.json"), "--relabel.cover", "1.5"]) == 2
    assert "cover must lie in [0, 1], it is 1.5" in capsys.readouterr().err
    with pytest.raises(InputError, match="processes must be at least 1"):
        relabel(toy_set.images, checkpoint, tmp_path / "new.json", processes=0)
    assert script.main(["--images", str(toy_set.images), "--out", "new.json"]) == 2
    assert "--checkpoint is missing" in capsys.readouterr().err
    with pytest.raises(InputError, match="sides must be pixel counts from 32 on"):
        RelabelConfig(sides=())
    with pytest.raises(InputError, match="color_weight must not be negative, it is -1"):
        RelabelConfig(color_weight=-1)
