"""A detector small enough to be written by hand: it always sees the same things, brighter images with higher scores."""

from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from hassod_ros.runtime.model_info import ModelInfo

INPUT_SIZE = (48, 64)
BOXES = np.array([[4, 4, 44, 44], [8, 8, 24, 24], [9, 9, 15, 15], [50, 10, 60, 20]], np.float32)
SCORES = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
LEVELS = np.array([0, 1, 2, 0])


def make_info(**changes: object) -> ModelInfo:
    """Metadata of the hand-written detector."""
    values: dict = {
        "architecture": "hand-written",
        "input_size": INPUT_SIZE,
        "batch": 1,
        "proposals": 8,
        "detections": 6,
        "weights_sha256": "0" * 64,
        "revision": "test",
        "created": "2026-01-01T00:00:00+00:00",
    }
    return ModelInfo(**(values | changes))


def build_model(info: ModelInfo, *, metadata: dict[str, str] | None = None) -> onnx.ModelProto:
    """ONNX graph with the signature of an exported detector and constant detections.

    Scores are multiplied by the mean brightness of the image over 255.
    """
    batch, detections, side = info.batch, info.detections, info.mask_size
    n = len(BOXES)
    padding = ((0, 0), (0, detections - n))
    constants = {
        "boxes_1": np.pad(BOXES, (padding[1], (0, 0)))[None].repeat(batch, 0),
        "scores_1": np.pad(SCORES[None], padding).repeat(batch, 0),
        "levels_1": np.pad(np.eye(3, dtype=np.float32)[LEVELS], (padding[1], (0, 0)))[None].repeat(batch, 0),
        "masks_1": np.full((batch, detections, side, side), 0.8, np.float32),
        "count_1": np.full(batch, n, np.int32),
        "converged_1": np.ones(batch, bool),
        "full": np.float32(255),
        "shape": np.array([batch, 1]),
    }
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Div", ["mean", "full"], ["brightness"]),
        helper.make_node("Reshape", ["brightness", "shape"], ["factor"]),
        helper.make_node("Mul", ["scores_1", "factor"], ["scores"]),
        *(
            helper.make_node("Identity", [f"{name}_1"], [output])
            for name, output in (
                ("boxes", "boxes"),
                ("levels", "level_probabilities"),
                ("masks", "masks"),
                ("count", "count"),
                ("converged", "converged"),
            )
        ),
    ]
    outputs = {
        "boxes": (TensorProto.FLOAT, (batch, detections, 4)),
        "scores": (TensorProto.FLOAT, (batch, detections)),
        "level_probabilities": (TensorProto.FLOAT, (batch, detections, 3)),
        "masks": (TensorProto.FLOAT, (batch, detections, side, side)),
        "count": (TensorProto.INT32, (batch,)),
        "converged": (TensorProto.BOOL, (batch,)),
    }
    graph = helper.make_graph(
        nodes,
        "hand-written",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, (batch, *info.input_size, 3))],
        [helper.make_tensor_value_info(name, *value) for name, value in outputs.items()],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, info.to_metadata() if metadata is None else metadata)
    return model


def draw_bright(size: tuple[int, int] = INPUT_SIZE, seed: int = 0) -> np.ndarray:
    """(H, W, 3) uint8, white but for grey cells here and there: in a blank picture no detector finds anything."""
    cells = np.where(np.random.default_rng(seed).random((12, 16)) < 0.1, 200, 255).astype(np.uint8)
    return np.repeat(cv2.resize(cells, size[::-1], interpolation=cv2.INTER_NEAREST)[..., None], 3, axis=2)


@pytest.fixture(scope="session")
def bright() -> np.ndarray:
    """A picture of the model's size that all its things are seen in, with hardly lower scores."""
    return draw_bright()


@pytest.fixture(scope="session")
def write_model(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Write a hand-written detector; keyword arguments change its `ModelInfo`, `metadata` replaces it."""

    def write(*, metadata: dict[str, str] | None = None, **changes: object) -> Path:
        path = tmp_path_factory.mktemp("model") / "model.onnx"
        onnx.save(build_model(make_info(**changes), metadata=metadata), path)
        return path

    return write
