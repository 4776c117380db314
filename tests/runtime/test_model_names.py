import os
import subprocess
import sys

import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime.model_names import known_names, resolve_model
from hassod_ros.runtime.segmenter import open_segmenter


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HASSOD_ROS_MODELS", str(tmp_path))
    return tmp_path


@pytest.mark.parametrize("path", ["some/default.onnx", "default_model.onnx", "./hassod-r50", "training_free"])
def test_paths_are_left_alone(path):
    assert resolve_model(path) == path


def test_a_file_without_suffix_is_a_path(folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "mine").touch()
    assert resolve_model("mine") == "mine"


def test_fetched_models_are_found_by_name(folder):
    (folder / "hassod-r50-640x480.onnx").touch()
    (folder / "hassod-r50-960x544-int8.onnx").touch()
    plain = str(folder / "hassod-r50-640x480.onnx")
    assert resolve_model("hassod-r50") == resolve_model("hassod-r50-640x480") == plain
    assert resolve_model("hassod-r50-960x544-int8") == str(folder / "hassod-r50-960x544-int8.onnx")


def test_a_name_that_was_never_fetched_says_the_command_and_the_file_to_copy(folder):
    with pytest.raises(InputError, match="ros2 run hassod_ros fetch_model hassod-r50,") as error:
        open_segmenter("hassod-r50")
    assert str(folder / "hassod-r50-640x480.onnx") in str(error.value)


def test_an_unknown_name_lists_the_known_ones_and_the_nearest():
    with pytest.raises(InputError, match="there is no model 'hasod-r50'; the nearest name is hassod-r50,") as error:
        resolve_model("hasod-r50")
    assert all(name in str(error.value) for name in known_names())
    with pytest.raises(InputError, match="nearest name is default"):
        resolve_model("defalt")


def test_paths_need_no_home_folder(monkeypatch):
    for name in ("HASSOD_ROS_MODELS", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: 54321)  # a user without a name
    assert resolve_model("/models/mine.onnx") == "/models/mine.onnx"
    with pytest.raises(InputError, match=r"there is no home folder for ~/\.cache; set HOME, or give another path"):
        resolve_model("hassod-r50")


def test_names_need_neither_torch_nor_the_network():
    code = (
        "import sys, hassod_ros.runtime.model_names; "
        "print({'torch', 'gdown', 'urllib.request', 'rclpy'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
