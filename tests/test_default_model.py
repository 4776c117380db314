import numpy as np
import pytest
from scipy.ndimage import binary_fill_holes, label
from skimage import data
from skimage.filters import sobel
from skimage.segmentation import watershed

from hassod_ros import default_model
from hassod_ros.default_model import FOLDER, best_precision
from hassod_ros.errors import InputError
from hassod_ros.runtime.model_names import resolve_model
from hassod_ros.runtime.segmenter import open_segmenter


def test_a_missing_file_is_named_with_what_there_is(tmp_path, monkeypatch):
    monkeypatch.setattr(default_model, "FOLDER", tmp_path)
    (tmp_path / "default.onnx").touch()
    with pytest.raises(InputError, match=r"not shipped in int8 \(there is: default\)"):
        resolve_model("default-int8")
    assert resolve_model("default") == str(tmp_path / "default.onnx")


@pytest.mark.parametrize(
    ("flags", "precision"), [("fpu avx2 avx512_vnni", "int8"), ("fpu avx_vnni", "int8"), ("fpu avx2", "fp32")]
)
def test_the_default_is_int8_where_the_processor_multiplies_bytes(flags, precision, tmp_path, monkeypatch):
    info = tmp_path / "cpuinfo"
    info.write_text(f"processor : 0\nflags : {flags}\n")
    monkeypatch.setattr(default_model, "CPU_FLAGS", info)
    said = []
    assert resolve_model("default", said.append) == str(default_model.default_path(precision))
    assert said[0].startswith(f"default in {precision}: this processor has ")
    assert resolve_model("default-fp32").endswith("default.onnx")
    monkeypatch.setattr(default_model, "CPU_FLAGS", tmp_path / "none")  # not Linux
    assert best_precision()[0] == "fp32"


@pytest.mark.parametrize("name", ["default-fp32", "default-int8"])
def test_the_shipped_models_find_each_coin_of_a_photograph(name):
    """At the recommended thresholds; the truth is a watershed between dark cloth and bright metal."""
    photo = data.coins()
    markers = np.select([photo < 30, photo > 150], [1, 2])
    coins = binary_fill_holes(watershed(sobel(photo), markers) == 2)
    labels, count = label(coins)
    truths = [labels == i for i in range(1, count + 1) if (labels == i).sum() > 600]
    found = open_segmenter(name)(np.repeat(photo[..., None], 3, axis=2))
    masks = found.dense().astype(bool)
    ious = np.array([[(mask & truth).sum() / (mask | truth).sum() for truth in truths] for mask in masks])
    assert len(truths) == 24
    assert ious.max(axis=0).min() > 0.8
    assert not found.scene[ious.argmax(axis=0)].any()
    assert np.count_nonzero(~found.scene) < 50


def test_the_shipped_model_takes_pictures_of_any_size():
    """A 3000 x 1 one is a row of the network's input, and half a row of what evidence looks at."""
    segment = open_segmenter("default-fp32")
    noise = np.random.default_rng(0).integers(0, 256, (3000, 3000, 3), np.uint8)
    for height, width in ((1, 1), (1, 3000), (3000, 1), (2, 3000), (17, 1)):
        assert segment(noise[:height, :width]).image_size == (height, width)


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 37e6  # 25 MB of detectors, 12 MB of features


def test_a_path_may_lie_below_the_home_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve_model("~/model.onnx") == f"{tmp_path}/model.onnx"
