import numpy as np
import pytest

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
def test_the_shipped_models_find_what_stands_out(name):
    frame = np.full((240, 320, 3), 90, np.uint8)
    frame[60:180, 100:220] = (200, 40, 30)
    found = open_segmenter(name)(frame)
    truth = np.zeros((240, 320), bool)
    truth[60:180, 100:220] = True
    overlap = [(mask & truth).sum() / (mask | truth).sum() for mask in found.dense().astype(bool)]
    assert max(overlap, default=0) > 0.7


def test_the_package_stays_small():
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) <= 37e6  # 25 MB of detectors, 12 MB of features
