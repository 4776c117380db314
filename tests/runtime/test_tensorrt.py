"""TensorRT on a real device; and, without one, that the code only uses what its Python bindings have."""

import ast
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import hassod_ros.runtime
from hassod_ros.errors import InputError
from hassod_ros.export import to_tensorrt
from hassod_ros.runtime.backends import open_backend

ROOM = Path(hassod_ros.runtime.__file__).parent
SOURCES = (ROOM / "tensorrt_builder.py", ROOM / "backends" / "tensorrt_backend.py")
# What the bindings link against; none of it is called when they are only looked at.
LIBRARIES = ("libnvinfer.so", "libnvinfer_plugin.so", "libnvonnxparser.so")
FUNCTIONS = (
    *("createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL"),
    *("createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry"),
    *("getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins"),
)


def has_device() -> bool:
    try:
        import tensorrt  # noqa: F401

        from hassod_ros.runtime.cuda import current_device

        current_device()
    except (ImportError, InputError, RuntimeError):
        return False
    return True


@pytest.fixture(scope="module")
def device() -> None:
    if not has_device():
        pytest.skip("needs TensorRT, cuda-python and a CUDA device")


@pytest.mark.gpu
def test_engine_equals_onnxruntime(write_model, device, tmp_path):
    path = write_model()
    lines: list[str] = []
    engine = open_backend(path, "tensorrt", report=lines.append, cache=tmp_path / "engines")
    assert lines[0].startswith(f"building {path}")
    reference = open_backend(path, "onnxruntime-cpu")
    images = np.random.default_rng(0).integers(0, 256, (1, 48, 64, 3), np.uint8)
    for _ in range(3):  # the first run is plain, the others replay the captured graph
        found, expected = engine.infer(images), reference.infer(images)
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-3)
        np.testing.assert_allclose(found.boxes, expected.boxes, atol=1e-2)
        np.testing.assert_array_equal(found.count, expected.count)
    engine.close()
    engine.close()
    with pytest.raises(RuntimeError, match="closed"):
        engine.infer(images)


@pytest.mark.gpu
def test_second_load_takes_the_cached_engine(write_model, device, tmp_path):
    path = write_model()
    for _ in range(2):
        open_backend(path, "tensorrt", cache=tmp_path / "engines").close()
    (engine,) = (tmp_path / "engines").glob("*.engine")
    before = engine.stat().st_mtime_ns
    open_backend(path, "tensorrt", cache=tmp_path / "engines").close()
    assert engine.stat().st_mtime_ns == before


@pytest.mark.gpu
def test_script_builds_into_the_cache(write_model, device, tmp_path, capsys):
    assert to_tensorrt.main([str(write_model()), "--build-only", "--cache", str(tmp_path / "engines")]) == 0
    assert "is in the cache" in capsys.readouterr().out


def test_without_tensorrt_the_remedy_is_named(write_model, tmp_path, capsys):
    if has_device():
        pytest.skip("TensorRT works here")
    with pytest.raises(InputError, match="cannot be used here"):
        open_backend(write_model(), "tensorrt", cache=tmp_path)
    assert to_tensorrt.main([str(write_model()), "--build-only", "--cache", str(tmp_path)]) == 2
    assert "hassod_ros[tensorrt]" in capsys.readouterr().err


def test_comparison_needs_photographs(write_model, capsys):
    assert to_tensorrt.main([str(write_model())]) == 2
    assert "--images" in capsys.readouterr().err


def chains(source: str) -> set[str]:
    """Every `trt.A.B` that a file uses."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            text = ast.unparse(node)
            if text.startswith("trt.") and text.replace(".", "").replace("_", "").isalnum():
                found.add(text.removeprefix("trt."))
    return found


def test_every_name_exists_in_the_bindings(tmp_path):
    """Load the bindings of PyPI over empty libraries and look up what the sources use."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if importlib.util.find_spec("tensorrt_bindings") is None or compiler is None:
        pytest.skip("needs tensorrt-cu13-bindings and a C compiler")
    (tmp_path / "empty.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in FUNCTIONS))
    for name in LIBRARIES:
        for version in ("10", "11"):
            target = tmp_path / f"{name}.{version}"
            subprocess.run(
                [compiler, "-shared", "-fPIC", "-o", str(target), f"-Wl,-soname,{target.name}", "empty.c"],
                check=True,
                cwd=tmp_path,
            )
    used = set().union(*(chains(path.read_text()) for path in SOURCES))
    assert {"OnnxParser", "NetworkDefinitionCreationFlag.STRONGLY_TYPED", "IProgressMonitor"} <= used
    code = """
import functools, sys
import tensorrt_bindings as trt
for name in sys.argv[1:]:
    functools.reduce(getattr, name.split("."), trt)
for kind, methods in {
    "Builder": "create_network create_builder_config build_serialized_network num_DLA_cores",
    "OnnxParser": "parse get_error num_errors",
    "ParserError": "node_name node_operator desc",
    "IBuilderConfig": "progress_monitor set_memory_pool_limit default_device_type DLA_core set_flag "
    "set_timing_cache create_timing_cache get_timing_cache",
    "ITimingCache": "serialize",
    "Runtime": "deserialize_cuda_engine",
    "ICudaEngine": "create_execution_context num_io_tensors get_tensor_name get_tensor_shape get_tensor_dtype "
    "get_tensor_mode",
    "IExecutionContext": "set_tensor_address execute_async_v3",
    "IProgressMonitor": "phase_start step_complete phase_finish",
    "ILogger": "log",
}.items():
    for method in methods.split():
        getattr(getattr(trt, kind), method)
"""
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code, *sorted(used)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr
