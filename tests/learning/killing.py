"""Training scripts that are killed as a power cut would."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

# The script, which never comes to its second checkpoint: toy runs are so short that they would end before the kill.
_UNFINISHED = """
import importlib, sys, time
module, script, *words = sys.argv[1:]
module = importlib.import_module(module)
write = module.write_tensors
module.write_tensors = lambda path, state: time.sleep(1000) if path.exists() else write(path, state)
sys.exit(importlib.import_module(f"hassod_ros.train.{script}").main(words))
"""


def kill_after_the_first_checkpoint(module: str, script: str, words: Sequence[str], checkpoint: Path) -> None:
    """Run a script in a process of its own until `checkpoint` is there, then end it with SIGKILL.

    Args:
        module: That writes checkpoints, by its own `write_tensors`.
        script: In hassod_ros.train.
        words: Its options.
        checkpoint: File.

    """
    command = [sys.executable, "-c", _UNFINISHED, module, script, *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    repo = Path(__file__).parents[2]
    process = subprocess.Popen(command, env=environment, cwd=repo, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 400  # it takes seconds, and minutes on a machine that is busy
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    said, _ = process.communicate()
    assert process.returncode == -signal.SIGKILL, said.decode()
    assert checkpoint.exists(), said.decode()
