import os
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os, sys
from pathlib import Path
os.sched_setaffinity(0, {int(sys.argv[2])})
from hassod_ros.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
backend = OnnxRuntimeBackend.load(sys.argv[1], provider="cpu")
backend.warm_up()
for status in Path("/proc/self/task").glob("*/status"):
    print(*(line.split()[1] for line in status.read_text().splitlines() if line.startswith("Cpus_allowed_list")))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="reads the threads from /proc (Linux)")
def test_threads_stay_on_the_cores_of_the_process(write_model):
    path = write_model()
    for core in sorted(os.sched_getaffinity(0))[:2]:
        done = subprocess.run(
            [sys.executable, "-c", PROGRAM, str(path), str(core)],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert set(done.stdout.split()) == {str(core)}
