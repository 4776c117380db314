"""The model that ships inside the package: see docs/model_card.md."""

from __future__ import annotations

from pathlib import Path

from hassod_ros.errors import InputError

DEFAULT = "default"
FOLDER = Path(__file__).resolve().parent / "models"
CPU_FLAGS = Path("/proc/cpuinfo")
VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def default_path(precision: str) -> Path:
    """Where the shipped file of a precision is, if it was shipped."""
    return FOLDER / (f"{DEFAULT}.onnx" if precision == "fp32" else f"{DEFAULT}-{precision}.onnx")


def default_model(precision: str = "fp32") -> Path:
    """The shipped ONNX file.

    Args:
        precision: "fp32", or "int8" for processors with 8-bit dot products.

    Raises:
        InputError: This installation holds no such file.

    """
    path = default_path(precision)
    if not path.is_file():
        have = ", ".join(sorted(each.stem for each in FOLDER.glob(f"{DEFAULT}*.onnx"))) or "none"
        raise InputError(
            f"the default model is not shipped in {precision} (there is: {have}); give the path of a model"
        )
    return path


def best_precision() -> tuple[str, str]:
    """The precision that suits this processor, "int8" or "fp32", and why.

    The 8-bit file takes less than half of the time where the processor multiplies bytes (VNNI), and more elsewhere.
    """
    try:
        flags = set(CPU_FLAGS.read_text(encoding="utf-8", errors="replace").split())
    except OSError:
        flags = set()
    if not flags & VNNI:
        return "fp32", "this processor has no VNNI"
    if not default_path("int8").is_file():
        return "fp32", "no int8 file was shipped"
    return "int8", "this processor has VNNI"
