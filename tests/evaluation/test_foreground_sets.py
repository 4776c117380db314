import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from hassod_ros.errors import InputError
from hassod_ros.evaluation.foreground_sets import load_boxes, load_classes, load_masks


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def picture(height=6, width=8):
    return np.zeros((height, width, 3), np.uint8)


def coded(mask):
    code = rle.encode(np.asfortranarray(mask, np.uint8))
    return {"size": code["size"], "counts": code["counts"].decode()}


def coco(path, *, size=(6, 8), categories=(), names=("a.jpg", "b.jpg"), **fields):
    """Image 1 has two masks, image 2 none."""
    first, second = np.zeros(size, bool), np.zeros(size, bool)
    first[:2, :3], second[4:, 5:] = True, True
    annotations = [
        {"id": i, "image_id": 1, "category_id": i, "segmentation": coded(mask), "bbox": box, "iscrowd": 0} | fields
        for i, mask, box in ((1, first, [0, 0, 3, 2]), (2, second, [5, 4, 3, 2]))
    ]
    images = [{"id": i + 1, "file_name": name, "height": 6, "width": 8} for i, name in enumerate(names)]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": list(categories)}))
    return path


@pytest.mark.parametrize(
    ("pictures", "masks"),
    [("images", "ground_truth_mask"), ("DUTS-TE-Image", "DUTS-TE-Mask"), ("DUT-OMRON-image", "pixelwiseGT-new-PNG")],
)
def test_published_folders_of_masks(tmp_path, pictures, masks):
    mask = np.zeros((6, 8), np.uint8)
    mask[2:4, 3:5] = 255
    for name in ("2", "1"):
        save(tmp_path / pictures / f"{name}.jpg", picture())
        save(tmp_path / masks / f"{name}.png", mask)
    found = load_masks(tmp_path)
    assert [each.name for each in found.examples] == ["1", "2"]
    np.testing.assert_array_equal(found.examples[0].truth(), mask > 0)
    save(tmp_path / masks / "3.png", mask)
    with pytest.raises(InputError, match=r"1 of 3 files .* have no picture"):
        load_masks(tmp_path)


def test_a_coco_file_gives_unions_and_boxes_and_leaves_out_what_is_not_annotated(tmp_path):
    file = coco(tmp_path / "truth.json")
    for name in ("a.jpg", "b.jpg"):
        save(tmp_path / name, picture())
    masks, boxes = load_masks(file, tmp_path), load_boxes(file, tmp_path)
    assert (len(masks.examples), masks.left_out) == (1, 1)
    assert np.argwhere(masks.examples[0].truth()).shape == (12, 2)
    assert boxes.examples[0].truth().tolist() == [[0, 0, 3, 2], [5, 4, 8, 6]]
    with pytest.raises(InputError, match="with --images"):
        load_masks(file)
    (tmp_path / "a.jpg").unlink()
    with pytest.raises(InputError, match=r"lacks 1 of 1 files, such as a\.jpg"):
        load_masks(file, tmp_path)


def test_frames_of_videos_are_told_apart_by_their_folders(tmp_path):
    file = coco(tmp_path / "davis.json", names=("swan/00001.jpg", "cows/00001.jpg"))
    content = json.loads(file.read_text())
    content["annotations"].append(content["annotations"][0] | {"id": 3, "image_id": 2})
    file.write_text(json.dumps(content))
    for name in ("swan", "cows"):
        save(tmp_path / name / "00001.jpg", picture())
    assert [each.name for each in load_masks(file, tmp_path).examples] == ["cows/00001", "swan/00001"]


def test_masks_of_another_size_are_named(tmp_path):
    file = coco(tmp_path / "truth.json", size=(7, 8))
    save(tmp_path / "a.jpg", picture())
    with pytest.raises(InputError, match=r"a\.jpg: annotation 1 has a mask of \(7, 8\)"):
        load_masks(file, tmp_path).examples[0].truth()


def test_groups_of_objects_are_no_boxes(tmp_path):
    file = coco(tmp_path / "truth.json", one_object=False)
    with pytest.raises(InputError, match="annotates no image"):
        load_boxes(file, tmp_path)


