import gzip
import json

import numpy as np
import pytest

from hassod_ros.coco import UNKNOWN
from hassod_ros.errors import InputError
from hassod_ros.evaluation.annotations import load_annotations, load_predictions, parse_predictions, to_segments

IMAGES = [
    {"id": 1, "file_name": "dev/a.jpg", "width": 60, "height": 40},
    {"id": 2, "file_name": "dev/b.jpg", "width": 60, "height": 40},
]


@pytest.fixture
def write(tmp_path):
    def write(content, name="file.json"):
        path = tmp_path / name
        data = json.dumps(content).encode()
        path.write_bytes(gzip.compress(data) if name.endswith("gz") else data)
        return path

    return write


@pytest.fixture
def truth(write, entry):
    return load_annotations(write({"images": IMAGES, "annotations": [entry((0, 0, 10, 10), id=1)]}, "truth.json"))


def test_predictions_are_ordered_by_score_and_parents_follow(entry):
    entries = [
        entry((0, 0, 5, 5), id=7, score=0.2, parent_id=9, level=1),
        entry((1, 1, 4, 4), id=8, score=0.5),
        entry((0, 0, 9, 9), id=9, score=0.9, level=0),
    ]
    segments = to_segments(entries, (40, 60))
    assert segments.scores.tolist() == [0.9, 0.5, 0.2]
    assert segments.parents.tolist() == [-1, -1, 0]
    assert segments.levels.tolist() == [0, UNKNOWN, 1]
    assert segments.select(np.array([1, 2])).parents.tolist() == [-1, -1]


def test_polygons_uncompressed_and_compressed_runs_agree(entry):
    compressed = entry((2, 3, 12, 13))
    polygon = compressed | {"segmentation": [[2, 3, 12, 3, 12, 13, 2, 13]]}
    runs = [2 * 40 + 3, 10] + [30, 10] * 9
    uncompressed = compressed | {"segmentation": {"size": [40, 60], "counts": [*runs, 40 * 60 - sum(runs)]}}
    segments = to_segments([compressed, polygon, uncompressed], (40, 60))
    assert segments.areas.tolist() == [100, 100, 100]


def test_parts_of_wholes_and_gzip_are_read(write, entry):
    annotations = [entry((0, 0, 20, 20), id=1, part=False), entry((0, 0, 5, 5), id=2, part=True, whole_id=1)]
    images = [*IMAGES[:1], IMAGES[1] | {"annotated": False}]
    found = load_annotations(write({"images": images, "annotations": annotations}, "truth.json.gz"))
    assert len(found.pictures) == 1
    assert found.pictures[0].truth.levels.tolist() == [0, 1]
    assert found.pictures[0].truth.parents.tolist() == [-1, 0]


def test_lvis_style_images_and_sets_without_masks(write, entry):
    images = [{"id": 5, "coco_url": "http://images/val/x.jpg", "width": 60, "height": 40}]
    box = {key: value for key, value in entry((0, 0, 4, 5), 5, id=1).items() if key not in ("segmentation", "area")}
    found = load_annotations(write({"images": images, "annotations": [box]}))
    assert found.pictures[0].file_name == "x.jpg"
    assert not found.has_masks
    assert found.pictures[0].truth.areas.tolist() == [20]


@pytest.mark.parametrize("name", ["dev/b.jpg", "b.jpg"])
def test_pseudo_labels_find_their_images_by_name(write, truth, entry, name):
    labels = {
        "images": [{"id": 70, "file_name": name, "width": 60, "height": 40}, {"id": 71, "file_name": "other.jpg"}],
        "annotations": [entry((0, 0, 3, 3), 70, id=1), entry((0, 0, 3, 3), 71, id=2)],
    }
    found = load_predictions(write(labels), truth)
    assert list(found) == [2]
    assert len(found[2]) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 3}, "refers to image 3"),
        ({"segmentation": {"size": [41, 60], "counts": "0"}}, r"mask of \(41, 60\)"),
        ({"segmentation": {"size": [40, 60]}}, "unreadable mask"),
        ({"score": float("nan")}, "not valid JSON"),
        ({"score": "high"}, "damaged"),
        ({"level": 3}, "level 3"),
        ({"parent_id": 5}, "parent 5"),
        ({"parent_id": 1}, "its own ancestor"),
    ],
)
def test_damaged_predictions_are_named(write, truth, entry, change, message):
    with pytest.raises(InputError, match=message):
        load_predictions(write([entry((0, 0, 3, 3), id=1, score=0.5) | change]), truth)


