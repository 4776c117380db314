"""The compiler in these tests is a real one: ONNX Runtime's graph optimiser, whose output it loads again."""

import hashlib
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime.engine_cache import EngineCache, EngineKey, is_memory_shortage, private_folder


def key_of(model: Path, **changes: object) -> EngineKey:
    values = {
        "model_sha256": hashlib.sha256(model.read_bytes()).hexdigest(),
        "compiler": f"onnxruntime {onnxruntime.__version__}",
        "device": "cpu",
        "compute_capability": "",
        "multiprocessors": 0,
        "precision": "fp32",
        "shapes": "images:1x48x64x3",
    }
    return EngineKey(**(values | changes))


class Optimiser:
    """Compile with ONNX Runtime and count how often; every run also leaves a line in `log`."""

    def __init__(self, model: Path, log: Path, delay: float = 0.0) -> None:
        self.model, self.log, self.delay = model, log, delay

    def __call__(self) -> bytes:
        with self.log.open("a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(self.delay)
        options = onnxruntime.SessionOptions()
        target = self.log.parent / f"optimised-{os.getpid()}-{self.runs}.onnx"
        options.optimized_model_filepath = str(target)
        onnxruntime.InferenceSession(str(self.model), options, providers=["CPUExecutionProvider"])
        return target.read_bytes()

    @property
    def runs(self) -> int:
        return len(self.log.read_text().splitlines()) if self.log.exists() else 0


def runs_as_a_model(engine: bytes) -> bool:
    session = onnxruntime.InferenceSession(engine, providers=["CPUExecutionProvider"])
    return bool(session.run(["count"], {"images": np.zeros((1, 48, 64, 3), np.uint8)})[0][0] == 4)


@pytest.fixture
def model(write_model):
    return write_model()


@pytest.fixture
def cache(tmp_path):
    return EngineCache(tmp_path / "engines")


@pytest.fixture
def build(model, tmp_path):
    return Optimiser(model, tmp_path / "log")


def test_second_time_is_a_hit(cache, build, model):
    first = cache.load_or_build(key_of(model), build)
    assert runs_as_a_model(first)
    assert EngineCache(cache.folder).load_or_build(key_of(model), build) == first
    assert build.runs == 1


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "1" * 64},
        {"compiler": "onnxruntime 0.0.1"},
        {"device": "another"},
        {"compute_capability": "8.7"},
        {"multiprocessors": 16},
        {"precision": "fp16"},
        {"shapes": "images:2x48x64x3"},
        {"options": "dla=0"},
    ],
)
def test_every_part_of_the_key_counts(cache, build, model, change):
    cache.load_or_build(key_of(model), build)
    cache.load_or_build(key_of(model, **change), build)
    assert build.runs == 2
    assert len(list(cache.folder.glob("*.engine"))) == 2


@pytest.mark.parametrize("position", [0, 40, 0.5, -1])
def test_a_flipped_bit_is_noticed(cache, build, model, position):
    key = key_of(model)
    whole = cache.load_or_build(key, build)
    content = bytearray(cache.path(key).read_bytes())
    content[int(position * len(content)) if isinstance(position, float) else position] ^= 1
    cache.path(key).write_bytes(content)
    assert cache.load_or_build(key, build) == whole
    assert build.runs == 2
    (aside,) = cache.folder.glob("*.quarantined")
    assert aside.read_bytes() == content


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_truncated_file_is_rebuilt(cache, build, model, share):
    key = key_of(model)
    whole = cache.load_or_build(key, build)
    path = cache.path(key)
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    assert cache.load_or_build(key, build) == whole
    assert len(list(cache.folder.glob("*.quarantined"))) == 1


def test_another_keys_file_is_not_taken(cache, build, model):
    """A file renamed by hand still says which key it was made for."""
    key, other = key_of(model), key_of(model, device="another")
    cache.load_or_build(key, build)
    cache.path(key).rename(cache.path(other))
    cache.load_or_build(other, build)
    assert build.runs == 2


def test_an_engine_that_the_loader_refuses_is_put_aside_and_built_anew(cache, build, model):
    key, lines, refused = key_of(model), [], []
    old = cache.load_or_build(key, build)

    def load(data: bytes) -> str | None:
        refused.append(data)
        return None if len(refused) == 1 else "engine"

    assert cache.open(key, build, load, lines.append) == "engine"
    assert build.runs == 2
    (aside,) = cache.folder.glob("*.quarantined")
    assert old in aside.read_bytes()
    assert str(aside) in lines[0]


def test_an_engine_is_not_built_again_and_again(cache, build, model):
    with pytest.raises(InputError, match="newly built engine cannot be loaded"):
        cache.open(key_of(model), build, lambda data: None, print)
    assert build.runs == 1


