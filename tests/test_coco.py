import json
import re

import numpy as np
import pytest

from hassod_ros.coco import (
    UNKNOWN,
    box_of,
    check_images,
    composition,
    from_coco,
    label_files,
    stream,
    to_coco,
    to_rle,
)
from hassod_ros.errors import InputError
from hassod_ros.instances import Instances

rle = pytest.importorskip("pycocotools.mask")


def test_from_coco_reads_polygons_and_uncompressed_rle():
    annotations = [
        {"id": 5, "segmentation": [[1, 1, 4, 1, 4, 3, 1, 3]]},
        {"id": 9, "segmentation": {"size": [4, 6], "counts": [0, 2, 22]}, "level": 1, "parent_id": 5, "score": 0.25},
        {"id": 10, "segmentation": {"size": [4, 6], "counts": [0, 24]}, "scene": True},
    ]
    found = from_coco(annotations, (4, 6))
    assert found.boxes.tolist() == [[1, 1, 4, 3], [0, 0, 1, 2], [0, 0, 6, 4]]
    assert found.parents.tolist() == [-1, 0, -1]
    assert found.levels.tolist() == [0, 1, 0]
    assert found.scores.tolist() == [1, 0.25, 1]
    assert found.scene.tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("annotation", "message"),
    [
        ({"id": 3, "segmentation": {"size": [4, 6], "counts": [24]}}, "annotation 3 has an empty mask"),
        ({"id": 3, "segmentation": {"size": [6, 4], "counts": [0, 24]}}, "has a mask of .6, 4. in an image of"),
        (
            {"id": 3, "segmentation": {"size": [4, 6], "counts": [0, 24]}, "parent_id": 8},
            "has parent 8, which is not",
        ),
        ({"id": 3, "segmentation": {"size": [4, 6], "counts": [0, 24]}, "level": 3}, "has level 3, which is not 0"),
        ({"id": 3, "segmentation": {"size": [4, 6], "counts": [0, 24]}, "level": -2}, "has level -2"),
    ],
)
def test_from_coco_rejects(annotation, message):
    with pytest.raises(ValueError, match=message):
        from_coco([annotation], (4, 6))


def test_pycocotools_reads_what_to_coco_writes():
    mask = np.zeros((1, 9, 7), bool)
    mask[0, 2:5, 3:6] = True
    mask[0, 3, 4] = False
    (annotation,) = to_coco(Instances.from_dense(mask, image_size=(9, 7)), 42)
    np.testing.assert_array_equal(rle.decode(annotation["segmentation"]), mask[0])
    assert annotation["area"] == rle.area(annotation["segmentation"]) == 8
    assert annotation["bbox"] == rle.toBbox(annotation["segmentation"]).tolist() == [3, 2, 3, 3]
    assert (annotation["image_id"], annotation["category_id"], annotation["iscrowd"]) == (42, 1, 0)


def test_every_form_of_a_mask_gives_the_same_run_lengths():
    mask = np.zeros((5, 8), np.uint8, order="F")
    mask[1:4, 2:7] = 1
    expected = rle.encode(mask)
    plain = {"size": [5, 8], "counts": [11, 3, 2, 3, 2, 3, 2, 3, 2, 3, 6]}
    text = {"size": [5, 8], "counts": expected["counts"].decode()}
    polygon = [[2, 1, 7, 1, 7, 4, 2, 4]]
    for form in (plain, text, dict(expected), polygon):
        assert to_rle(form, (5, 8)) == {"size": [5, 8], "counts": expected["counts"]}


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ([], "has no mask"),
        (None, "has no mask"),
        ([[1, 2, 3]], "a polygon of 3 numbers"),
        ({"size": [5, 8]}, "unreadable mask .KeyError"),
        ({"size": [4, 4], "counts": 7}, "has a mask of .4, 4. in an image of .5, 8."),
        ("nonsense", "unreadable mask"),
    ],
)
def test_what_is_no_mask_is_named(form, message):
    with pytest.raises(ValueError, match=message):
        to_rle(form, (5, 8))


def test_levels_under_either_name_and_of_sets_of_parts():
    authors = [{"id": 5, "hier_level": 0}, {"id": 6, "hier_level": 2}, {"id": 7}]
    assert composition(authors).levels.tolist() == [0, 2, UNKNOWN]
    parts = [{"id": 1, "part": True, "whole_id": 2}, {"id": 2, "part": False}]
    assert (composition(parts).levels.tolist(), composition(parts).parents.tolist()) == ([1, 0], [1, -1])


