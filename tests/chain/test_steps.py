"""Steps that are done once."""

import dataclasses
import json
from pathlib import Path

import pytest

from hassod_ros import files
from hassod_ros.chain.steps import Step, machine, run_steps
from hassod_ros.errors import InputError


@pytest.fixture
def make(tmp_path):
    """Two steps, the second of which copies the first's file; `log` tells what ran."""
    log: list[str] = []

    def steps(first: int = 1, second: int = 1) -> list[Step]:
        def write(folder: Path) -> None:
            log.append("a")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "out").write_text(str(first))

        def copy(folder: Path) -> None:
            log.append("b")
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "out").write_text(a.path("out").read_text() * second)

        a = Step("a", "writes", tmp_path, {"first": first}, (), ("out",), write)
        return [a, Step("b", "copies", tmp_path, {"second": second}, (a,), ("out",), copy)]

    return steps, log


def test_steps_are_done_once(make):
    steps, log = make
    said: list[str] = []
    run_steps(steps(), until="b", say=said.append)
    assert said[:2] == ["a  to do     writes", "b  to do     copies"]
    assert log == ["a", "b"]
    said.clear()
    run_steps(steps(), until="b", say=said.append)
    assert said == ["a  done      writes", "b  done      copies"]
    assert log == ["a", "b"]


def test_a_change_reaches_all_that_depends_on_it_and_overwrites_nothing(make):
    steps, log = make
    old = steps()
    run_steps(old, until="b", say=len)
    run_steps(steps(second=2), until="b", say=len)
    assert log == ["a", "b", "b"]
    new = steps(first=3)
    run_steps(new, until="b", say=len)
    assert log == ["a", "b", "b", "a", "b"]
    assert [step.path("out").read_text() for step in (*old, *new)] == ["1", "1", "3", "3"]
    run_steps(steps(), until="b", say=len)  # back to the first values: all is there
    assert len(log) == 5


def test_a_lost_file_is_made_again(make):
    steps, log = make
    run_steps(steps(), until="b", say=len)
    steps()[1].path("out").unlink()
    said: list[str] = []
    run_steps(steps(), until="b", say=said.append)
    assert said[1] == "b  continue  copies"
    assert log == ["a", "b", "b"]


def test_records_tell_how_a_step_was_made(make):
    steps, _ = make
    a, b = steps()
    run_steps([a, b], until="a", say=len)
    assert not b.folder.exists()
    run_steps([a, b], until="b", say=len)
    record = json.loads((b.folder / "step.json").read_text())
    assert (record["settings"], record["needs"], record["continued"]) == ({"second": 1}, {"a": a.key}, False)
    assert record["machine"] == machine()
    assert list(record["outputs"]) == ["out"]


def test_two_runs_do_not_write_the_same_files(make, monkeypatch):
    monkeypatch.setattr(files, "_END_LIMIT", 0.2)
    steps, log = make
    a, b = steps()

    def second_run(folder: Path) -> None:
        with pytest.raises(InputError, match=r"another run writes .* at this moment; wait for its end"):
            run_steps([a], until="a", say=len)
        a.run(folder)

    run_steps([dataclasses.replace(a, run=second_run), b], until="b", say=len)
    assert log == ["a", "b"]
    run_steps(steps(), until="b", say=len)  # all is done: it may be said meanwhile


def test_errors(make):
    steps, log = make
    with pytest.raises(InputError, match="there is no step 'c'; choose one of a, b"):
        run_steps(steps(), until="c")
    a, b = steps()

    def fail(folder: Path) -> None:
        raise InputError("no")

    with pytest.raises(InputError, match="no"):
        run_steps([a, dataclasses.replace(b, run=fail)], until="b", say=len)
    with pytest.raises(RuntimeError, match="step b ended without out"):
        run_steps([a, dataclasses.replace(b, run=len_of_nothing)], until="b", say=len)
    assert log == ["a"]


def len_of_nothing(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
