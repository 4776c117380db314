"""Pictures that a detector can learn in seconds: bright rectangles, each with a part."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hassod_ros.coco import to_coco
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.hierarchy import coverage_forest
from hassod_ros.instances import Instances
from tests.tiny_network import tiny_cascade


def write_toy_set(folder: Path, count: int = 6, size: tuple[int, int] = (64, 80), seed: int = 0) -> SimpleNamespace:
    random = np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in range(count):
        height, width = size if i % 3 else size[::-1]
        pixels = np.full((height, width, 3), 40, np.uint8)
        masks = []
        for left in (4, width // 2 + 2):
            w, h = random.integers(width // 4, width // 2 - 5), random.integers(height // 3, height - 10)
            top = random.integers(2, height - h - 2)
            masks.append(_box(height, width, top, left, h, w))
            pixels[masks[-1]] = random.integers(120, 255, 3)
            masks.append(_box(height, width, top + 2, left + 2, h // 2, w // 2))
            pixels[masks[-1]] = (200, 30, 30)
        instances = Instances.from_dense(np.stack(masks), image_size=(height, width))
        parents, levels = coverage_forest(instances.regions, instances.masks)
        instances = Instances.from_dense(np.stack(masks), image_size=(height, width), parents=parents, levels=levels)
        images.append({"id": i + 1, "file_name": f"{i}.png", "height": height, "width": width})
        annotations += to_coco(instances, i + 1, first_id=len(annotations) + 1)
        Image.fromarray(pixels).save(folder / "images" / f"{i}.png")
    content = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "object"}]}
    (folder / "labels.json").write_text(json.dumps(content))
    return SimpleNamespace(images=folder / "images", labels=folder / "labels.json", content=content)


def _box(height: int, width: int, top: int, left: int, h: int, w: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + h, left : left + w] = True
    return mask


@pytest.fixture
def toy_set(tmp_path: Path) -> SimpleNamespace:
    """Six pictures with two wholes and two parts each: `images` (folder), `labels` (file), `content` (its JSON)."""
    return write_toy_set(tmp_path / "toy")


@pytest.fixture
def tiny_detector() -> DetectorConfig:
    """A detector of few channels for pictures of 64 pixels."""
    return tiny_cascade()
