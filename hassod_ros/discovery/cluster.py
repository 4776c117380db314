"""Ray, on this machine or on a cluster: there within seconds, or one sentence that names the cause."""

from __future__ import annotations

import logging
import os
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from hassod_ros.errors import InputError

_PROBE_SECONDS = 5.0
_PORT = 6379  # Ray's own
_WORTH_SAYING = r"/dev/shm|[Oo]bject store|[Mm]emory|[Dd]isk"  # of what Ray warns of at its start
_TOKENS_ARE_ON = "authentication is enabled"
# What Ray and the system say, and what it means.
_CAUSES = (
    (r"Unauthenticated|InvalidAuthToken|[Aa]uthentication", "it asks for another token; give it with --ray-token FILE"),
    (r"Version mismatch", "it runs another version of Ray or Python; install the cluster's here"),
    (r"No space left", "the disk of Ray's temporary folder is full; free /tmp, or set RAY_TMPDIR"),
    (
        r"/dev/shm|[Oo]bject store memory|Cannot allocate|not enough memory",
        "memory or /dev/shm is too small; give Docker --shm-size 2g, or use fewer --cpus",
    ),
    (
        r"Permission denied|Read-only file system",
        "its temporary folder or ~/.ray cannot be written; set RAY_TMPDIR and HOME to folders that can",
    ),
    (r"AF_UNIX path length|too long", "its temporary folder has too long a name; set RAY_TMPDIR to a short one"),
    (r"Too many open files", "too many files are open; raise ulimit -n"),
    (
        r"Failed to connect|[Tt]imed out|timeout|overloaded",
        "its processes did not answer in time; try again when the machine is less busy",
    ),
)


def start_ray(address: str | None, *, cpus: int | None = None) -> None:
    """Join a cluster, or start Ray on this machine; what runs already is left alone.

    Args:
        address: Of a cluster, such as `10.0.0.1:6379`, or `auto` for one that runs here. Default: this machine alone,
            whatever RAY_ADDRESS says.
        cpus: CPUs to use on this machine; default: all.

    Raises:
        InputError: Nothing answers there, or Ray did not start; with the cause.

    """
    import ray  # seconds: wrong addresses are found before

    if ray.is_initialized():
        return
    local = address in (None, "", "local")
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # at "error" native code prints its stack at SIGTERM
    with _native_errors() as said:
        try:
            ray.init(
                address="local" if local else address,
                num_cpus=cpus if local else None,
                include_dashboard=False if local else None,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
            warnings = [line for line in said().splitlines() if re.search(_WORTH_SAYING, line)]
        except Exception as error:  # Ray raises plain ones
            reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            lines = [line for line in said().splitlines() if _TOKENS_ARE_ON not in line]  # no cause of anything
            cause = "\n".join([str(error), *lines])
        else:
            reason = cause = ""
    if not cause:
        print("".join(f"Ray: {line}\n" for line in warnings), end="", file=sys.stderr, flush=True)
        return
    remedy = next(
        (remedy for pattern, remedy in _CAUSES if re.search(pattern, cause)), "see /tmp/ray/session_latest/logs"
    )
    if local:
        raise InputError(f"Ray did not start here ({reason}): {remedy}")
    raise InputError(f"the Ray cluster at {address} cannot be joined ({reason}): {remedy}")


def probe(address: str | None, token: Path | None = None) -> None:
    """Find out within seconds whether something listens at a cluster's address, and hand Ray the token.

    Raises:
        InputError: Nothing does, the address is none, or there is no such token.

    """
    if token is not None:
        if not token.is_file():
            raise InputError(f"the token {token} does not exist; copy it from the cluster's ~/.ray/auth_token")
        os.environ.pop("RAY_AUTH_TOKEN", None)  # it would win
        os.environ["RAY_AUTH_TOKEN_PATH"] = str(token.resolve())
    if address in (None, "", "local", "auto"):
        return
    assert address is not None
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host:
        host, port = port, str(_PORT)
    if not port.isdecimal():
        raise InputError(f"--ray {address} is no address; give HOST:PORT, such as 10.0.0.1:6379, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), _PROBE_SECONDS).close()
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or str(error) or "no answer"
        raise InputError(
            f"no Ray cluster listens at {address} ({reason}); check --ray, and that ray start --head runs there"
        ) from error


@contextmanager
def _native_errors() -> Iterator[Callable[[], str]]:
    """Keep what native code writes to standard error inside the block; yields a function that gives it."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as file:
        os.dup2(file.fileno(), 2)

        def said() -> str:
            file.seek(0)
            return file.read().decode(errors="replace")

        try:
            yield said
        finally:
            os.dup2(kept, 2)
            os.close(kept)
