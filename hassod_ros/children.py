"""Child processes that end with their parent, whatever ends it: a limit of time on a test machine ends only one."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence
from typing import Any


def start(command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
    """Run a command that gets SIGTERM when this process is gone, even killed; Linux only.

    The kernel watches the thread that starts the child: start it in one that lives as long as the child should.

    Args:
        command: As for subprocess.Popen; `setpriv` (util-linux) stands in front of it and gives it its process.
        options: Passed on to subprocess.Popen.

    """
    return subprocess.Popen(["setpriv", "--pdeathsig", "TERM", "--", *command], **options)


def end(child: subprocess.Popen[Any], limit: float = 20.0) -> None:
    """End a child as Ctrl-C does, so that a node gives its shared memory back; kill it after `limit` seconds."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
    try:
        child.wait(timeout=limit)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
