"""The command, on pictures of squares with parts, and the shipped model."""

import json

import numpy as np
import onnx
import pytest
from PIL import Image

from hassod_ros.default_model import default_model
from hassod_ros.runtime.evidence import read_evidence
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.train.fit_evidence import main


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Pictures of one figure each: a plate with a smaller one on it, on a floor that is stuff."""
    folder, rng = tmp_path_factory.mktemp("figures"), np.random.default_rng(0)
    images, annotations = [], []
    for i in range(1, 6):
        pixels = np.full((120, 160, 3), rng.integers(0, 256, 3), np.uint8)
        x, y = rng.integers(10, 60, 2)
        boxes = [(x, y, 60, 50), (x + 10, y + 10, 20, 20)]
        for left, top, width, height in boxes:
            pixels[top : top + height, left : left + width] = rng.integers(0, 256, 3)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        images.append({"id": i, "file_name": f"{i}.png", "width": 160, "height": 120})
        for level, (left, top, width, height) in enumerate(boxes):
            right, bottom = left + width, top + height
            corners = [left, top, right, top, right, bottom, left, bottom]
            identity = len(annotations) + 1
            annotation = {"id": identity, "image_id": i, "segmentation": [[int(each) for each in corners]]}
            annotation |= {"bbox": [int(left), int(top), width, height], "area": width * height, "iscrowd": 0}
            annotations.append(annotation | {"level": level, "parent_id": identity - 1 if level else 0})
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return folder


def test_constants_are_written_beside_a_model_that_has_them(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("hassod_ros.evaluation.evidence_fit._FEWEST", 2)
    out, model = tmp_path / "evidence.json", tmp_path / "model.onnx"
    status = main(
        ["default-fp32", "--data", f"{data / 'truth.json'}:{data}", "--out", str(out), "--model-out", str(model)]
    )
    said = capsys.readouterr().out
    assert status == 0, said
    assert "3 pictures to learn from, 2 held back" in said
    assert "thing: fitted to" in said
    assert "scene: kept: 0 examples" in said  # nothing is annotated as stuff
    assert "before" in said
    shipped, fitted = read_model_info(default_model()), read_evidence(out)
    assert shipped.evidence is not None
    assert fitted.scene == shipped.evidence.scene
    assert fitted.thing != shipped.evidence.thing
    assert read_model_info(model).evidence == fitted
    old, new = onnx.load(default_model()), onnx.load(model)
    assert old.graph == new.graph


def test_bad_input_is_one_sentence(data, tmp_path, capsys):
    out = ["--out", str(tmp_path / "evidence.json")]
    boxes = json.loads((data / "truth.json").read_text())
    for annotation in boxes["annotations"]:
        del annotation["segmentation"]
    (tmp_path / "boxes.json").write_text(json.dumps(boxes))
    for arguments, message in (
        ([], "there is nothing to fit to; give --data, --parts, or both"),
        (["--data", "truth.json"], "is no SET.json:IMAGES"),
        (["--data", f"{data / 'truth.json'}:{data}", "--hold-back", "0.9"], "--hold-back is 0.9"),
        (["--data", f"{data / 'truth.json'}:{tmp_path}"], "pictures are faulty"),
        (["--parts", f"{tmp_path / 'boxes.json'}:{data}"], "has boxes only"),
    ):
        assert main(["default-fp32", *arguments, *out]) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "evidence.json").exists()
