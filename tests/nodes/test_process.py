import subprocess
import sys

import pytest

pytest.importorskip("rclpy", reason="ROS 2 is missing: source scripts/env.sh")

import os
import signal
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Takes and gives back what an image of 1920x1080 needs, again and again; prints the page faults of the last rounds.
IMAGES = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from hassod_ros.nodes.process import keep_memory
    assert keep_memory()
for count in (5, 20):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(count):
        images = [np.full((1080, 1920, 3), 1, np.uint8) for _ in range(3)]
        del images
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
THREADS = """
import os
import hassod_ros.nodes
import numpy as np
a = np.ones((600, 600), np.float32)
a @ a
print(len(os.listdir("/proc/self/task")))
"""


STOPPED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # a parent may have had it ignored
sys.argv[0] = sys.argv[1]
import hassod_ros.nodes
os.kill(os.getpid(), signal.SIGINT)
import time
time.sleep(5)
"""


def python(program: str, *arguments: str, **environment: str) -> str:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("OMP", "OPENBLAS", "MALLOC"))}
    command = [sys.executable, "-c", program, *arguments]
    kept["NUMPY_MADVISE_HUGEPAGE"] = "0"  # huge pages would be counted as one
    done = subprocess.run(command, env=kept | environment, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def test_memory_of_images_is_not_fetched_anew_for_each_of_them():
    per_image = 3 * 1080 * 1920 * 3 // 4096
    assert int(python(IMAGES, "forget")) > 10 * per_image  # what this is for
    assert int(python(IMAGES, "keep")) < per_image


def test_what_the_user_sets_for_malloc_stays():
    assert int(python(IMAGES, "keep", MALLOC_MMAP_THRESHOLD_="65536", MALLOC_TRIM_THRESHOLD_="65536")) > 1000


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="OpenBLAS takes no threads on one core")
def test_numpy_has_no_threads_of_its_own_in_a_node():
    alone = int(python(THREADS))
    assert alone < int(python(THREADS, OPENBLAS_NUM_THREADS="8"))


def test_a_node_started_by_hand_has_the_profile_for_images():
    program = (
        "import os; from hassod_ros.nodes.process import prepare_process; prepare_process(); "
        "print(os.environ['FASTDDS_DEFAULT_PROFILES_FILE'])"
    )
    assert python(program, FASTDDS_DEFAULT_PROFILES_FILE="/mine.xml") == "/mine.xml"
    kept = os.environ.pop("FASTDDS_DEFAULT_PROFILES_FILE", None)
    try:
        assert Path(python(program)).read_text() == (ROOT / "config/fastdds.xml").read_text()
    finally:
        if kept is not None:
            os.environ["FASTDDS_DEFAULT_PROFILES_FILE"] = kept


@pytest.mark.parametrize(("program", "quiet"), [("/opt/ros/lib/hassod_ros/perception_node", True), ("my_tool", False)])
def test_a_node_that_is_stopped_while_it_imports_ends_without_a_traceback(program, quiet):
    done = subprocess.run([sys.executable, "-c", STOPPED, program], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == -signal.SIGINT
    assert ("KeyboardInterrupt" in done.stderr) is not quiet
    assert bool(done.stderr) is not quiet
