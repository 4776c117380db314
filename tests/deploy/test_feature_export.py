import subprocess
import sys
from dataclasses import replace

import cv2
import numpy as np
import pytest
import timm
import torch

from hassod_ros.deploy.feature_export import export_features
from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.features.vit import ViTFeatures
from hassod_ros.discovery.hassod import resize
from hassod_ros.discovery.heap import Heap, HeapConfig
from hassod_ros.discovery.method import change
from hassod_ros.discovery.states import describe
from hassod_ros.errors import InputError
from hassod_ros.runtime.segmenter import open_segmenter
from tests.discovery.toy_squares import scene

SIZE = (48, 80)


@pytest.fixture(scope="module")
def features():
    torch.manual_seed(0)
    model = timm.create_model(
        "vit_tiny_patch16_224", num_classes=0, dynamic_img_size=True, img_size=64, depth=2, embed_dim=48, num_heads=3
    )
    return ViTFeatures(model, name="tiny")


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8, 3)).astype(np.uint8)
    cv2.imwrite(str(folder / "one.png"), cv2.resize(noise, (160, 96), interpolation=cv2.INTER_CUBIC))
    return folder


@pytest.fixture(scope="module")
def exported(features, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("exported") / "vit.onnx"
    export_features(features, path, size=SIZE, images=photos, batch=2, report=lambda line: None)
    return path


def test_exported_keys_are_the_models(features, exported):
    images = np.random.default_rng(1).integers(0, 256, (3, *SIZE, 3), np.uint8)
    loaded = load_features(str(exported))
    assert (loaded.name, loaded.patch_size, loaded.dim) == ("tiny", 16, 48)
    assert loaded.weights_sha256 == features.weights_sha256
    np.testing.assert_allclose(loaded(images), features(images), atol=1e-4)


def test_another_size_is_refused(exported):
    with pytest.raises(InputError, match="exported for 80x48 images"):
        load_features(str(exported))(np.zeros((1, 64, 64, 3), np.uint8))


def test_a_size_that_does_not_divide(features, photos, tmp_path):
    with pytest.raises(InputError, match="patches of 16"):
        export_features(features, tmp_path / "vit.onnx", size=(50, 80), images=photos, report=lambda line: None)
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    with pytest.raises(InputError, match="cannot load"):
        load_features(str(tmp_path / "none.onnx"))


def squares(seed: int) -> np.ndarray:
    image, _ = scene(seed)
    return cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_NEAREST)


@pytest.fixture(scope="module")
def head(features):
    method = Heap(change(HeapConfig(), {"size": 64, "classes": 3, "head.iterations": 4, "head.tokens": 4, "crf": None}))
    samples = [method.sample([squares(seed)], features)[0] for seed in range(6)]
    return method, method.learn(iter(samples), describe(features))


@pytest.fixture(scope="module")
def with_head(features, head, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("heap") / "heap.onnx"
    lines: list[str] = []
    export_features(features, path, size=SIZE, images=photos, heap=head, report=lines.append)
    assert [line for line in lines if "100.00% of the patches in the same region" in line]
    return path


def test_an_exported_head_segments_as_torchs_does_and_its_file_holds_the_keys_too(features, head, with_head):
    method, state = head
    segment = open_segmenter(with_head)
    segment.warm_up()
    noise = np.random.default_rng(4).integers(0, 256, (8, 4, 6, 3)).astype(np.uint8)
    images = [cv2.resize(each, (160, 96), interpolation=cv2.INTER_NEAREST) for each in noise]
    assert (segment.info, segment.batch) == (None, 1)
    count = 0
    for image, found in zip(images, segment.segment(images), strict=True):
        (regions,) = method.partition([resize(image, SIZE)], features, state)
        wanted = method.masks(image, regions)
        np.testing.assert_array_equal(found.dense(), wanted.dense())
        np.testing.assert_array_equal(found.parents, wanted.parents)
        np.testing.assert_allclose(found.scores, wanted.scores, atol=1e-5)
        count += len(found)
    assert count > 3
    bgr = segment(np.ascontiguousarray(images[0][..., ::-1]), color_order="BGR")
    np.testing.assert_array_equal(bgr.dense(), segment(images[0]).dense())
    keys = load_features(str(with_head))
    np.testing.assert_allclose(keys(squares(3)[None]), features(squares(3)[None]), atol=1e-4)


def test_a_robot_needs_neither_torch_nor_compiled_code_for_it(with_head):
    code = f"""
import sys
for name in ("torch", "timm", "numba", "scipy", "sklearn", "onnx"):
    sys.modules[name] = None
import numpy as np
from hassod_ros.runtime.segmenter import open_segmenter
print(open_segmenter({str(with_head)!r})(np.zeros((40, 60, 3), np.uint8)).image_size)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "(40, 60)\n", done.stderr


def test_a_head_of_other_features_and_a_file_without_one(features, head, photos, exported, tmp_path):
    method, state = head
    others = replace(state, features={**state.features, "name": "others"})
    with pytest.raises(InputError, match="was made with others"):
        export_features(features, tmp_path / "a.onnx", size=SIZE, images=photos, heap=(method, others))
    assert not list(tmp_path.iterdir())
    with pytest.raises(InputError, match="holds features alone; export it with features_to_onnx --heap"):
        open_segmenter(exported)
