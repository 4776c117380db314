"""Annotations of other tools: files as YOLO's and LabelMe's users have them, there and back."""

import base64
import json
import logging
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image, ImageDraw
from pycocotools import mask as rle
from pycocotools.coco import COCO

from hassod_ros.coco import to_coco, to_rle
from hassod_ros.errors import InputError
from hassod_ros.formats.convert import form_of, read_labels
from hassod_ros.instances import Instances, Level
from hassod_ros.train import convert, evaluate

SIZE = (60, 80)


def ring(height: int, width: int) -> np.ndarray:
    """A thing with a hole, and a second piece away from it."""
    mask = np.zeros((height, width), np.uint8)
    cv2.circle(mask, (25, 30), 20, 1, -1)
    cv2.circle(mask, (25, 30), 8, 0, -1)
    mask[10:20, 60:75] = 1
    return mask


@pytest.fixture
def ours(tmp_path: Path) -> Path:
    """Labels of two photos: a whole with a hole and a part of it; nothing."""
    (tmp_path / "photos" / "below").mkdir(parents=True)
    images = []
    for number, name in enumerate(("a.jpg", "below/b.png"), start=1):
        Image.fromarray(np.full((*SIZE, 3), 90 * number, np.uint8)).save(tmp_path / "photos" / name)
        images.append({"id": 10 * number, "file_name": name, "height": SIZE[0], "width": SIZE[1]})
    part = np.zeros(SIZE, np.uint8)
    part[20:25, 10:20] = 1
    things = Instances.from_dense(
        np.stack([ring(*SIZE), part]), image_size=SIZE, levels=np.array([0, 1]), parents=np.array([-1, 0])
    )
    annotations = to_coco(things, 10, first_id=5)
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (tmp_path / "labels.json").write_text(json.dumps(content))
    return tmp_path / "labels.json"


def masks_of(path: Path) -> list[np.ndarray]:
    coco = COCO(path)
    return [coco.annToMask(entry) for _, entry in sorted(coco.anns.items())]


def iou(first: np.ndarray, second: np.ndarray) -> float:
    return np.count_nonzero(first & second) / np.count_nonzero(first | second)


@pytest.mark.parametrize("form", ["yolo", "labelme"])
def test_labels_survive_the_way_to_another_tool_and_back(ours, tmp_path, form, capsys):
    place, photos = tmp_path / form, tmp_path / "photos"
    assert convert.main([str(ours), "--to", form, "--out", str(place), "--images", str(photos)]) == 0
    assert "2 images, 2 annotations of 3 classes" in capsys.readouterr().out
    assert form_of(place) == form
    assert convert.main([str(place), "--to", "coco", "--out", str(tmp_path / "back.json")]) == 0
    coco = COCO(tmp_path / "back.json")
    assert [entry["level"] for entry in coco.anns.values()] == [Level.WHOLE, Level.PART]
    assert {Path(image["file_name"]).name for image in coco.imgs.values()} == {"a.jpg", "b.png"}
    for before, after in zip(masks_of(ours), masks_of(tmp_path / "back.json"), strict=True):
        assert iou(before, after) > 0.99
    if form == "labelme":
        assert [entry["parent_id"] for entry in coco.anns.values()] == [0, 1]


def test_opencv_fills_a_polygon_of_yolo_as_ultralytics_does(ours, tmp_path):
    assert convert.main([str(ours), "--to", "yolo", "--out", str(tmp_path / "yolo")]) == 0
    line = (tmp_path / "yolo" / "labels" / "a.txt").read_text().splitlines()[0]
    kind, *values = line.split()
    points = np.array(values, float).reshape(-1, 2) * (SIZE[1], SIZE[0])
    filled = cv2.fillPoly(np.zeros(SIZE, np.uint8), [points.astype(np.int32)], 1)
    bridge = 24  # pixels of the line between the two pieces, which this way of filling draws too
    assert kind == "0"
    assert np.count_nonzero(filled != ring(*SIZE)) <= bridge
    assert (tmp_path / "yolo" / "labels" / "below" / "b.txt").read_text() == ""
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_text())["names"] == {
        0: "whole",
        1: "part",
        2: "subpart",
    }


def test_pillow_fills_a_polygon_of_labelme_as_labelme_does(ours, tmp_path):
    photos = tmp_path / "photos"
    assert convert.main([str(ours), "--to", "labelme", "--out", str(tmp_path / "out"), "--images", str(photos)]) == 0
    content = json.loads((tmp_path / "out" / "below" / "b.json").read_text())
    assert content["shapes"] == []
    assert (tmp_path / "out" / "below" / content["imagePath"]).resolve() == (photos / "below" / "b.png").resolve()
    shape = json.loads((tmp_path / "out" / "a.json").read_text())["shapes"][0]
    assert (shape["label"], shape["shape_type"], shape["group_id"]) == ("whole", "polygon", None)
    picture = Image.new("1", SIZE[::-1])
    ImageDraw.Draw(picture).polygon([tuple(point) for point in shape["points"]], fill=1, outline=1)
    assert iou(np.array(picture), ring(*SIZE)) > 0.95


