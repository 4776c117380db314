"""The shipped default can be trained on: its weights, read back from the ONNX file."""

from pathlib import Path

import numpy as np
import pytest
import torch

from hassod_ros.default_model import default_model
from hassod_ros.deploy.parity import ParityLimits, compare
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.onnx_weights import recover_norms, sampling_ratio_of
from hassod_ros.detection.cascade.static_graph import with_limits
from hassod_ros.detection.checkpoints import load_weights
from hassod_ros.errors import InputError
from hassod_ros.images import read_image
from hassod_ros.learning.config import read_recipe
from hassod_ros.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from hassod_ros.runtime.backends.torch_backend import TorchBackend
from hassod_ros.runtime.preprocess import letterbox
from tests.tiny_network import narrow_cascade

RECIPE = Path(__file__).parents[2] / "config" / "recipes" / "default_model.yaml"


@pytest.fixture(scope="module")
def exported() -> OnnxRuntimeBackend:
    return OnnxRuntimeBackend.load(default_model(), provider="cpu")


@pytest.fixture(scope="module")
def batches(exported) -> list[np.ndarray]:
    skimage = pytest.importorskip("skimage")
    folder = Path(skimage.__file__).parent / "data"
    found = []
    for name in ("coffee.png", "astronaut.png", "chelsea.png"):
        found.append(np.empty((1, *exported.info.input_size, 3), np.uint8))
        letterbox(read_image(folder / name), found[-1][0], fill=(124, 116, 104))
    return found


@pytest.fixture
def detector(exported) -> CascadeMaskRCNN:
    recipe, info = read_recipe(["--config", str(RECIPE)], prog="detector", description=""), exported.info
    # As in config/chains/default_model.yaml; the rest stands in the file.
    config = recipe.model.changed(sampling_ratio=1, nms=info.nms_threshold)
    torch.manual_seed(0)
    model = CascadeMaskRCNN(config)
    load_weights(model, default_model())
    return with_limits(model, proposals=info.proposals, detections=info.detections)


def test_the_network_read_back_gives_the_outputs_of_onnx_runtime(detector, exported, batches):
    compare(TorchBackend(detector, exported.info), exported, batches, ParityLimits())  # raises where they differ


def test_statistics_are_recovered_without_a_change_of_the_outputs(detector, exported, batches):
    pictures = [torch.from_numpy(batch).permute(0, 3, 1, 2) for batch in batches]
    recover_norms(detector, pictures)
    compare(TorchBackend(detector, exported.info), exported, batches, ParityLimits())
    # In training mode batches are normalised by their own statistics, which are now what the layers expect.
    together = torch.cat(pictures).float()
    whole = (together - detector.pixel_mean) / detector.pixel_std
    with torch.no_grad():
        evaluated = detector.eval().backbone(whole)
        trained = detector.train().backbone(whole)
    for one, other in zip(evaluated, trained, strict=True):
        assert (one - other).abs().mean() < 0.05 * one.abs().mean()


def test_how_it_pools_is_read_back():
    assert sampling_ratio_of(default_model()) == 1  # as config/chains/default_model.yaml asks


def test_int8_cannot_be_trained_on(detector):
    with pytest.raises(InputError, match="give the fp32 export, not int8"):
        load_weights(detector, default_model("int8"))


def test_another_detector_is_named(tmp_path):
    with pytest.raises(InputError, match="does not fit the model"):
        load_weights(CascadeMaskRCNN(narrow_cascade(fpn_channels=32, box_width=64)), default_model())
