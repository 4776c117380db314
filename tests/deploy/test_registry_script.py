import errno
import json
import os
import re
from pathlib import Path

import onnx
import pytest

from export.registry import main
from hassod_ros.default_model import default_model
from hassod_ros.deploy.registry import REFUSED, Registry
from hassod_ros.runtime.model_info import read_metadata


def write_model(path: Path, number: int) -> None:
    """A file with all that the shipped model says of itself, and no network."""
    metadata = read_metadata(default_model("fp32"))
    model = onnx.ModelProto(
        model_version=number, metadata_props=[onnx.StringStringEntryProto(key=k, value=v) for k, v in metadata.items()]
    )
    path.write_bytes(model.SerializeToString())


def test_models_are_added_named_listed_shown_and_pruned(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "models"
    for number in range(1, 4):
        write_model(tmp_path / "model.onnx", number)
        assert main(["add", str(root), str(tmp_path / "model.onnx"), *(["stable"] if number == 1 else [])]) == 0
    Registry(root).register(tmp_path / "model.onnx", status=REFUSED, reason="it is worse")
    capsys.readouterr()
    assert main(["list", str(root)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [f"perception/{number}" for number in range(1, 5)]
    assert lines[0].endswith("stable")
    assert lines[3].endswith("it is worse")

    assert main(["alias", str(root), "stable", "4"]) == 2
    assert "was refused (it is worse)" in capsys.readouterr().err
    assert main(["alias", str(root), "stable", "2"]) == 0
    assert main(["show", str(root), "stable"]) == 0
    printed = capsys.readouterr().out
    assert json.loads(printed[: printed.index("}\n{") + 2])["status"] == "imported"
    assert '"event": "alias"' in printed
    assert main(["prune", str(root), "--keep", "1"]) == 0
    assert capsys.readouterr().out.splitlines() == ["removed perception/3"]
    assert main(["alias", str(root), "stable"]) == 0
    assert Registry(root).aliases() == {}


def test_a_disk_that_fills_at_the_alias_keeps_the_version_and_says_so(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    root = tmp_path / "models"
    write_model(tmp_path / "model.onnx", 1)
    Registry(root, create=True)
    words = ["add", str(root), str(tmp_path / "model.onnx"), "stable"]
    monkeypatch.setattr(os, "write", full)
    assert main(words) == 2
    told = "but .*models has no room for a line in its history .*; free some space, the next command adds it\n"
    assert re.fullmatch(f"registry: perception/1 is registered, {told}", capsys.readouterr().err)
    monkeypatch.undo()
    registry = Registry(root)
    registry.tell("note")
    monkeypatch.setattr(os, "write", full)
    assert main(words) == 2
    found = capsys.readouterr()
    assert found.out == "perception/1\n"
    assert re.fullmatch(f"registry: stable names perception/1, {told}", found.err)
    assert registry.aliases() == {"stable": 1}


def test_a_list_is_of_one_name_or_of_all(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    root = tmp_path / "models"
    write_model(tmp_path / "model.onnx", 1)
    for name in ("perception", "night"):
        assert main(["add", str(root), str(tmp_path / "model.onnx"), "--name", name]) == 0
    capsys.readouterr()
    for words, names in (([], ["night/1", "perception/1"]), (["--name", "night"], ["night/1"])):
        assert main(["list", str(root), *words]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names
    assert main(["list", str(root), "--name", "nihgt"]) == 2
    assert capsys.readouterr().err.endswith("has no model nihgt; there is night, perception\n")


def test_a_forgotten_folder_is_what_is_asked_for(capsys: pytest.CaptureFixture) -> None:
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "registry: give: registry list REGISTRY\n"


@pytest.mark.parametrize("words", [["show"], ["alias"], ["list", "3"], ["show", "stable"]])
def test_wrong_words_are_one_sentence(tmp_path: Path, words: list[str], capsys: pytest.CaptureFixture) -> None:
    Registry(tmp_path / "models", create=True)
    assert main([words[0], str(tmp_path / "models"), *words[1:]]) == 2
    assert capsys.readouterr().err.startswith("registry: ")


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["none.onnx"], "none.onnx does not exist"),
        (["hello.onnx"], "hello.onnx is cut short or is not an ONNX file"),
        (["default", "a b"], "'a b' cannot be an alias"),
    ],
)
def test_what_is_no_model_or_no_alias_makes_no_registry(
    tmp_path: Path, words: list[str], says: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hello.onnx").write_text("hello")
    assert main(["add", "models", *words]) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "models").exists()
