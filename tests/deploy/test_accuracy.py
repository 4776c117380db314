"""Recall of a model's own masks, which is known beforehand."""

import dataclasses
import json

import cv2
import pytest
from skimage import data

from hassod_ros.coco import to_coco
from hassod_ros.default_model import FOLDER
from hassod_ros.deploy.accuracy import average_recall
from hassod_ros.errors import InputError
from hassod_ros.runtime.segmenter import Segmenter

MODEL = FOLDER / "default-int8.onnx"


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A photograph in a folder, and what the shipped model finds in it as COCO JSON, without what it marks as scene."""
    folder = tmp_path_factory.mktemp("annotated")
    image = data.coffee()
    cv2.imwrite(str(folder / "coffee.png"), image[..., ::-1])
    segmenter = Segmenter(MODEL, "onnxruntime-cpu")
    segmenter.options = dataclasses.replace(segmenter.options, score_thresholds=(0.0, 0.0, 0.0), max_instances=100)
    height, width = image.shape[:2]
    entries = to_coco(segmenter(image), 1)
    return folder, {
        "images": [{"id": 1, "file_name": "coffee.png", "height": height, "width": width}],
        "categories": [{"id": 1, "name": "thing"}],
        "annotations": [entry for entry in entries if not entry["scene"]],  # recall counts things alone
    }


def test_all_that_a_model_finds_is_recalled(found):
    folder, content = found
    path = folder / "all.json"
    path.write_text(json.dumps(content))
    assert len(content["annotations"]) > 10
    assert average_recall(MODEL, path, folder) == pytest.approx(1)


def test_what_it_does_not_find_lowers_recall(found):
    """As many squares of one pixel beside the masks."""
    folder, content = found
    count = len(content["annotations"])
    dots = [
        {"id": 1000 + i, "image_id": 1, "category_id": 1, "bbox": [3 * i, 0, 1, 1], "area": 1, "iscrowd": 0}
        | {"segmentation": [[3 * i, 0, 3 * i + 1, 0, 3 * i + 1, 1, 3 * i, 1]]}
        for i in range(count)
    ]
    path = folder / "half.json"
    path.write_text(json.dumps(content | {"annotations": content["annotations"] + dots}))
    assert average_recall(MODEL, path, folder) == pytest.approx(0.5)


def test_a_set_of_boxes_is_refused(found):
    folder, content = found
    path = folder / "boxes.json"
    boxes = [{key: value for key, value in a.items() if key != "segmentation"} for a in content["annotations"]]
    path.write_text(json.dumps(content | {"annotations": boxes}))
    with pytest.raises(InputError, match="holds no masks, average recall cannot be measured"):
        average_recall(MODEL, path, folder)
