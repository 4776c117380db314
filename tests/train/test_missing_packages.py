"""Scripts on a machine that lacks what training needs: a robot, say."""

import re
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
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
        "export/quantize.py a.onnx --images photos --annotations a.json --annotated-images photos --out b.onnx",
        "export/to_onnx.py a.pth --images photos --out a.onnx",
    ],
)
def test_one_sentence_names_what_is_missing(command):
    done = subprocess.run(
        [sys.executable, "-c", LACKING, *command.split()], cwd=REPO, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert re.match(r"(error|average|pseudo_label|quantize|to_onnx|visualise): the package ", line)
    assert line.endswith("is missing; run pip install 'hassod_ros[train]'")


@pytest.mark.parametrize(
    ("hidden", "command", "sentence"),
    [
        ("onnxruntime", "predict default PHOTOS --out OUT", "predict: the package onnxruntime is missing; run pip "),
        ("ray", "pseudo_label --images PHOTOS --features handcrafted --out OUT/l.json", "[train]'"),
        (
            "cv2",
            "predict default PHOTOS --out OUT",
            "predict: the package cv2 is missing; run pip install 'hassod_ros'",
        ),
        ("rclpy", "perception_node", "perception_node: the package rclpy is missing; source ROS 2"),
        (
            "torch",
            "retrain PHOTOS --registry OUT",
            "retrain: the package torch is missing; run pip install 'hassod_ros[t",
        ),
        ("rosbags", "extract BAG --out OUT", "run pip install 'hassod_ros[footage]'"),
    ],
)
def test_what_is_missing_ends_no_command_with_a_traceback(tmp_path, hidden, command, sentence):
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    (tmp_path / "night.bag").write_bytes(b"#ROSBAG V2.0\n")
    words = {"PHOTOS": "photos", "BAG": "night.bag", "OUT": "out"}
    for short, path in words.items():
        command = command.replace(short, str(tmp_path / path))
    program = f"import sys; sys.modules[{hidden!r}] = None; from hassod_ros.cli import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, *command.split()], cwd=REPO, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 2, done.stderr
    assert "Traceback" not in done.stderr
    assert sentence in done.stderr.splitlines()[-1]


WITHOUT_TORCH = """
import sys
from importlib import import_module
from hassod_ros.cli import VERBS

class Lacking:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "timm", "lightly"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Lacking())
for name, verb in VERBS.items():
    if not verb.node and name != "pretrain_features":  # the defaults of its options are the network's
        import_module(verb.module).build_parser().format_help()
        print(name)
"""


def test_every_help_is_given_without_torch():
    done = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=REPO, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert {"to_onnx", "quantize", "features_to_onnx", "add_features", "fit_evidence"} < set(done.stdout.split())


def test_shrinking_photographs_needs_none_of_them():
    done = subprocess.run(
        [sys.executable, "-c", LACKING, "train/shrink_photos.py", "--help"], cwd=REPO, capture_output=True, timeout=120
    )
    assert done.returncode == 0


def test_a_module_of_ours_that_is_missing_is_a_bug():
    with pytest.raises(ModuleNotFoundError), required():
        import hassod_ros.no_such_module  # noqa: F401