def test_coco_for_other_tools_has_what_fiftyone_and_cvat_look_for(ours, tmp_path):
    assert convert.main([str(ours), "--to", "coco", "--out", str(tmp_path / "out.json")]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert {"info", "licenses", "categories", "images", "annotations"} <= content.keys()
    assert [image["id"] for image in content["images"]] == [1, 2]
    assert [category["name"] for category in content["categories"]] == ["whole", "part", "subpart"]
    for number, entry in enumerate(content["annotations"], start=1):
        assert (entry["id"], entry["image_id"], entry["iscrowd"], entry["category_id"]) == (number, 1, 0, number)
        mask = rle.decode(to_rle(entry["segmentation"], SIZE))
        assert entry["area"] == np.count_nonzero(mask)
        assert entry["bbox"] == cv2.boundingRect(mask) or entry["bbox"] == list(map(float, cv2.boundingRect(mask)))
    assert content["annotations"][1]["attributes"] == {"score": 1.0, "level": 1, "parent_id": 1, "scene": False}


@pytest.fixture
def yolo(tmp_path: Path) -> Path:
    """A set as Ultralytics has it: a box, a polygon's set elsewhere, an image without a label file."""
    for folder in ("images/val", "labels/val"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for name in ("a", "b"):
        Image.new("RGB", (80, 60)).save(tmp_path / "set" / "images" / "val" / f"{name}.jpg")
    (tmp_path / "set" / "labels" / "val" / "a.txt").write_text("1 0.5 0.5 0.25 0.5\n0 0.1 0.1 0.2 0.2 0.75\n")
    (tmp_path / "set" / "data.yaml").write_text("path: ../elsewhere\nval: images/val\nnames: [cat, dog]\n")
    return tmp_path / "set"


def test_boxes_of_yolo_with_and_without_confidence(yolo):
    labels = read_labels(yolo)
    (first, found), (second, nothing) = labels
    assert (first["file_name"], first["height"], first["width"]) == ("a.jpg", 60, 80)
    assert [entry["class"] for entry in found] == ["dog", "cat"]
    assert found[0]["bbox"] == [30.0, 15.0, 20.0, 30.0]
    assert found[1]["bbox"] == pytest.approx([0, 0, 16, 12])
    assert found[1]["score"] == 0.75
    assert (second["file_name"], nothing) == ("b.jpg", [])
    assert labels.classes == ["cat", "dog"]
    assert len(list(read_labels(yolo / "labels" / "val"))) == 2  # images lie beside labels
    assert len(list(read_labels(yolo / "labels" / "val", yolo / "images" / "val"))) == 2


def test_a_set_of_boxes_and_polygons_counts_boxes_as_ultralytics_does(yolo, caplog):
    with open(yolo / "labels" / "val" / "a.txt", "a") as file:
        file.write("0 0.5 0.5 1 0.5 1 1\n")
    with caplog.at_level(logging.WARNING):
        found = next(iter(read_labels(yolo)))[1]
    assert "mixes boxes and polygons" in caplog.text
    assert found[2]["bbox"] == [40, 30, 40, 30]
    assert not any("segmentation" in entry for entry in found)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 0.5 0.5 0.2", r"a.txt, line 1 has 3 numbers after its class"),
        ("0 0.5 x 0.2 0.1", r"a.txt, line 1 is not numbers"),
        ("0 40 30 20 10", r"a.txt, line 1 has numbers outside \[0, 1\]"),
        ("0 nan 0.5 0.2 0.1", r"a.txt, line 1 has numbers outside"),
        ("7 0.5 0.5 0.2 0.1", r"a.txt, line 1 has the class 7; there are 2 names"),
    ],
)
def test_a_faulty_line_of_yolo_is_named(yolo, line, message):
    (yolo / "labels" / "val" / "a.txt").write_text(line)
    with pytest.raises(InputError, match=message):
        read_labels(yolo)


@pytest.mark.parametrize("form", ["yolo", "labelme"])
def test_images_that_are_elsewhere_are_named(ours, tmp_path, form, capsys):
    arguments = [str(ours), "--to", form, "--out", str(tmp_path / form), "--images", str(tmp_path)]
    assert convert.main(arguments) == 2
    assert "a.jpg does not exist; give --images the folder that file names are relative to" in capsys.readouterr().err