def test_a_score_that_is_no_number_is_named(truth, entry):
    with pytest.raises(InputError, match="score that is no number"):
        parse_predictions([entry((0, 0, 3, 3), score=float("nan"))], truth)


def test_a_mask_that_is_missing_among_others_is_named(write, truth, entry):
    with pytest.raises(InputError, match="has no mask"):
        load_predictions(write([entry((0, 0, 3, 3)), entry((0, 0, 3, 3)) | {"segmentation": []}]), truth)


def test_wrong_files_are_named(write, tmp_path, truth):
    with pytest.raises(InputError, match="cannot be read"):
        load_annotations(tmp_path / "absent.json")
    (tmp_path / "cut.json").write_text('{"images": [')
    with pytest.raises(InputError, match="not valid JSON"):
        load_annotations(tmp_path / "cut.json")
    with pytest.raises(InputError, match="not a COCO annotation file"):
        load_annotations(write({"images": []}))
    with pytest.raises(InputError, match="neither a COCO results list"):
        load_predictions(write({"boxes": []}), truth)
    with pytest.raises(InputError, match="no image in common"):
        load_predictions(write({"images": [{"id": 1, "file_name": "z.jpg"}], "annotations": []}), truth)


def test_a_thousand_masks_of_one_image(entry):
    segments = to_segments([entry((0, 0, 1 + i % 50, 1)) for i in range(1000)], (40, 60))
    assert segments.areas[:60].tolist() == [1 + i % 50 for i in range(60)]
    assert segments.areas[999] == 50


def test_a_folder_of_shards(write, truth, entry, tmp_path):
    for i, image in enumerate(IMAGES):
        shard = {"images": [image], "annotations": [entry((0, 0, 3, 3 + i), image["id"], id=1)]}
        (tmp_path / "shards").mkdir(exist_ok=True)
        (tmp_path / "shards" / f"{i}.json").write_text(json.dumps(shard))
    found = load_predictions(tmp_path / "shards", truth)
    assert {image_id: segments.areas.tolist() for image_id, segments in found.items()} == {1: [9], 2: [12]}
    (tmp_path / "shards" / "again.json").write_text((tmp_path / "shards" / "0.json").read_text())
    with pytest.raises(InputError, match="one image in two files"):
        load_predictions(tmp_path / "shards", truth)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"holds no \.json file"):
        load_predictions(tmp_path / "empty", truth)


def _content(**changes):
    mask = {"size": [4, 5], "counts": [5, 10, 5]}
    entry = {"id": 7, "image_id": 1, "segmentation": mask, "bbox": [1, 1, 2, 2], "area": 10} | changes
    return {"images": [{"id": 1, "file_name": "a.jpg", "height": 4.0, "width": 5}], "annotations": [entry]}


def _load(content, tmp_path):
    (tmp_path / "worst.json").write_text(json.dumps(content))
    return load_annotations(tmp_path / "worst.json")


@pytest.mark.parametrize("box", [None, "1,2,3,4", [1, 2, None, 4]])
def test_null_and_string_boxes_are_named(tmp_path, box):
    with pytest.raises(InputError, match=r"an entry 7 of image 1 has the box .* not x, y, width, height"):
        _load(_content(bbox=box), tmp_path)


def test_a_box_a_pixel_outside_is_clipped(tmp_path):
    (picture,) = _load(_content(bbox=[-1, 0, 7.5, 4]), tmp_path).pictures
    assert picture.truth.boxes.tolist() == [[0, 0, 5, 4]]
    assert picture.size == (4, 5)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [("height", None, "the size None x 5"), ("height", 4.5, "the size 4.5 x 5"), ("id", None, "has the id None")],
)
def test_images_without_a_size_or_id_are_named(tmp_path, key, value, message):
    content = _content()
    content["images"][0][key] = value
    with pytest.raises(InputError, match=message):
        _load(content, tmp_path)


def test_two_images_of_one_id_are_refused_in_truth_and_predictions(tmp_path):
    annotated = _load(_content(), tmp_path)
    content = _content(score=0.5)
    content["images"] *= 2
    with pytest.raises(InputError, match=r"two images of the id 1 \(a.jpg, a.jpg\)"):
        _load(content, tmp_path)
    with pytest.raises(InputError, match=r"two images of the id 1 \(a.jpg, a.jpg\)"):
        parse_predictions(content, annotated)


def test_a_score_of_letters_is_named(tmp_path):
    content = _content(score="high")
    with pytest.raises(InputError, match=r"image 1 has a score that is no number .*high"):
        parse_predictions(content["annotations"], _load(_content(), tmp_path))
