import copy
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from pycocotools import mask as rle

from hassod_ros.coco import from_coco
from hassod_ros.errors import InputError
from hassod_ros.learning import annotations as module
from hassod_ros.learning.annotations import describe, load_annotations, unlabelled


def test_gives_back_what_instances_wrote(toy_set):
    annotations = load_annotations(toy_set.labels, toy_set.images)
    assert len(annotations) == 6
    for index in range(6):
        found = [item for item in toy_set.content["annotations"] if item["image_id"] == index + 1]
        expected = from_coco(found, tuple(annotations.sizes[index]))
        assert annotations.path(index) == toy_set.images / f"{index}.png"
        assert annotations.count(index) == 4
        np.testing.assert_array_equal(annotations.masks(index).astype(bool), expected.dense())
        np.testing.assert_array_equal(annotations.mask_levels(index), [0, 1, 0, 1])
        np.testing.assert_array_equal(annotations.mask_parents(index), expected.parents)
        assert annotations.mask_parents(index).tolist() == [-1, 0, -1, 2]


def test_the_second_reading_maps_what_the_first_one_left(toy_set, monkeypatch):
    first = load_annotations(toy_set.labels, toy_set.images)
    assert all(
        isinstance(value, np.memmap) for name, value in vars(first).items() if name not in ("folder", "contents")
    )
    monkeypatch.setattr(module, "stream", None)  # the file is not read again
    second = load_annotations(toy_set.labels, toy_set.images)
    for name, value in vars(first).items():
        np.testing.assert_array_equal(getattr(second, name), value)
    monkeypatch.undo()
    toy_set.content["annotations"][0]["level"] = 2
    toy_set.labels.write_text(json.dumps(toy_set.content) + " ")
    with pytest.raises(InputError, match="a parent stands higher"):  # the file has changed: it is read anew
        load_annotations(toy_set.labels, toy_set.images)
    dropped = load_annotations(toy_set.labels, toy_set.images, drop_faulty=True)
    assert len(dropped.levels) == 23


def test_processes_that_come_together_read_once(toy_set):
    code = (
        "import sys; from hassod_ros.learning import annotations as module; from hassod_ros.coco import stream;"
        "module.stream = lambda *a: (print('read', a[1]), stream(*a))[1];"
        "print(len(module.load_annotations(*sys.argv[1:]).levels))"
    )
    command = [sys.executable, "-c", code, str(toy_set.labels), str(toy_set.images)]
    started = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = "".join(process.communicate()[0] for process in started).split("\n")
    assert sorted(filter(None, said)) == ["24", "24", "read annotations", "read images"]


def test_who_loses_its_parent_gets_the_next_ancestor(toy_set):
    chain = toy_set.content["annotations"]
    chain[0]["level"], chain[1]["level"], chain[3]["level"] = 0, 1, 2
    chain[3]["parent_id"] = chain[1]["id"]
    chain[1]["bbox"] = [60, 0, 30, 5]  # a fault: it is left out
    chain[2]["parent_id"] = 0
    toy_set.labels.write_text(json.dumps(toy_set.content))
    annotations = load_annotations(toy_set.labels, toy_set.images, drop_faulty=True)
    assert annotations.mask_parents(0).tolist() == [-1, -1, 0]


def test_holds_no_list_and_no_more_than_the_codes(toy_set):
    annotations = load_annotations(toy_set.labels, toy_set.images)
    assert all(not isinstance(value, (list, dict)) for value in vars(annotations).values())
    codes = sum(len(item["segmentation"]["counts"]) for item in toy_set.content["annotations"])
    assert len(annotations.codes) == codes


