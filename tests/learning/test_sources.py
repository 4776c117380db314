import json
from pathlib import Path

import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.learning.sources import Options, prepare


def _image(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (40, 30)).save(path)


def _square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y, x + side, y, x + side, y + side, x, y + side]]


def _annotation(annotation_id: int, image_id: int, x: float, y: float, side: float, **more) -> dict:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 40 + annotation_id,
        "bbox": [x, y, side, side],
        "segmentation": _square(x, y, side),
        "area": side * side,
        **more,
    }


def _json(path: Path, images: list, annotations: list, **more) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, **more}))


def _picture(image_id: int, **more) -> dict:
    return {"id": image_id, "height": 30, "width": 40, **more}


@pytest.fixture
def coco(tmp_path) -> Path:
    root = tmp_path / "coco"
    for name in ("train2017/000000000003.jpg", "train2017/000000000001.jpg", "unlabeled2017/000000000002.jpg"):
        _image(root / name)
    for name in ("000000000010.jpg", "000000000011.jpg"):
        _image(root / "val2017" / name)
    _json(
        root / "annotations/instances_val2017.json",
        [_picture(10, file_name="000000000010.jpg"), _picture(11, file_name="000000000011.jpg")],
        [_annotation(1, 10, 0, 0, 10), _annotation(2, 10, 20, 5, 10, iscrowd=1)],
    )
    _json(
        root / "annotations/lvis_v1_val.json",
        [
            _picture(10, coco_url="http://images.cocodataset.org/val2017/000000000010.jpg"),
            _picture(3, coco_url="http://images.cocodataset.org/train2017/000000000003.jpg"),
            _picture(99, coco_url="http://images.cocodataset.org/train2017/000000000099.jpg"),
        ],
        [
            _annotation(1, 10, 1, 0, 10),  # IoU 0.82 with COCO's first
            _annotation(2, 10, 5, 0, 10),  # IoU 0.33
            _annotation(3, 10, 5, 0, 9),  # the same object once more
            _annotation(4, 3, 0, 0, 20),
            _annotation(5, 99, 0, 0, 20),
        ],
    )
    return root


def _load(path: Path) -> dict:
    content = json.loads(path.read_text())
    assert content["categories"] == [{"id": 1, "name": "object"}]
    assert {annotation["category_id"] for annotation in content["annotations"]} <= {1}
    assert [annotation["id"] for annotation in content["annotations"]] == list(
        range(1, len(content["annotations"]) + 1)
    )
    return content


def test_coco_lists_train_and_unlabelled_pictures(coco, tmp_path):
    prepared = prepare("coco", coco, tmp_path / "coco.txt", Options())
    names = [str(Path(line).relative_to(coco.resolve())) for line in prepared.path.read_text().splitlines()]
    assert names == [
        "train2017/000000000001.jpg",
        "train2017/000000000003.jpg",
        "unlabeled2017/000000000002.jpg",
    ]
    assert prepared.pictures == 3


def test_lvis_takes_its_pictures_from_both_folders_and_reports_the_missing_one(coco, tmp_path):
    prepared = prepare("lvis", coco, tmp_path / "lvis.json", Options())
    content = _load(prepared.path)
    assert [image["file_name"] for image in content["images"]] == [
        "val2017/000000000010.jpg",
        "train2017/000000000003.jpg",
    ]
    assert (prepared.annotations, prepared.missing) == (4, 1)


@pytest.mark.parametrize(("iou", "kept"), [(0.5, [0, 20, 5]), (0.9, [0, 20, 1, 5, 5]), (0.2, [0, 20])])
def test_coco_and_lvis_are_merged_without_duplicates(coco, tmp_path, iou, kept):
    prepared = prepare("coco_lvis", coco, tmp_path / "merged.json", Options(duplicate_iou=iou))
    content = _load(prepared.path)
    assert [annotation["bbox"][0] for annotation in content["annotations"]] == kept
    assert [annotation["iscrowd"] for annotation in content["annotations"]][:2] == [0, 1]
    assert len(content["images"]) == 2


def test_objects365_joins_both_versions_without_repeating_pictures(tmp_path):
    root = tmp_path / "o365"
    for name in ("images/v1/patch0/a.jpg", "images/v2/patch3/b.jpg"):
        _image(root / name)
    box = {"id": 7, "category_id": 5, "bbox": [1, 2, 3, 4]}
    first = [_picture(1, file_name="images/v1/patch0/a.jpg")]
    second = [_picture(1, file_name="images/v2/patch3/b.jpg"), _picture(2, file_name="images/v1/patch0/a.jpg")]
    _json(root / "annotations/objects365_v1_val.json", first, [{**box, "image_id": 1}])
    _json(root / "annotations/zhiyuan_objv2_val.json", second, [{**box, "image_id": 1}, {**box, "image_id": 2}])
    content = _load(prepare("objects365", root, tmp_path / "o365.json", Options()).path)
    assert [image["file_name"] for image in content["images"]] == ["images/v1/patch0/a.jpg", "images/v2/patch3/b.jpg"]
    assert [(each["image_id"], each["area"]) for each in content["annotations"]] == [(1, 12), (2, 12)]


def test_sa1b_draws_pictures_reproducibly(tmp_path):
    root = tmp_path / "sa1b"
    for i in range(6):
        _image(root / f"part/sa_{i}.jpg")
        (root / f"part/sa_{i}.json").write_text(
            json.dumps({"image": {"image_id": i, "height": 30, "width": 40, "file_name": f"sa_{i}.jpg"},
                        "annotations": [_annotation(1, 0, 0, 0, i + 1)] * 2})
        )  # fmt: skip
    (root / "part/sa_5.jpg").unlink()
    options = Options(pictures=4, seed=1)
    first = prepare("sa1b", root, tmp_path / "1.json", options)
    content = _load(first.path)
    assert first.pictures + first.missing == 4
    assert [image["id"] for image in content["images"]] == list(range(1, first.pictures + 1))
    for image in content["images"]:
        sides = {a["bbox"][2] for a in content["annotations"] if a["image_id"] == image["id"]}
        assert image["file_name"] == f"part/sa_{sides.pop() - 1}.jpg"
    assert prepare("sa1b", root, tmp_path / "2.json", options).path.read_bytes() == first.path.read_bytes()
    everything = prepare("sa1b", root, tmp_path / "3.json", Options())
    assert (everything.pictures, everything.missing) == (5, 1)


@pytest.mark.parametrize(
    ("name", "remove", "message"),
    [
        ("coco", "unlabeled2017/000000000002.jpg", "holds no picture in unlabeled2017"),
        ("lvis", "annotations/lvis_v1_val.json", "lacks annotations/lvis_v1_val.json; lvis needs train2017, val2017,"),
        ("sa1b", "annotations/lvis_v1_val.json", "no annotated picture was found"),
        ("objects365", "train2017/000000000001.jpg", "lacks images; objects365 needs images, annotations"),
    ],
)
def test_says_what_is_missing(coco, tmp_path, name, remove, message):
    (coco / remove).unlink()
    with pytest.raises(InputError, match=message):
        prepare(name, coco, tmp_path / "out", Options())
    assert not (tmp_path / "out").exists()


def test_a_folder_that_does_not_exist_and_damaged_json_are_named(coco, tmp_path):
    with pytest.raises(InputError, match="does not exist; give the folder"):
        prepare("coco", tmp_path / "none", tmp_path / "out", Options())
    (coco / "annotations/lvis_v1_val.json").write_text("{")
    with pytest.raises(InputError, match=r"lvis_v1_val.json is not JSON"):
        prepare("lvis", coco, tmp_path / "out", Options())
