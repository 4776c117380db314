"""What a method has learned from a set, as one `.npz` file without pickle, bound to the features it was made with."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hassod_ros.discovery.features.base import Features
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path

_META = "hassod_ros_state"
_SCHEMA = 1


@dataclass(frozen=True, eq=False)
class State:
    """What a method has learned.

    Attributes:
        method: Name in `METHODS`.
        config: The method's settings when it learned, as JSON values.
        features: Name, dimension and weights of the features, see `describe`.
        arrays: The rest, by name.

    """

    method: str
    config: Mapping[str, Any]
    features: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]

    def require(self, given: Mapping[str, Any]) -> None:
        """Refuse features that the state was not made with; `given` as `describe` says.

        Raises:
            InputError: They are others.

        """
        if dict(given) != dict(self.features):
            raise InputError(
                f"the state of {self.method} was made with {_say(self.features)}, these features are {_say(given)}; "
                "use the same features and weights, or fit again"
            )


def describe(features: Features) -> dict[str, Any]:
    """What tells features apart, as JSON values."""
    return {"name": features.name, "dim": features.dim, "weights_sha256": features.weights_sha256}


def save_state(path: str | os.PathLike, state: State) -> None:
    """Write a state atomically; the ending is `.npz`.

    Raises:
        InputError: The name has another ending, or the file cannot be written.

    """
    if Path(path).suffix != ".npz":
        raise InputError(f"{path} is to hold a state; give it the ending .npz")
    meta = {"schema": _SCHEMA, "method": state.method, "config": state.config, "features": state.features}
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, allow_pickle=False, **{_META: np.array(json.dumps(meta))}, **state.arrays)


def load_state(path: str | os.PathLike, method: str) -> State:
    """Read a state of a method; nothing is unpickled.

    Raises:
        InputError: The file is missing or damaged, no state, or of another method; or it holds NaN.

    """
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        meta = json.loads(str(arrays.pop(_META)))
        if meta["schema"] != _SCHEMA:
            raise KeyError("schema")
        state = State(str(meta["method"]), dict(meta["config"]), dict(meta["features"]), arrays)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; make it with fit first, see docs/{method}.md") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} is damaged or no state of this version ({error}); make it again") from error
    if state.method != method:
        raise InputError(f"{path} is a state of {state.method}, not of {method}; give one of {method}")
    for name, values in arrays.items():
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise InputError(f"{path} holds NaN or infinity in {name}; make it again")
    return state


def _say(features: Mapping[str, Any]) -> str:
    return f"{features['name']} ({features['dim']} channels, weights {str(features['weights_sha256'])[:8]})"
