"""From a local server to a model that opens by name. The authors' own file has never been at hand for these tests."""

import functools
import json
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import torch

from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import open_detector
from hassod_ros.export import fetch_model
from hassod_ros.runtime import published
from hassod_ros.runtime.segmenter import open_segmenter
from tests.tiny_network import narrow_cascade

SIZE = (64, 96)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """The user's cache, and one small size in place of a robot's: the network is the authors', 44 M weights."""
    monkeypatch.setenv("HASSOD_ROS_MODELS", str(tmp_path / "cache"))
    monkeypatch.setattr(published, "SIZES", (SIZE,))
    monkeypatch.setattr(fetch_model, "SIZES", (SIZE,))
    return tmp_path / "cache"


@pytest.fixture
def url(tmp_path):
    folder = tmp_path / "served"
    folder.mkdir()
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield lambda name: (folder / name, f"http://127.0.0.1:{server.server_port}/{name}")
    server.shutdown()
    server.server_close()


def both_networks(weights):
    """A file as HASSOD's training writes it: the student's weights count, the teacher's here would be useless."""
    student = {f"modelStudent.{name}": value for name, value in weights.items()}
    return {"model": student | {f"modelTeacher.{name}": value * 0 for name, value in weights.items()}, "iteration": 1}


def test_the_authors_names_fit_the_architecture_that_is_built(shared, tmp_path):
    keys = shared / "reference" / "detector_keys.json"
    if not keys.is_file():
        pytest.skip(f"{keys} is missing")
    weights = {name: torch.full(shape, 0.5) for name, shape in json.loads(keys.read_text()).items()}
    torch.save(both_networks(weights), tmp_path / "hassod.pth")
    config = fetch_model._architecture(published.PUBLISHED["hassod-r50"])
    model = open_detector(tmp_path / "hassod.pth", config, network="student")
    assert set(model.state_dict()) == set(weights)
    assert all((value == 0.5).all() for value in model.state_dict().values() if value.is_floating_point())


def test_from_an_address_to_a_model_that_opens_by_name(cache, url, capsys, monkeypatch):
    """The whole way, with a network small enough for a test in the place of the authors'."""
    config = narrow_cascade(rpn_pre_nms=(300, 60))
    monkeypatch.setattr(fetch_model, "_architecture", lambda _: config)
    torch.manual_seed(0)
    path, address = url("hassod.pth")
    torch.save(both_networks(CascadeMaskRCNN(config).state_dict()), path)
    assert fetch_model.main(["hassod-r50", "--url", address]) == 0
    assert "ready: ros2 launch hassod_ros perception.launch.py model:=hassod-r50" in capsys.readouterr().out
    segmenter = open_segmenter("hassod-r50", "onnxruntime-cpu")
    assert (segmenter.info.input_size, segmenter.info.level_source) == (SIZE, "head")
    assert segmenter(np.zeros((30, 50, 3), np.uint8)).image_size == (30, 50)
    assert json.loads((cache / "weights" / "sha256.json").read_text()).keys() == {"hassod-r50.pth"}


def test_features_are_kept_as_they_are(cache, url, capsys):
    path, address = url("dino.pth")
    torch.save({"patch_embed.proj.weight": torch.zeros(3)}, path)
    assert fetch_model.main(["dino-vits8", "--url", address]) == 0
    assert f"--weights {cache / 'weights' / 'dino-vits8.pth'}" in capsys.readouterr().out


def test_terms_are_shown_and_asked_for(cache, url, capsys):
    assert fetch_model.main(["cutler-r50"]) == 2
    said = capsys.readouterr()
    assert "CC BY-NC 4.0: not for commercial use" in said.out
    assert "add --accept-terms" in said.err
    assert not cache.exists()


def test_a_pickle_is_not_opened(cache, url, capsys):
    path, address = url("evil.pth")

    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    torch.save({"model": Evil()}, path)
    assert fetch_model.main(["dino-r50", "--url", address]) == 2
    said = capsys.readouterr()
    assert "executed" not in said.out
    assert "dino-r50.pth" in said.err


def test_names_are_listed_and_the_nearest_is_told(capsys):
    assert fetch_model.main([]) == 0
    assert "hassod-r50: HASSOD's detector" in capsys.readouterr().out
    assert fetch_model.main(["hasod"]) == 2
    assert "the nearest is hassod-r50" in capsys.readouterr().err


def test_without_torch_the_other_machine_and_the_file_to_copy_are_told(cache, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "torch", None)
    assert fetch_model.main(["hassod-r50"]) == 2
    said = capsys.readouterr().err
    assert "on another machine" in said
    assert "hassod-r50-96x64.onnx" in said
    assert str(cache) in said
