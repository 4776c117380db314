import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv is missing (util-linux)")

PARENT = """
import sys, time
from hassod_ros.children import start
child = start([sys.executable, "-c", "import os, time; print(os.getpid(), flush=True); time.sleep(600)"])
time.sleep(600)
"""


def ended(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_child_ends_with_its_parent_whatever_ends_it(number):
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    assert not ended(child)
    os.kill(parent.pid, number)
    parent.wait()
    end = time.monotonic() + 30
    while not ended(child):
        assert time.monotonic() < end, "the child outlived its parent"
        time.sleep(0.02)
    parent.stdout.close()
