"""Scripts on a machine that lacks what training needs: a robot, say."""

import subprocess
import sys
from pathlib import Path

import pytest

from hassod_ros.packages import required

REPO = Path(__file__).parents[2]
LACKING = """
import runpy, sys
for package in ("torch", "torchvision", "timm", "numba", "ray", "lightly", "jsonargparse", "pycocotools", "onnx"):
    sys.modules[package] = None  # importing it fails as if it were not installed
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize(
    "command",
    [
        "train/average.py --checkpoints a.pth --out b.pth",
        "train/detector.py --help",
        "train/evaluate.py --help",
        "train/mean_teacher.py --help",
        "train/prepare_data.py --help",
        "train/pretrain_features.py --help",
        "train/pseudo_label.py --images photos --out labels.json",
        "train/relabel.py --help",
        "train/visualise.py --images photos --out pictures",
        "export/features_to_onnx.py --help",
        "export/to_onnx.py --help",
    ],
)
def test_one_sentence_names_what_is_missing(command):
    done = subprocess.run(
        [sys.executable, "-c", LACKING, *command.split()], cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("error: the package ")
    assert line.endswith("is missing; run pip install 'hassod_ros[train]'")


def test_shrinking_photographs_needs_none_of_them():
    done = subprocess.run(
        [sys.executable, "-c", LACKING, "train/shrink_photos.py", "--help"], cwd=REPO, capture_output=True, timeout=120
    )
    assert done.returncode == 0


def test_a_module_of_ours_that_is_missing_is_a_bug():
    with pytest.raises(ModuleNotFoundError), required("train"):
        import hassod_ros.no_such_module  # noqa: F401
