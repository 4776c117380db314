import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import cv2
import numpy as np
import pytest
from scipy.stats import t as student

from hassod_ros.errors import InputError
from hassod_ros.inspection import reference as module
from hassod_ros.inspection.band import odd, usual_limit
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.reference import KEY, SCHEMA, learn, load, save
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Result
from tests.inspection.parts import PIECES, SIZE, observe, part, taken


def test_a_saved_reference_judges_alike(reference, tmp_path):
    save(reference, tmp_path / "plate.npz")
    again = load(tmp_path / "plate.npz")
    for picture in (taken(part(), 40), part(blue=None)):
        before, after = (Inspector(each, observe)(picture) for each in (reference, again))
        assert (before.result, before.score, before.findings) == (after.result, after.score, after.findings)
    assert again.limits(1.5) == reference.limits(1.5)
    assert again.settings == reference.settings


def test_the_pictures_are_kept_to_the_bit(reference, good, tmp_path):
    save(reference, tmp_path / "plate.npz")
    for kept, given in zip(load(tmp_path / "plate.npz").pictures, good, strict=True):
        np.testing.assert_array_equal(kept, given)


def test_the_reference_picture_is_the_one_most_like_the_others(good, teach):
    blurred = cv2.GaussianBlur(taken(part(), 90), (0, 0), 2.5)
    found = teach([blurred, *good])
    assert min(np.abs(found.ideal.astype(int) - each).mean() for each in good) == 0


def test_a_good_picture_that_is_none_is_named(good):
    names = [f"{i}.png" for i in range(5)] + ["strange.png"]
    found = learn(
        [*good, taken(part(green=None), 91)],
        Settings(),
        name="plate",
        names=names,
        observe=observe,
        model_sha256="a" * 64,
    )
    assert "strange.png" in found.disagree


def test_what_is_odd_sets_no_limit():
    scores = np.array([1.0, 1.2, 0.9, 1.1, 9.0], np.float32)
    assert odd(scores).tolist() == [False, False, False, False, True]
    assert usual_limit(scores, 1.5) == pytest.approx(1.2 * 1.5)


@pytest.mark.parametrize(("value", "freedom"), [(0.0, 4), (1.3, 4), (2.5, 2), (-1.0, 7)])
def test_the_chance_beyond_a_limit_is_students(value, freedom):
    assert module._student_tail(value, freedom) == pytest.approx(student.sf(value, freedom), abs=1e-5)


@pytest.mark.parametrize("odd_ones", [(), ("picture 3",), ("picture 1", "picture 3")])
def test_the_stated_rate_falls_with_the_margin_and_counts_what_sets_no_limit(reference, odd_ones):
    found = replace(reference, disagree=odd_ones)
    sure, likely = found.false_alarm_rate(1.5)
    assert sure == pytest.approx((1 + len(odd_ones)) / 6)
    assert 0 <= found.false_alarm_rate(3.0)[1] <= likely <= found.false_alarm_rate(1.0)[1] <= sure


def test_a_copy_counts_once(good, reference):
    said = []
    names = list("abcdef")
    found = learn([*good, good[1]], Settings(), name="plate", names=names, report=said.append)
    assert found.names == tuple(names[:-1])
    assert "f is the same as b; it counts once" in said


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda good: good[:2], "2 good pictures are too few .* at least 3"),
        (lambda good: [good[0], good[1], good[0], good[1].copy()], "2 good pictures are too few .* 3 that differ"),
        (lambda good: [*good[:3], good[3][:200]], "d is 320 x 200, a is 320 x 240"),
        (lambda good: [*good[:3], np.zeros((*SIZE, 3), np.uint8)], "d is blank"),
        (lambda good: [*good[:3], good[3][..., 0]], "d is no uint8 colour picture"),
        (
            lambda good: [
                *good[:3],
                cv2.GaussianBlur(np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8), (0, 0), 4),
            ],
            "d cannot be laid over",
        ),
    ],
    ids=["too few", "copies", "another size", "black", "grey", "another product"],
)
def test_pictures_that_cannot_be_learned_from(good, change, words):
    pictures = change(good)
    with pytest.raises(InputError, match=words):
        learn(pictures, Settings(), name="plate", names=list("abcdef")[: len(pictures)])


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:5000]), "damaged or is no reference"),
        (lambda path: path.write_bytes(b"anything"), "damaged or is no reference"),
        (lambda path: path.write_bytes(b""), "damaged or is no reference"),
        (lambda path: np.savez(path, values=np.arange(3)), "is no reference of an inspection"),
        (lambda path: np.savez(path, values=np.array([{}], object)), "damaged or is no reference"),
        (lambda path: path.unlink(), "does not exist"),
    ],
    ids=["cut", "text", "empty", "foreign", "pickled", "missing"],
)
def test_files_that_are_no_reference(reference, tmp_path, damage, words):
    path = tmp_path / "plate.npz"
    save(reference, path)
    damage(path)
    with pytest.raises(InputError, match=words):
        load(path)


@pytest.mark.parametrize("change", [{"schema": 99}, {"components": [{}]}, {"settings": {"roi": None}}])
def test_records_that_cannot_be(reference, tmp_path, change):
    path = tmp_path / "plate.npz"
    save(reference, path)
    with np.load(path) as file:
        arrays = dict(file)
    record = json.loads(arrays[KEY].tobytes()) | change
    arrays[KEY] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    np.savez(path, **arrays)
    with pytest.raises(
        InputError, match=f"schema 99, this version reads {SCHEMA}" if "schema" in change else "is damaged"
    ):
        load(path)


def test_a_killed_learner_leaves_the_old_file(reference, tmp_path):
    path = tmp_path / "plate.npz"
    save(reference, path)
    before = path.read_bytes()
    code = f"""
import sys
from hassod_ros.inspection.reference import load, save
reference = load({str(path)!r})
while True:
    print("saving", flush=True)
    save(reference, {str(path)!r})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        time.sleep(0.05)
        os.kill(child.pid, signal.SIGKILL)
    assert load(path).names == reference.names
    assert len(path.read_bytes()) == len(before)


def test_a_texture_needs_no_alignment(teach):
    def surface(seed, spot=False):
        rng = np.random.default_rng(seed)
        grain = cv2.GaussianBlur(rng.normal(0, 60, SIZE), (0, 0), 1.5) + 128
        picture = np.repeat(np.clip(grain, 0, 255).astype(np.uint8)[..., None], 3, axis=2)
        if spot:
            cv2.circle(picture, (200, 90), 12, (20, 20, 20), -1)
        return picture

    inspector = Inspector(teach([surface(i) for i in range(5)], method="texture"), observe)
    assert inspector(surface(10)).result == Result.OK
    verdict = inspector(surface(11, spot=True))
    assert verdict.result == Result.NG
    x0, y0, x1, y1 = verdict.findings[0].box
    assert x0 < 200 < x1
    assert y0 < 90 < y1


def test_learning_again_with_more_pictures_widens_what_is_good(teach, good):
    worn = part(red={"colour": (150, 60, 60)})
    assert Inspector(teach(good), observe)(worn).result == Result.NG
    more = teach([*good, *(taken(worn, seed) for seed in (50, 51, 52))])
    assert Inspector(more, observe)(worn).result == Result.OK
    assert len(PIECES) == len(more.components)
