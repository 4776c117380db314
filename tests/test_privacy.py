"""What libraries would tell their makers stays on the machine."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hassod_ros.default_model import default_path

LOOK = """
import numpy as np
from hassod_ros.runtime.segmenter import open_segmenter
open_segmenter("default")(np.full((48, 64, 3), 99, np.uint8))
"""
SAY = "import os, hassod_ros; print(os.environ['ORT_DISABLE_TELEMETRY'], os.environ['RAY_USAGE_STATS_ENABLED'])"


def python(code: str, home: Path, **environment: str) -> str:
    # Without what silences ONNX Runtime in continuous integration.
    kept = {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH") if name in os.environ}
    given = kept | {"HOME": str(home)} | environment
    return subprocess.run([sys.executable, "-c", code], env=given, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(not default_path("fp32").is_file(), reason="no model is shipped")
def test_a_model_that_runs_leaves_no_identity_of_the_machine(tmp_path):
    python(LOOK, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_the_user_has_set_stays(tmp_path):
    assert python(SAY, tmp_path).split() == ["1", "0"]
    assert python(SAY, tmp_path, ORT_DISABLE_TELEMETRY="0", RAY_USAGE_STATS_ENABLED="1").split() == ["0", "1"]
