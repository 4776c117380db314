import json
import os

import cv2
import numpy as np
import pytest
from PIL import Image

from hassod_ros.coco import to_coco
from hassod_ros.drawing import side_by_side
from hassod_ros.images import read_image
from hassod_ros.instances import Instances
from hassod_ros.train import visualise


@pytest.fixture
def labelled(tmp_path):
    """Six images, two of them in a folder below, with one square each, and their COCO file."""
    images, annotations = [], []
    for i in range(6):
        name = f"{'below/' if i < 2 else ''}{i}.png"
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((40, 50, 3), 20 * i, np.uint8)).save(tmp_path / "images" / name)
        images.append({"id": i + 1, "file_name": name, "height": 40, "width": 50})
        mask = np.zeros((1, 40, 50), bool)
        mask[0, 10:20, 5 : 15 + i] = True
        annotations += to_coco(Instances.from_dense(mask, image_size=(40, 50)), i + 1, first_id=i + 1)
    (tmp_path / "labels.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    return tmp_path


def run(folder, *more: str) -> int:
    arguments = ["--images", str(folder / "images"), "--out", str(folder / "out"), *more]
    return visualise.main(arguments)


def test_draws_labels_spread_over_the_file(labelled, capsys):
    assert run(labelled, "--labels", str(labelled / "labels.json"), "--count", "3") == 0
    assert capsys.readouterr().out.startswith("3 pictures")
    assert sorted(path.name for path in (labelled / "out").iterdir()) == ["2.jpg", "5.jpg", "below_0.jpg"]
    picture = cv2.imread(str(labelled / "out" / "5.jpg"))[..., ::-1].astype(int)
    mask = np.zeros((1, 40, 50), bool)
    mask[0, 10:20, 5:20] = True
    wanted = side_by_side(np.full((40, 50, 3), 100, np.uint8), Instances.from_dense(mask, image_size=(40, 50)))
    assert picture.shape == wanted.shape
    assert np.abs(picture - wanted).mean() < 3


def test_discovers_on_the_fly(tmp_path):
    (tmp_path / "images").mkdir()
    image = np.full((60, 80, 3), 30, np.uint8)
    image[15:45, 20:60] = 220, 60, 40
    Image.fromarray(image).save(tmp_path / "images" / "a.png")
    assert run(tmp_path, "--features", "handcrafted") == 0
    picture = cv2.imread(str(tmp_path / "out" / "a.jpg")).astype(int)
    assert np.abs(picture[-60:, 88 : 88 + 80] - image[..., ::-1]).mean() > 5


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        ("{}", "not a COCO file"),
        ("cut {", "not a COCO file"),
        ('{"images": [{"id": 1, "file_name": "gone.png", "height": 4, "width": 4}], "annotations": []}', "gone.png"),
    ],
)
def test_bad_labels(content, message, labelled, capsys):
    path = labelled / "other.json"
    if content is not None:
        path.write_text(content)
    assert run(labelled, "--labels", str(path)) == 2
    assert message in capsys.readouterr().err


def test_labels_of_another_size(labelled, capsys):
    Image.fromarray(np.zeros((30, 30, 3), np.uint8)).save(labelled / "images" / "2.png")
    assert run(labelled, "--labels", str(labelled / "labels.json")) == 2
    assert "the labels of 2.png do not fit" in capsys.readouterr().err


def test_lists_may_name_pictures_elsewhere(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "lists").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.full((64, 64, 3), 90, np.uint8))
    (tmp_path / "lists" / "list.txt").write_text("../photos/a.png\n")
    arguments = ["--images", str(tmp_path / "lists" / "list.txt"), "--out", str(tmp_path / "out")]
    assert visualise.main([*arguments, "--features", "handcrafted"]) == 0
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["photos_a.jpg"]


def test_a_jpg_and_a_png_of_one_name_are_both_drawn(tmp_path):
    (tmp_path / "images").mkdir()
    for name in ("a.jpg", "a.png"):
        Image.fromarray(np.full((64, 64, 3), 90, np.uint8)).save(tmp_path / "images" / name)
    assert run(tmp_path, "--features", "handcrafted") == 0
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == ["a_jpg.jpg", "a_png.jpg"]


def test_a_file_name_that_is_not_utf8_is_drawn_where_imwrite_crashed(labelled):
    odd = os.fsdecode(b"caf\xe9.png")
    os.rename(labelled / "images" / "2.png", labelled / "images" / odd)
    content = json.loads((labelled / "labels.json").read_text())
    content["images"][2]["file_name"] = odd
    (labelled / "labels.json").write_text(json.dumps(content))
    assert run(labelled, "--labels", str(labelled / "labels.json")) == 0
    assert read_image(labelled / "out" / os.fsdecode(b"caf\xe9.jpg")).shape[0] > 40


def test_labels_with_the_list_that_they_were_made_from(labelled):
    (labelled / "list.txt").write_text("images/2.png\n")
    content = json.loads((labelled / "labels.json").read_text())
    for image in content["images"]:
        image["file_name"] = f"images/{image['file_name']}"
    (labelled / "labels.json").write_text(json.dumps(content))
    arguments = ["--labels", str(labelled / "labels.json"), "--images", str(labelled / "list.txt"), "--count", "1"]
    assert visualise.main([*arguments, "--out", str(labelled / "out")]) == 0
    assert [file.name for file in (labelled / "out").iterdir()] == ["images_below_0.jpg"]


def test_photographs_are_not_drawn_over(labelled, capsys):
    photos = labelled / "images"
    assert (
        visualise.main(["--labels", str(labelled / "labels.json"), "--images", str(photos), "--out", str(photos)]) == 2
    )
    assert "would be read with it the next time; choose another --out" in capsys.readouterr().err
    assert not list(photos.glob("*.jpg"))
