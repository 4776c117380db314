import pytest

pytest.importorskip("hassod_msgs.msg", reason="ROS 2 or hassod_msgs is missing: source scripts/env.sh")

import importlib
import json
import math
import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2] / "benchmarks"
pytestmark = pytest.mark.ros


def run(script: str, *arguments: object) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, str(FOLDER / script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=250, check=False)


@pytest.fixture
def soak(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("soak")


def test_each_path_is_measured_with_processes_of_its_own(tmp_path):
    out = tmp_path / "out.json"
    done = run("node.py", "--seconds", 1, "--rate", 10, "--sizes", "64x48", "--only", "node", "naive", "--out", out)
    assert done.returncode == 0, done.stderr
    rows = json.loads(out.read_text())
    assert [row["path"] for row in rows] == ["node", "naive"]
    for row in rows:
        assert (row["size"], row["sent"]) == ("64x48", 10)
        assert row["received"] + row["dropped"] == 10
        assert row["received"] > 0
        assert 0 < row["p50"] <= row["p95"]
    assert rows[0]["overhead_p50"] > 0
    assert "x node's p50" in done.stdout


def test_a_missing_model_is_one_sentence():
    done = run("node.py", "--seconds", 1, "--sizes", "64x48", "--model", "/nowhere/model.onnx", "--only", "model")
    assert done.returncode == 2
    assert "/nowhere/model.onnx does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_soak_watches_the_process(tmp_path):
    out = tmp_path / "out.json"
    done = run("soak.py", "--minutes", 0.1, "--size", "64x48", "--out", out)
    assert done.returncode in (0, 1), done.stderr
    samples = json.loads(out.read_text())
    assert len(samples) == 12  # two reloads and four cameras that die
    assert samples[-1]["answers"] > samples[0]["answers"]
    assert all(sample["memory_mb"] > 10 and sample["files"] > 3 and sample["threads"] > 1 for sample in samples)
    assert "MB per 10,000 images" in done.stdout


def test_growth_is_told_from_noise_and_from_what_levels_off(soak):
    def samples(memory=lambda _: 0.0, files: int = 0) -> list:
        return [
            soak.Sample(
                seconds=i, memory_mb=200 + memory(i) + i % 3, files=20 + files * i, threads=9, answers=500 * (i + 1)
            )
            for i in range(60)
        ]

    assert soak.growing(samples()) == []
    assert soak.growing(samples(lambda i: 40 * (1 - math.exp(-i / 12)))) == []
    assert soak.growing(samples(lambda i: 30.0 * (i > 40))) == []  # once
    (sentence,) = soak.growing(samples(lambda i: 0.5 * i))
    assert 8 < float(sentence.removeprefix("memory grows by ").split()[0]) < 12
    assert soak.growing(samples(files=1)) == ["files grow from 64 to 79"]


def test_what_measured_nodes_remember_stays_out_of_the_users_home(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    monkeypatch.setenv("ROS_HOME", "the user's")
    with importlib.import_module("node").Processes() as processes:
        child = processes.start("home", [sys.executable, "-c", "import os; print(os.environ['ROS_HOME'])"])
        assert child.wait(60) == 0
        assert Path(processes.said()).is_dir()
        assert processes.said() != "the user's"
