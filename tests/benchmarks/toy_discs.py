"""Scripts of `benchmarks/` as modules, and photographs of a disc before a wall for them."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
SMALL = ["size=96", "crf=null", "head.iterations=4", "head.every=4", "dataset_clusters=8", "categories=2", "classes=2"]


def load_script(name: str) -> ModuleType:
    """`benchmarks/NAME.py`, which is in no package."""
    spec = importlib.util.spec_from_file_location(name, BENCHMARKS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def disc(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """(96, 128, 3) uint8 RGB, and (96, 128) bool where the disc is."""
    y, x = np.mgrid[:96, :128]
    mask = (y - 48) ** 2 + (x - 44 - 10 * seed) ** 2 < 26**2
    return np.where(mask[..., None], (220, 60 + 20 * seed, 0), (90, 110, 140)).astype(np.uint8), mask