def test_voc(tmp_path):
    for folder in ("Main", "Segmentation"):
        (tmp_path / "ImageSets" / folder).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Main" / "trainval.txt").write_text("2007_1\n")
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text("2007_1\n")
    save(tmp_path / "JPEGImages" / "2007_1.jpg", picture())
    labels = np.zeros((6, 8), np.uint8)
    labels[0, 0], labels[1, 1] = 20, 255
    save(tmp_path / "SegmentationClass" / "2007_1.png", labels)
    (tmp_path / "Annotations").mkdir()
    box = "<bndbox><xmin>2</xmin><ymin>1</ymin><xmax>5</xmax><ymax>6</ymax></bndbox>"
    (tmp_path / "Annotations" / "2007_1.xml").write_text(f"<annotation><object>{box}</object></annotation>")
    assert load_boxes(tmp_path).examples[0].truth().tolist() == [[1, 0, 5, 6]]
    classes = load_classes(tmp_path)
    assert classes.classes == 21
    np.testing.assert_array_equal(classes.examples[0].truth(), labels)
    with pytest.raises(InputError, match=r"train\.txt cannot be read"):
        load_classes(tmp_path, split="train")
    (tmp_path / "JPEGImages" / "2007_1.jpg").unlink()
    with pytest.raises(InputError, match="lacks 1 of 2 files"):
        load_boxes(tmp_path)


def test_coco_20k(tmp_path):
    coco(tmp_path / "annotations" / "instances_train2014.json", names=("a.jpg", "c.jpg"))
    save(tmp_path / "train2014" / "a.jpg", picture())
    (tmp_path / "coco_20k_filenames.txt").write_text("train2014/a.jpg\n")
    assert [each.name for each in load_boxes(tmp_path).examples] == ["a"]
    (tmp_path / "coco_20k_filenames.txt").write_text("train2014/a.jpg\ntrain2014/z.jpg\n")
    with pytest.raises(InputError, match="knows 1 of 2 images"):
        load_boxes(tmp_path)


CATEGORIES = [{"id": 1, "supercategory": "vehicle"}, {"id": 2, "supercategory": "sky"}]


def test_groups_of_coco_are_classes(tmp_path):
    file = coco(tmp_path / "panoptic.json", categories=CATEGORIES)
    save(tmp_path / "a.jpg", picture())
    found = load_classes(file, tmp_path)
    truth = found.examples[0].truth()
    assert found.classes == 2
    assert (truth[0, 0], truth[5, 7], truth[3, 3]) == (1, 0, 255)  # by the names of groups: sky, vehicle
    for name, part in (("instances", CATEGORIES[:1]), ("stuff", CATEGORIES[1:])):
        coco(tmp_path / "annotations" / f"{name}_val2017.json", categories=part)
    save(tmp_path / "val2017" / "a.jpg", picture())
    save(tmp_path / "stuffthingmaps" / "val2017" / "a.png", np.array([[0, 1, 255, 7]], np.uint8))
    stuff = load_classes(tmp_path)
    assert stuff.classes == 2
    assert stuff.examples[0].truth().tolist() == [[1, 0, 255, 255]]


def test_plain_folders_of_labels_and_what_is_none(tmp_path):
    save(tmp_path / "images" / "a.jpg", picture())
    save(tmp_path / "images" / "b.jpg", picture())
    save(tmp_path / "labels" / "a.png", np.array([[0, 4, 255]], np.uint8))
    found = load_classes(tmp_path)
    assert (found.classes, found.left_out) == (5, 1)
    save(tmp_path / "labels" / "a.png", picture())
    with pytest.raises(InputError, match=r"a\.png is no label map \(RGB\)"):
        load_classes(tmp_path)
    for load in (load_boxes, load_masks):
        with pytest.raises(InputError, match="known layouts"):
            load(tmp_path / "labels")
    with pytest.raises(InputError, match="known layouts of classes"):
        load_classes(tmp_path / "images")
