"""The model that ships inside the package: see docs/model_card.md."""

from __future__ import annotations

import os
from pathlib import Path

from hassod_ros.errors import InputError

DEFAULT = "default"
FOLDER = Path(__file__).resolve().parents[1] / "models"


def default_model(precision: str = "fp32") -> Path:
    """The shipped ONNX file.

    Args:
        precision: "fp32", or "int8" for processors with 8-bit dot products.

    Raises:
        InputError: This installation holds no such file.

    """
    path = FOLDER / (f"{DEFAULT}.onnx" if precision == "fp32" else f"{DEFAULT}-{precision}.onnx")
    if not path.is_file():
        have = ", ".join(sorted(each.stem for each in FOLDER.glob(f"{DEFAULT}*.onnx"))) or "none"
        raise InputError(
            f"the default model is not shipped in {precision} (there is: {have}); give the path of a model"
        )
    return path


def resolve_model(model: str) -> str:
    """The path behind the names "default" and "default-int8" ("" is "default"), or below a home folder (`~`).

    Anything else comes back as it is.

    Raises:
        InputError: This installation holds no such file.

    """
    name, _, precision = (model or DEFAULT).partition("-")
    if name != DEFAULT or precision not in ("", "fp32", "int8"):
        return os.path.expanduser(model)
    return str(default_model(precision or "fp32"))
