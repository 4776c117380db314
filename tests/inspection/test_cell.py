import threading

import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.inspection import store
from hassod_ros.inspection.align import Alignment
from hassod_ros.inspection.cell import Cell, Recent
from hassod_ros.inspection.light import Light
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.store import Store
from hassod_ros.inspection.verdict import Result, Verdict
from tests.inspection.parts import observe, part, taken


@pytest.fixture
def cell(tmp_path, good):
    cell = Cell(Store(tmp_path), Settings())
    cell.set_model(observe, "a" * 64)
    cell.learn("plate", good, ["a", "b", "c", "d", "e"], append=False)
    return cell


def test_without_a_reference_nothing_is_ok(tmp_path):
    verdict, stored = Cell(Store(tmp_path), Settings()).inspect(part())
    assert (verdict.result, stored) == (Result.UNDECIDED, None)
    assert "teach" in verdict.sentence


def test_a_picture_that_is_added_makes_a_version_and_going_back_is_one_call(cell, good):
    added = cell.learn("plate", [taken(part(), 60)], ["f"], append=True)
    assert (added.version, len(added.reference.pictures)) == (2, 6)
    back = cell.load("", -1)
    assert (back.version, len(back.reference.pictures)) == (1, 5)
    assert cell.inspect(part())[1].version == 1
    with pytest.raises(InputError, match="no version of plate before 1"):
        cell.load("", -1)
    assert cell.stored.version == 1


def test_a_picture_that_is_added_leaves_what_the_reference_is(cell):
    cell.set_settings(Settings(method="texture"))
    added = cell.learn("plate", [taken(part(), 60)], ["f"], append=True)
    assert added.reference.settings.method == "aligned"


def test_a_reference_is_used_from_a_folder_that_can_only_be_read(cell, tmp_path, monkeypatch):
    def refuse(path, value):
        raise InputError(f"cannot write {path}: Read-only file system")

    monkeypatch.setattr(store, "write_json", refuse)
    told = []
    other = Cell(Store(tmp_path), Settings(), told.append)
    other.set_model(observe, "a" * 64)
    assert other.load("plate").version == 1
    assert other.inspect(part())[0].result == Result.OK
    (line,) = told
    assert line.startswith("plate is in use, but not noted for the next start: cannot write ")


def test_pictures_that_cannot_be_learned_from_leave_the_reference(cell):
    with pytest.raises(InputError, match="too few"):
        cell.learn("plate", [part()], ["a"], append=False)
    assert cell.stored.version == 1
    assert cell.inspect(part())[0].result == Result.OK


def test_after_a_change_of_the_model_nothing_is_ok_until_it_is_learned_anew(cell):
    begun, go_on = threading.Event(), threading.Event()

    def slow(picture):
        begun.set()
        assert go_on.wait(30)
        return observe(picture)

    thread = threading.Thread(target=cell.set_model, args=(slow, "b" * 64))
    thread.start()
    assert begun.wait(30)
    assert cell.inspect(part())[0].result == Result.UNDECIDED
    go_on.set()
    thread.join()
    verdict, stored = cell.inspect(part())
    assert verdict.result == Result.OK
    assert (stored.version, stored.reference.model_sha256) == (2, "b" * 64)


def test_limits_may_be_changed_while_it_runs(cell):
    worn = part(red={"colour": (190, 55, 50)})
    cell.set_settings(Settings(margin=20.0))
    loose = cell.inspect(worn)[0].score
    cell.set_settings(Settings(margin=1.0))
    assert cell.inspect(worn)[0].score > 3 * loose


def seen(x, y, light=1.0):
    alignment = Alignment(np.eye(2, 3), (x, y), 0.0, 1.0, 1.0, 1.0, 50)
    return Verdict(Result.OK, "", alignment=alignment, light=Light(np.zeros((3, 3)), np.zeros((3, 3)), light))


def test_parts_that_all_lie_off_in_the_same_way_mean_a_moved_camera():
    recent, rng = Recent(), np.random.default_rng(0)
    for _ in range(19):
        recent.add(seen(14 + rng.normal(), -9 + rng.normal(), light=3.0))
    assert recent.camera_moved(10) == 0
    recent.add(seen(14, -9, light=3.0))
    assert recent.camera_moved(10) == pytest.approx(np.hypot(14, 9), abs=1)
    assert recent.light == 3
    assert recent.counts["ok"] == 20


def test_parts_that_lie_anywhere_do_not():
    recent, rng = Recent(), np.random.default_rng(0)
    for _ in range(30):
        recent.add(seen(*rng.uniform(-40, 40, 2)))
    assert recent.camera_moved(10) == 0
