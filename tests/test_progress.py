"""Progress with and without tqdm."""

import sys

import pytest

from hassod_ros import progress as module
from hassod_ros.progress import progress, say


@pytest.mark.parametrize("installed", [True, False])
def test_items_pass_and_the_last_one_is_told(installed, monkeypatch, capsys):
    if not installed:
        monkeypatch.setitem(sys.modules, "tqdm", None)
    found = []
    for item in progress("abc", total=3, unit="image"):
        found.append(item)
        say(f"about {item}")
    assert found == ["a", "b", "c"]
    lines = capsys.readouterr().err
    assert "about b" in lines
    assert ("3/3" if installed else "3 of 3 images") in lines


def test_without_a_total_lines_come_as_time_passes(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    clock = iter([0.0, 1.0, 2.5, 3.0, 4.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    assert list(progress(range(3), total=None, unit="image")) == [0, 1, 2]
    assert capsys.readouterr().err == "2 images, 0.8 a second\n3 images, 0.8 a second\n"
