"""`benchmarks/learners.py` on discs before a wall."""

import argparse
from pathlib import Path

import pytest
from PIL import Image

from hassod_ros.discovery.states import load_state
from tests.benchmarks.toy_discs import SMALL, disc, load_script


@pytest.fixture(scope="module")
def module():
    return load_script("learners")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("images")
    for seed in range(4):
        Image.fromarray(disc(seed)[0]).save(root / f"{seed}.png")
    return root


@pytest.mark.parametrize("method", ["heap", "lightcluster"])
def test_a_process_learns_and_another_uses_it(module, folder, tmp_path, method):
    given = argparse.Namespace(
        images=folder, count=3, features="handcrafted", weights=None, set=SMALL, method=method, out=tmp_path / "a.npz"
    )
    learned = module._learn(given)
    state = load_state(given.out, method)
    assert (state.config["size"], state.config["crf"]) == (96, None)
    used = module._use(given)
    for seconds in (learned["features"], learned["own"], used["own"]):
        assert seconds["wall"] > 0
        assert seconds["cpu"] > 0
    assert min(learned["start GB"], learned["peak GB"], used["peak GB"]) > 0.05


def test_rates_begin_when_the_workers_stand(module):
    slow_start = [(0.0, 1), (8.0, 2), (9.0, 10), (10.0, 14), (12.0, 20)]
    assert module._rate(slow_start) == (20 - 10) / (12 - 9)


def test_too_few_photographs_are_said(module, folder, capsys):
    assert module.main(["--images", str(folder), "--count", "9", "--only", "costs"]) == 2
    assert "has 4 photographs; give more, or a smaller --count" in capsys.readouterr().err
