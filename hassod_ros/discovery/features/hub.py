"""Whether the hub that timm downloads weights from answers at all."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.request import getproxies

HUB = "huggingface.co"
_OFFLINE = "HF_HUB_OFFLINE"
_SECONDS = 3.0


def answers() -> bool:
    """Whether a download can be tried; behind a proxy it always can."""
    if _OFFLINE in os.environ:
        return False
    if getproxies():
        return True
    try:
        socket.create_connection((HUB, 443), _SECONDS).close()
    except OSError:
        return False
    return True


@contextmanager
def without_retries() -> Iterator[bool]:
    """Inside, a download from a hub that does not answer fails at once instead of after a minute of new tries.

    Yields:
        Whether it answers.

    """
    constants = sys.modules.get("huggingface_hub.constants")
    if answers():
        yield True
        return
    before = getattr(constants, _OFFLINE, None)
    if constants is not None:
        setattr(constants, _OFFLINE, True)
    try:
        yield False
    finally:
        if constants is not None:
            setattr(constants, _OFFLINE, before)