def test_reads_a_folder_of_shards(toy_set, tmp_path):
    shards = tmp_path / "shards"
    shards.mkdir()
    for part in range(2):
        images = toy_set.content["images"][part::2]
        ids = {image["id"] for image in images}
        chosen = [item for item in toy_set.content["annotations"] if item["image_id"] in ids]
        (shards / f"{part}.json").write_text(json.dumps({"images": images, "annotations": chosen}))
    whole, parts = load_annotations(toy_set.labels, toy_set.images), load_annotations(shards, toy_set.images)
    assert [parts.path(i).name for i in range(6)] == ["0.png", "2.png", "4.png", "1.png", "3.png", "5.png"]
    np.testing.assert_array_equal(parts.masks(1), whole.masks(2))


def test_reads_polygons_and_plain_runs_and_passes_over_crowds_and_empty_images(toy_set):
    content = toy_set.content
    content["annotations"] = [
        {"id": 1, "image_id": 1, "segmentation": [[10, 10, 20, 10, 20, 30, 10, 30]]},
        {"id": 2, "image_id": 1, "segmentation": {"size": [80, 64], "counts": [100, 50, 80 * 64 - 150]}},
        {"id": 3, "image_id": 2, "iscrowd": 1, "segmentation": {"size": [64, 80], "counts": [0, 64 * 80]}},
    ]
    toy_set.labels.write_text(json.dumps(content))
    annotations = load_annotations(toy_set.labels, toy_set.images)
    assert len(annotations) == 1
    assert annotations.masks(0).sum((1, 2)).tolist() == [200, 50]
    assert annotations.mask_levels(0).tolist() == [0, 0]


def test_levels_of_the_authors_files_and_their_histogram(toy_set):
    for annotation in toy_set.content["annotations"]:
        annotation["hier_level"] = annotation.pop("level")
    toy_set.labels.write_text(json.dumps(toy_set.content))
    annotations = load_annotations(toy_set.labels, toy_set.images)
    assert annotations.mask_levels(0).tolist() == [each["hier_level"] for each in toy_set.content["annotations"][:4]]
    text = describe(annotations)
    assert text.startswith("6 pictures with 24 masks: 12 wholes (50%), 12 parts (50%), 0 subparts (0%)")
    assert "warning" not in text


def test_warns_where_all_levels_are_equal(toy_set):
    for annotation in toy_set.content["annotations"]:
        del annotation["level"], annotation["parent_id"]
    toy_set.labels.write_text(json.dumps(toy_set.content))
    text = describe(load_annotations(toy_set.labels, toy_set.images))
    assert "24 wholes (100%)" in text
    assert "warning: all masks are wholes" in text


def test_warns_where_labels_take_nearly_all_queries(toy_set):
    annotations = load_annotations(toy_set.labels, toy_set.images)  # four masks a picture
    assert "warning" not in describe(annotations, queries=6)
    text = describe(annotations, queries=5)
    assert "warning: half of the pictures have 4 masks or more for 5 queries" in text
    assert "most=" in text


def _first(content: dict) -> dict:
    return content["annotations"][0]


def _shift_size(content):
    _first(content)["segmentation"]["size"] = [64, 64]


def _empty_mask(content):
    empty = rle.encode(np.zeros((80, 64), np.uint8, order="F"))
    _first(content)["segmentation"]["counts"] = empty["counts"].decode()


def _cut_code(content):
    _first(content)["segmentation"]["counts"] = _first(content)["segmentation"]["counts"][:-3]