def test_faults_of_a_family_are_all_named_and_mended():
    entries = [
        {"id": 1, "level": 0, "parent_id": 2},
        {"id": 2, "level": 0, "parent_id": 1},
        {"id": 3, "level": 5},
        {"id": 4, "level": 1, "parent_id": 9},
        {"id": 5, "level": 1, "parent_id": 6},
        {"id": 6, "level": 1, "parent_id": 0},
        {"id": 7, "level": 2, "parent_id": 8, "scene": True},
        {"id": 8, "level": 2},
    ]
    found = composition(entries, ordered=True)
    assert {i: fault.split(",")[0].split(" (")[0] for i, fault in found.faults.items()} == {
        0: "is its own ancestor",
        1: "is its own ancestor",
        2: "has level 5",
        3: "has parent 9",
        4: "has level 1",
    }
    assert found.parents.tolist() == [-1, -1, -1, -1, -1, -1, 7, -1]
    assert found.levels.tolist() == [0, 0, UNKNOWN, 1, 1, 1, 2, 2]
    assert found.scene.tolist() == [False] * 6 + [True, False]
    assert 4 not in composition(entries).faults


# What follows was reported by users of COCO files from many tools.


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        ([[]], "a polygon of 0 points"),
        ([[1, 1, 3, 1, 3]], "a polygon of 5 numbers, which are no pairs"),
        ([[1, 1, 3, 3]], "a polygon of 2 points"),  # pycocotools takes it for a box
        ([["a", 1, 3, 1, 3, 3]], "no list of numbers"),
        ([[1, 1, 3, 1, float("nan"), 3]], "no list of numbers"),
        ({"size": [4, 5], "counts": [3, 4]}, "add up to 7, its image has 20 pixels"),
        ({"size": [4, 5], "counts": [3, 4, 30]}, "add up to 37"),
        ({"size": [4, 5], "counts": [30, -10]}, "not whole numbers from 0 on"),
        ({"size": [4, 5], "counts": [3.5, 16.5]}, "not whole numbers from 0 on"),
    ],
)
def test_masks_that_hang_or_mislead_pycocotools_are_named(mask, message):
    with pytest.raises(ValueError, match=message):
        to_rle(mask, (4, 5))


@pytest.mark.parametrize("box", [None, "1,2,3,4", [1, 2, 3], [1, 2, None, 4], [1, 2, float("nan"), 4]])
def test_null_and_string_boxes_are_named(box):
    with pytest.raises(ValueError, match=r"has the box .* not x, y, width, height"):
        box_of({"bbox": box}, (10, 10))


def test_a_box_a_pixel_outside_is_clipped_and_one_far_outside_is_not():
    assert box_of({"bbox": [-1, 0, 12.5, 10]}, (10, 10)) == (0, 0, 10, 10)
    assert box_of({"bbox": [-5, 0, 9, 10]}, (10, 10)) == (-5, 0, 9, 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ([{}, {}], "two images of the id 1 (a.jpg, a.jpg)"),
        ([{"height": 4.5}], "the size 4.5 x 5"),
        ([{"height": None}], "the size None x 5"),
        ([{"height": "4"}], "the size '4' x 5"),
        ([{"file_name": None}], "image 1 has no file name"),
        ([{"id": None}], "the image a.jpg has the id None"),
    ],
)
def test_images_of_one_id_or_without_a_size_are_named(changes, message):
    images = [{"id": 1, "file_name": "a.jpg", "height": 4, "width": 5} | change for change in changes]
    with pytest.raises(InputError, match=re.escape(message)):
        check_images(images, "labels.json")


def test_a_height_of_4_0_is_4_and_a_missing_one_is_named():
    (image,) = check_images([{"id": 1, "file_name": "a", "height": 4.0, "width": 5}], "x")
    assert (image["height"], type(image["height"])) == (4, int)
    with pytest.raises(InputError, match="the size None"):
        check_images([{"id": 1, "file_name": "a", "width": 5}], "x")


def test_the_list_of_failures_beside_the_labels_is_not_read_as_labels(tmp_path):
    for name in ("labels.json", "labels.failures.json", "failures.json"):
        (tmp_path / name).touch()
    assert label_files(tmp_path) == [tmp_path / "labels.json"]
    (tmp_path / "labels.json").unlink()
    with pytest.raises(InputError, match=r"holds no \.json file of labels"):
        label_files(tmp_path)


def test_file_names_that_are_not_utf8_are_streamed_like_others(tmp_path):
    """As `predict` and `pseudo_label` write them: yajl cannot decode the escape of a lone surrogate."""
    images = [{"id": id, "file_name": name} for id, name in enumerate(["a.jpg", "latin\udce9.jpg", "b.jpg"])]
    (tmp_path / "labels.json").write_text(json.dumps({"images": images}))
    (tmp_path / "list.json").write_text(json.dumps(images))
    assert list(stream(tmp_path / "labels.json", "images")) == images
    assert list(stream(tmp_path / "list.json")) == images


def test_bytes_that_are_not_utf8_are_named(tmp_path):
    (tmp_path / "labels.json").write_bytes(b'[{"file_name": "latin\xe9.jpg"}]')
    with pytest.raises(InputError, match=r"labels\.json is not valid JSON"):
        list(stream(tmp_path / "labels.json"))
