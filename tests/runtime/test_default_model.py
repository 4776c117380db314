import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, label
from skimage import data
from skimage.filters import sobel
from skimage.segmentation import watershed

from hassod_ros.errors import InputError
from hassod_ros.runtime import default_model
from hassod_ros.runtime.default_model import FOLDER, resolve_model
from hassod_ros.runtime.segmenter import open_segmenter


def test_paths_are_left_alone():
    assert resolve_model("some/default.onnx") == "some/default.onnx"
    assert resolve_model("default_model.onnx") == "default_model.onnx"


def test_a_missing_file_is_named_with_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(default_model, "FOLDER", tmp_path)
    (tmp_path / "default.onnx").touch()
    with pytest.raises(InputError, match=r"not shipped in int8 \(there is: default\)"):
        resolve_model("default-int8")
    assert resolve_model("default") == str(tmp_path / "default.onnx")


@pytest.mark.parametrize("name", ["default", "default-int8"])
def test_the_shipped_models_find_each_coin_of_a_photograph(name):
    """At the recommended thresholds; the truth is a watershed between dark cloth and bright metal."""
    photo = data.coins()
    markers = np.select([photo < 30, photo > 150], [1, 2])
    coins = binary_fill_holes(watershed(sobel(photo), markers) == 2)
    labels, count = label(coins)
    truths = [labels == i for i in range(1, count + 1) if (labels == i).sum() > 600]
    found = open_segmenter(name)(np.repeat(photo[..., None], 3, axis=2))
    masks = found.dense().astype(bool)
    best = [max((mask & truth).sum() / (mask | truth).sum() for mask in masks) for truth in truths]
    assert len(truths) == 24
    assert min(best) > 0.8
    assert len(found) < 40


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 37e6  # 25 MB of detectors, 12 MB of features


def test_a_path_may_lie_below_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~/model.onnx") == f"{tmp_path}/model.onnx"