def _cycle(content):
    content["annotations"][0]["parent_id"], content["annotations"][1]["parent_id"] = 2, 1


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_shift_size, "annotation 1 of 0.png has a mask of .64, 64. in an image of .80, 64."),
        (_empty_mask, "annotation 1 of 0.png has an empty mask"),
        (_cut_code, "a mask of 0.png is damaged"),
        (lambda content: _first(content).update(bbox=[60, 0, 30, 5]), "has a box outside its image"),
        (lambda content: _first(content).update(level=3), "has level 3, which is not 0"),
        (lambda content: _first(content).update(level="whole"), "has level whole"),
        (_cycle, "annotation 1 of 0.png is its own ancestor"),
        (lambda content: _first(content).update(parent_id=77), "has parent 77, which is not in the same image"),
        (lambda content: content["annotations"][1].update(level=0), "has level 0, its parent level 0"),
        (lambda content: _first(content).pop("segmentation"), "has no mask"),
        (lambda content: _first(content).update(segmentation={"size": 4}), "has an unreadable mask"),
        (lambda content: _first(content).update(image_id=99), "image 99, which is not among its images"),
        (lambda content: content.pop("images"), "is not COCO JSON"),
        (lambda content: content.update(annotations=[]), "holds no mask"),
    ],
)
def test_names_what_is_wrong(toy_set, spoil, message):
    content = copy.deepcopy(toy_set.content)
    spoil(content)
    toy_set.labels.write_text(json.dumps(content))
    with pytest.raises(InputError, match=message):
        load_annotations(toy_set.labels, toy_set.images)


def test_drops_faulty_annotations_when_told_to(toy_set, caplog):
    toy_set.content["annotations"][0]["level"] = 9
    toy_set.labels.write_text(json.dumps(toy_set.content))
    annotations = load_annotations(toy_set.labels, toy_set.images, drop_faulty=True)
    assert [annotations.count(i) for i in range(6)] == [3, 4, 4, 4, 4, 4]
    assert "annotation 1 of 0.png has level 9" in caplog.text


def test_refuses_a_folder_without_the_images(toy_set, tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        load_annotations(toy_set.labels, tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"lacks 6 of 6 files looked for, such as 0\.png"):
        load_annotations(toy_set.labels, tmp_path)


def test_lists_unlabelled_pictures(toy_set, tmp_path):
    annotations = unlabelled(toy_set.images)
    assert len(annotations) == 6
    assert annotations.path(2) == toy_set.images / "2.png"
    assert annotations.count(2) == 0
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="holds no image"):
        unlabelled(tmp_path / "none")


def test_two_images_of_one_id_are_refused_instead_of_mixing_their_masks(toy_set):
    toy_set.content["images"][1]["id"] = 1
    toy_set.labels.write_text(json.dumps(toy_set.content))
    with pytest.raises(InputError, match=r"two images of the id 1 \(0.png, 1.png\)"):
        load_annotations(toy_set.labels, toy_set.images)


@pytest.mark.parametrize("box", [None, "1,2,3,4", [1, 2, None, 4]])
def test_null_and_string_boxes_of_labels_are_named(toy_set, box):
    toy_set.content["annotations"][0]["bbox"] = box
    toy_set.labels.write_text(json.dumps(toy_set.content))
    with pytest.raises(InputError, match=r"annotation 1 of 0.png has the box .* not x, y, width, height"):
        load_annotations(toy_set.labels, toy_set.images)


def test_labels_whose_heights_are_floats_of_whole_pixels_are_read(toy_set):
    for image in toy_set.content["images"]:
        image["height"] = float(image["height"])
    toy_set.labels.write_text(json.dumps(toy_set.content))
    assert len(load_annotations(toy_set.labels, toy_set.images)) == len(toy_set.content["images"])
    toy_set.content["images"][0]["height"] += 0.5
    toy_set.labels.write_text(json.dumps(toy_set.content))
    with pytest.raises(InputError, match=r"image 1 \(0.png\) has the size .*\.5 x .*give whole pixels"):
        load_annotations(toy_set.labels, toy_set.images)


def test_a_list_of_photos_stands_for_its_folder(toy_set):
    (toy_set.images / "list.txt").write_text("0.png\n")
    annotations = load_annotations(toy_set.labels, toy_set.images / "list.txt")
    assert annotations.path(0) == toy_set.images / "0.png"


def test_a_photo_whose_name_is_not_utf8_is_among_the_unlabelled(toy_set):
    odd = toy_set.images / os.fsdecode(b"caf\xe9.png")
    (toy_set.images / "0.png").rename(odd)
    assert odd.resolve() in map(unlabelled(toy_set.images).path, range(6))