def test_too_little_memory_says_nothing_against_an_engine(cache, build, model):
    key = key_of(model)
    cache.load_or_build(key, build)

    def load(data: bytes) -> None:
        raise InputError("the GPU has too little free memory")

    with pytest.raises(InputError, match="too little free memory"):
        cache.open(key, build, load, print)
    assert not list(cache.folder.glob("*.quarantined"))
    assert cache.open(key, build, len, print) > 0
    assert build.runs == 1


@pytest.mark.parametrize(
    ("text", "shortage"),
    [
        ("[defaultAllocator.cpp::allocate::52] Error Code 1: Cuda Runtime (out of memory)", True),
        ("Error Code 2: OutOfMemory (no further information)", True),
        ("Requested amount of GPU memory could not be allocated", True),
        ("CUDA failure 2: oom", True),
        ("Version tag does not match", False),
        ("no room for a node", False),
    ],
)
def test_what_speaks_of_too_little_memory(text, shortage):
    assert is_memory_shortage(text) == shortage


def test_an_engine_that_another_process_has_built_meanwhile_stays(cache, build, model):
    key = key_of(model)
    refused = cache.load_or_build(key, build)
    first, second = cache.quarantine(key, refused), cache.load_or_build(key, lambda: b"a better one")
    assert first is not None
    assert cache.quarantine(key, refused) is None  # by a process that is late
    assert cache.load_or_build(key, build) == second


def test_few_engines_are_kept_aside(cache, build, model):
    key = key_of(model)
    for number in range(5):
        cache.quarantine(key, cache.load_or_build(key, lambda number=number: b"engine %d" % number))
    kept = sorted(path.read_bytes().splitlines()[1] for path in cache.folder.glob("*.quarantined"))
    assert kept == [b"engine 3", b"engine 4"]


def test_a_failing_compiler_leaves_nothing(cache, model):
    def fail() -> bytes:
        raise InputError("node Conv_3 is not supported; export again")

    with pytest.raises(InputError, match="Conv_3"):
        cache.load_or_build(key_of(model), fail)
    assert not list(cache.folder.glob("*.engine"))


def test_concurrent_builders_build_once(cache, model, tmp_path):
    build = Optimiser(model, tmp_path / "log", delay=0.3)
    context = multiprocessing.get_context("spawn")
    with context.Pool(3) as pool:
        engines = pool.starmap(_load, [(cache.folder, model, build)] * 3)
    assert build.runs == 1
    assert len(set(engines)) == 1


def _load(folder: Path, model: Path, build: Optimiser) -> bytes:
    return EngineCache(folder).load_or_build(key_of(model), build)


def test_a_builder_killed_while_writing_leaves_a_clean_cache(cache, build, model, tmp_path):
    """Stop a process when half of the engine is on the disk, kill it, and load again."""
    code = f"""
import hashlib, os, signal, sys
from pathlib import Path
from hassod_ros.runtime.engine_cache import EngineCache, EngineKey
import hassod_ros.runtime.engine_cache as module

class Halting:
    def __init__(self, path): self.path = path
    def open(self, mode):
        self.file = self.path.open(mode)
        return self
    def __enter__(self): return self
    def __exit__(self, *ignored): self.file.close()
    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self.file.flush()
        os.kill(os.getpid(), signal.SIGKILL)

real = module.atomic_path
from contextlib import contextmanager
@contextmanager
def halting(path):
    with real(path) as temporary:
        yield Halting(temporary)
module.atomic_path = halting
key = EngineKey(**{key_of(model).__dict__!r})
EngineCache({str(cache.folder)!r}).load_or_build(key, lambda: b"x" * 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    left = [path for path in cache.folder.iterdir() if path.suffix != ".lock"]
    assert len(left) == 1  # the half-written temporary file
    assert runs_as_a_model(cache.load_or_build(key_of(model), build))
    assert sorted(path.suffix for path in cache.folder.iterdir()) == [".engine", ".lock"]


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_folders_that_others_may_write_to_are_refused(tmp_path, mode):
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(mode)
    with pytest.raises(InputError, match="chmod go-w"):
        EngineCache(folder)


def test_a_folder_opened_up_later_is_refused_too(cache, build, model):
    cache.folder.chmod(0o777)
    with pytest.raises(InputError, match="chmod go-w"):
        cache.load_or_build(key_of(model), build)


def test_a_new_folder_is_private(tmp_path):
    assert private_folder(tmp_path / "new" / "engines").stat().st_mode & 0o777 == 0o700


def test_someone_elses_folder_is_refused(tmp_path, monkeypatch):
    folder = tmp_path / "mine"
    folder.mkdir(mode=0o700)
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(InputError, match="another user"):
        private_folder(folder)


def test_a_file_in_the_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="choose another folder"):
        EngineCache(tmp_path / "file")
