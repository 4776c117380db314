"""The state of a run on disk: never half written, never continued under another recipe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from hassod_ros.errors import InputError

_KEYS_NAMED = 8


def load_state(path: Path, settings: Mapping[str, Any], device: torch.device) -> dict[str, Any] | None:
    """The state in `path`, or None where there is none.

    Args:
        path: File that `write_tensors` wrote.
        settings: What the run is made of, by dotted names; must equal the state's "settings".
        device: Where the tensors go.

    Raises:
        InputError: The file is damaged, or belongs to other settings (the differing ones are named).

    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location=device, weights_only=True)
        written = state["settings"]
    except Exception as error:  # torch raises many kinds for a damaged file
        raise InputError(
            f"{path} is not a checkpoint of this program ({type(error).__name__}); move it away to start again"
        ) from error
    differing = sorted(
        f"{key} ({written.get(key, 'absent')} there, {settings.get(key, 'absent')} now)"
        for key in settings.keys() | written.keys()
        if settings.get(key) != written.get(key)
    )
    if differing:
        more = f" and {len(differing) - _KEYS_NAMED} more" if len(differing) > _KEYS_NAMED else ""
        raise InputError(
            f"{path} was made with another recipe: {', '.join(differing[:_KEYS_NAMED])}{more}; "
            "take those values or choose another run.output"
        )
    return state
