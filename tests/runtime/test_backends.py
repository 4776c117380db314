import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from hassod_ros.errors import InputError
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.backends.base import gpu_number
from hassod_ros.runtime.segmenter import open_segmenter


def test_raw_arrays_have_the_promised_shapes(write_model):
    backend = open_backend(write_model(batch=2))
    raw = backend.infer(np.zeros((2, 48, 64, 3), np.uint8))
    assert raw.boxes.shape == (2, 6, 4)
    assert raw.scores.shape == (2, 6)
    assert raw.level_probabilities.shape == (2, 6, 3)
    assert raw.masks.shape == (2, 6, 28, 28)
    assert raw.count.tolist() == [4, 4]
    assert raw.converged.dtype == bool


@pytest.mark.parametrize(
    "images",
    [np.zeros((1, 48, 64, 3), np.float32), np.zeros((1, 64, 48, 3), np.uint8), np.zeros((2, 48, 64, 3), np.uint8)],
)
def test_wrong_input_is_refused(write_model, images):
    with pytest.raises(InputError, match=r"takes uint8 images of shape \(1, 48, 64, 3\)"):
        open_backend(write_model()).infer(images)


def test_a_missing_provider_is_named(write_model):
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    with pytest.raises(InputError, match=r"no CUDAExecutionProvider .*install onnxruntime-gpu"):
        open_backend(write_model(), "onnxruntime-cuda")


def test_threads_rest_between_images(write_model):
    options = open_backend(write_model())._session.get_session_options()
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


def test_unknown_backend_lists_the_known(write_model):
    with pytest.raises(InputError, match="choose one of auto, onnxruntime"):
        open_backend(write_model(), "openvino")


@pytest.mark.parametrize("name", ["model.engine", "model.plan"])
def test_foreign_engines_are_never_loaded(tmp_path, name):
    (tmp_path / name).write_bytes(b"anything")
    with pytest.raises(InputError, match="fits one GPU and version only"):
        open_backend(tmp_path / name)


def test_a_damaged_graph_is_named(write_model):
    """Cut inside the graph, with the outermost fields still whole."""
    path = write_model()
    model = onnx.load(path)
    model.graph.node[2].input[1] = "nowhere"
    onnx.save(model, path)
    with pytest.raises(InputError, match=r"cannot load .*model\.onnx"):
        open_backend(path)


@pytest.mark.parametrize("part", ["format", "operators"])
def test_a_file_of_a_newer_onnx_asks_for_a_newer_runtime(write_model, part):
    path = write_model()
    model = onnx.load(path)
    if part == "format":
        model.ir_version = 99
    else:
        model.opset_import[0].version = 99
    onnx.save(model, path)
    with pytest.raises(
        InputError, match=r"^\S+model\.onnx is of a newer ONNX than .* reads; install a newer onnxruntime$"
    ):
        open_backend(path)


def test_a_graph_that_breaks_its_promise(write_model):
    path = write_model()
    model = onnx.load(path)
    del model.graph.output[-1]
    onnx.save(model, path)
    with pytest.raises(InputError, match="lacks the output converged"):
        open_backend(path)


def test_an_input_of_another_size_than_promised(write_model):
    path = write_model()
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 50
    onnx.save(model, path)
    with pytest.raises(InputError, match="its metadata promise"):
        open_backend(path)


def test_out_of_memory_at_load_says_so(write_model, tmp_path):
    """A model with 200 MB of weights in a process that may only take 100 MB more."""
    model = onnx.load(write_model())
    model.graph.initializer.append(numpy_helper.from_array(np.ones((50_000_000,), np.float32), "ballast"))
    model.graph.node[2].input[1] = "ballast_1"
    model.graph.node.insert(0, onnx.helper.make_node("ReduceMax", ["ballast"], ["ballast_1"], keepdims=0))
    path = tmp_path / "large.onnx"
    onnx.save(model, path)
    code = f"""
import resource
from hassod_ros.errors import InputError
from hassod_ros.runtime.backends import open_backend
import hassod_ros.runtime.backends.onnxruntime_backend
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 100_000_000, -1))
try:
    open_backend({str(path)!r}, "onnxruntime-cpu", threads=1)
except InputError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "does not fit into the memory" in done.stdout


def test_options_that_a_backend_does_not_have_are_refused(write_model):
    with pytest.raises(InputError, match="has no option dla_core; it has cache, device, features, threads"):
        open_backend(write_model(), dla_core=0)
    with pytest.raises(InputError, match="training-free mode has no option threads"):
        open_segmenter("training_free", threads=2)


def test_threads_and_device_reach_the_session(write_model):
    backend = open_backend(write_model(), device="cpu", threads=1)
    assert backend._session.get_session_options().intra_op_num_threads == 1
    assert backend.name.endswith("CPUExecutionProvider")


@pytest.mark.parametrize(
    ("device", "sentence"),
    [
        ("cuda:1", "device is cuda:1, but CPUExecutionProvider runs the model"),
        ("gpu", "device is gpu, but CPUExecutionProvider runs the model"),
    ],
)
def test_a_device_that_the_provider_is_not_on_is_refused(write_model, device, sentence):
    with pytest.raises(InputError, match=sentence):
        open_backend(write_model(), "onnxruntime-cpu", device=device)


def test_gpus_are_told_by_number():
    assert [gpu_number(device) for device in ("", "cuda", "cuda:0", "cuda:3")] == [0, 0, 0, 3]
    for device in ("cpu", "cuda:x", "cuda:-1", "1"):
        with pytest.raises(InputError, match="is no GPU"):
            gpu_number(device)


def test_a_missing_onnxruntime_is_a_sentence(write_model):
    code = f"""
import sys
sys.modules["onnxruntime"] = None
from hassod_ros.runtime.backends import open_backend
try:
    open_backend({str(write_model())!r})
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("InputError the backend onnxruntime cannot be used here")
    assert "pip install onnxruntime" in done.stdout
