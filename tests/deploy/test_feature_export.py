import cv2
import numpy as np
import pytest
import timm
import torch

from hassod_ros.deploy.feature_export import export_features
from hassod_ros.discovery.features import load_features
from hassod_ros.discovery.features.vit import ViTFeatures
from hassod_ros.errors import InputError

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