def test_two_images_of_one_stem_have_no_two_label_files(ours, tmp_path, capsys):
    content = json.loads(ours.read_text())
    content["images"][1]["file_name"] = "a.png"
    ours.write_text(json.dumps(content))
    assert convert.main([str(ours), "--to", "yolo", "--out", str(tmp_path / "yolo")]) == 2
    assert "a.jpg and a.png would share the label file a.txt" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["../a.jpg", "/etc/a.jpg"])
def test_a_name_that_leads_out_of_the_folder_is_refused(ours, tmp_path, name, capsys):
    content = json.loads(ours.read_text())
    content["images"][0]["file_name"] = name
    ours.write_text(json.dumps(content))
    for form in ("yolo", "labelme"):
        assert convert.main([str(ours), "--to", form, "--out", str(tmp_path / form)]) == 2
        assert f"the name {name} leads out of the folder" in capsys.readouterr().err


def labelme(path: Path, shapes: list[dict], **changes: object) -> Path:
    content = {"version": "5.4.1", "flags": {}, "shapes": shapes, "imagePath": "a.jpg", "imageData": None}
    path.write_text(json.dumps(content | {"imageHeight": 60, "imageWidth": 80} | changes))
    return path


def shape(kind: str, points: list, label: str = "screw", **more: object) -> dict:
    return {"label": label, "points": points, "group_id": None, "shape_type": kind, "flags": {}} | more


def test_every_shape_of_labelme_with_an_area_counts(tmp_path, caplog):
    png = cv2.imencode(".png", np.full((4, 6), 255, np.uint8))[1].tobytes()
    shapes = [
        shape("polygon", [[0, 0], [10, 0], [10, 10], [0, 10]]),
        shape("rectangle", [[20, 10], [30, 20]], label="part"),
        shape("circle", [[50, 30], [60, 30]]),
        shape("mask", [[70, 50], [75, 53]], mask=base64.b64encode(png).decode()),
        shape("polygon", [[0, 40], [10, 40], [10, 50]], group_id=1),
        shape("polygon", [[20, 40], [30, 40], [30, 50]], group_id=1),
        shape("point", [[1, 1]]),
        shape("line", [[1, 1], [2, 2]]),
    ]
    labelme(tmp_path / "a.json", shapes)
    (tmp_path / "notes.json").write_text("{}")
    with caplog.at_level(logging.WARNING):
        ((image, found),) = read_labels(tmp_path)
    assert (image["file_name"], image["height"], image["width"]) == ("a.jpg", 60, 80)
    areas = [np.count_nonzero(rle.decode(to_rle(entry["segmentation"], SIZE))) for entry in found]
    assert areas == pytest.approx([100, 100, np.pi * 100, 24, 100], rel=0.11)
    assert [entry.get("level") for entry in found] == [None, 1, None, None, None]
    assert "left out shapes without an area: 1 point, 1 line" in caplog.text


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ([shape("polygon", [[0, 0], [1, 1]])], r"a.json: the shape 'screw' has 2 points"),
        ([shape("polygon", [[0, 0], [100, 0], [5, 5]])], r"leaves its image of 80x60 pixels"),
        ([shape("polygon", None)], r"has no points"),
        ([shape("mask", [[0, 0], [1, 1]], mask="AAAA")], r"has a mask that cannot be read"),
        (["text"], r"shape 0 is no object"),
        ({}, r"it has no shapes"),
    ],
)
def test_a_faulty_shape_of_labelme_is_named(tmp_path, shapes, message):
    with pytest.raises(InputError, match=message):
        read_labels(labelme(tmp_path / "a.json", shapes))


@pytest.mark.parametrize("form", ["yolo", "labelme"])
def test_evaluation_reads_them_as_ground_truth(ours, tmp_path, form, capsys):
    place, photos = tmp_path / form, str(tmp_path / "photos")
    assert convert.main([str(ours), "--to", form, "--out", str(place), "--images", photos]) == 0
    arguments = ["--annotations", str(place), "--images", photos, "--predictions", str(ours)]
    assert evaluate.main([*arguments, "--report", str(tmp_path / "report")]) == 0
    assert "2 images, 2 annotations, 2 predictions" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "report" / "metrics.json").read_text())
    assert metrics["mask"]["AR@10"] == 1.0


def test_a_folder_of_neither_is_one_sentence(tmp_path, capsys):
    assert convert.main([str(tmp_path), "--to", "coco", "--out", str(tmp_path / "out.json")]) == 2
    assert "holds neither YOLO's text files nor LabelMe's JSON files" in capsys.readouterr().err
