"""Photographs with depth: tables, a kitchen from many places, and sequences."""

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks import objects_3d
from hassod_ros.geometry.objects import locate

pytest.importorskip("pycocotools", reason="pycocotools is not installed: pip install 'hassod_ros[train]'")
from hassod_ros.coco import from_coco


def placed(view):
    annotations = [a | {"level": int(a.get("part", 0)), "parent_id": a.get("whole_id", 0)} for a in view.annotations]
    instances = from_coco(annotations, view.depth.shape)
    return annotations, instances, locate(instances, view.depth, view.rays)


def test_ycb_things_have_their_size_and_every_table_is_found(shared):
    misses, by_camera = [], []
    for view in objects_3d._views(shared / "data" / "rgbd" / "tabletop"):
        if not view.annotations:
            continue
        annotations, instances, scene = placed(view)
        assert objects_3d._support_found(view, instances, scene), view.name
        for k, i in enumerate(scene.objects.index.tolist()):
            annotation = annotations[i]
            if annotation["level"] == 0:
                assert scene.objects.supports[k] >= 0, annotation["name"]
                assert scene.objects.levels[k] == 0, annotation["name"]
            if annotation["level"] == 0 and view.name in objects_3d.YCB_IMAGES and annotation["name"] in objects_3d.YCB:
                true = objects_3d.YCB[annotation["name"]][1]
                misses.append(objects_3d._miss(scene.objects.sizes[k], true))
                by_camera.append(objects_3d._miss(objects_3d._along_camera(view, instances, i), true))
    assert len(misses) == 13
    assert np.median(misses) <= 6
    assert np.percentile(misses, 90) <= 25
    assert np.median(by_camera) >= 3 * np.median(misses)


def test_planes_of_a_kitchen_agree_from_everywhere(shared, capsys):
    objects_3d.kitchen(shared)
    printed = capsys.readouterr().out
    median = float(printed.split("median ")[1].split(" ")[0])
    assert median <= 2


def test_things_of_other_sets_stand_on_something(shared):
    folder = Path(shared) / "data" / "rgbd_seq"
    data = json.loads((folder / "masks_dev.json").read_text(encoding="utf-8"))
    total = standing = 0
    for image in data["images"]:
        found = [a for a in data["annotations"] if a["image_id"] == image["id"]]
        if not found or image.get("sequence"):  # toys in a heap in a bin stand on each other
            continue
        view = objects_3d._view(folder, image, image["intrinsics"], found)
        _, _, scene = placed(view)
        total += len(scene.objects)
        standing += int((scene.objects.supports >= 0).sum())
        assert np.isfinite(scene.objects.sizes).all()
        assert (scene.objects.sizes < 1.5).all(), image["file_name"]
    assert total >= 35
    assert standing >= 0.8 * total
