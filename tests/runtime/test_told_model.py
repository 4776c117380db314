import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime.told_model import ToldModel, state_folder


def test_what_was_told_holds_until_the_parameter_says_something_else(tmp_path):
    ToldModel("/robot/perception_node", tmp_path / "new").tell("/models/b.onnx", "/models/a.onnx")
    told = ToldModel("/robot/perception_node", tmp_path / "new")
    assert told.recall("/models/a.onnx") == "/models/b.onnx"
    assert told.recall("/models/c.onnx") == ""
    assert ToldModel("/perception_node", tmp_path / "new").recall("/models/a.onnx") == ""
    told.tell("/models/a.onnx", "/models/a.onnx")
    assert told.recall("/models/a.onnx") == ""
    told.tell("/models/a.onnx", "/models/a.onnx")
    assert not told.path.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"told": "x"}', "\x00"])
def test_a_damaged_file_is_named(tmp_path, content):
    told = ToldModel("/perception_node", tmp_path)
    told.path.write_text(content)
    with pytest.raises(InputError, match=r"perception_node\.json"):
        told.recall("/models/a.onnx")


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot write"):
        ToldModel("/perception_node", tmp_path / "file").tell("b", "a")


def test_the_folder_follows_ros(monkeypatch, tmp_path):
    monkeypatch.setenv("ROS_HOME", str(tmp_path))
    assert state_folder() == tmp_path / "hassod_ros"
