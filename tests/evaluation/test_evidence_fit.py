"""Constants of evidence, fitted to made-up masks whose cues are known, and to pictures through a real ONNX file."""

import dataclasses

import numpy as np
import pytest

from hassod_ros.evaluation.evidence_fit import Examples, fit
from hassod_ros.runtime.evidence import CUES, MODELS, Evidence

NOTHING = Evidence.from_mapping(dict.fromkeys(MODELS, (0.0,) * (len(CUES) + 1)))
AREA, CONTRAST, STRADDLE, SHARP = (CUES.index(name) for name in ("area", "contrast", "straddle", "sharp"))


def examples(seed: int, count: int = 3000) -> Examples:
    """Things have contrast, scene straddles; a mask of much contrast has parents of much sharpness, and no others."""
    rng = np.random.default_rng(seed)
    cues = rng.normal(size=(count, len(CUES))).astype(np.float32)
    cues[:, AREA] = np.log(rng.uniform(0.01, 0.5, count))
    thing = rng.random(count) < 1 / (1 + np.exp(-(2 * cues[:, CONTRAST] - 1)))
    scene = ~thing & (cues[:, STRADDLE] > 0.5)
    pairs = rng.integers(0, count, (2000, 2))
    part = cues[pairs[:, 0], CONTRAST] > 0
    related = part & (cues[pairs[:, 1], SHARP] > 0)
    return Examples(
        cues,
        thing.astype(np.int8),
        thing.astype(np.float32),
        scene.astype(np.int8),
        pairs,
        related,
        ~part,
        np.full(2000, 1 / 2000),
        np.zeros(2, int),
    )


def test_what_made_the_examples_is_found_again():
    found, said = fit([examples(0)], NOTHING, strength=100)
    thing = np.array(found.thing)
    assert abs(thing[CONTRAST] - 2) < 0.2
    assert abs(thing[-1] + 1) < 0.2
    others = [i for i in range(len(CUES)) if i not in (CONTRAST, AREA)]
    assert np.abs(thing[others]).max() < 0.2
    assert "fitted to" in said["thing"]
    assert found.scene[STRADDLE] > 1
    assert found.parent[SHARP] > 1
    assert found.child[CONTRAST] > 1
    assert found.child[-1] == 0
    alone, said = fit([examples(0)], NOTHING, only=["scene"], strength=100)
    assert alone == dataclasses.replace(NOTHING, scene=found.scene)
    assert list(said) == ["scene"]
    assert (found.scene_area, found.same) == (NOTHING.scene_area, NOTHING.same)


def test_scores_mean_what_they_say_on_other_examples():
    found, _ = fit([examples(0)], NOTHING)
    other = examples(1)
    judged = found.judge(other.cues)
    free = ~judged.scene
    for low in (0.0, 0.25, 0.5, 0.75):
        rows = free & (judged.scores >= low) & (judged.scores < low + 0.25)
        assert abs(judged.scores[rows].mean() - other.thing[rows].mean()) < 0.06


def test_few_things_are_lost_to_the_scene():
    mixed = examples(0)
    mixed = dataclasses.replace(mixed, scene=(mixed.cues[:, STRADDLE] > 0.5).astype(np.int8))  # many things straddle
    found, _ = fit([mixed], NOTHING)
    large = np.exp(mixed.cues[:, AREA]) > NOTHING.scene_area
    things = (mixed.thing > 0) & large
    lost = found.judge(mixed.cues).scene[things].mean()
    assert 0.03 < lost <= 0.051


@pytest.mark.parametrize("share", [0.6, 0.9])
def test_as_many_parts_hang_on_something_as_are_asked_for(share):
    sets = [examples(0), examples(1)]
    found, _ = fit(sets, NOTHING, parts_right=share)
    hanging = []
    for each in sets:
        parent = each.cues[each.pairs[:, 1]] @ np.array(found.parent[:-1])
        odds = parent + each.cues[each.pairs[:, 0]] @ np.array(found.child[:-1]) + found.parent[-1]
        best = np.full(len(each.cues), -np.inf)
        np.maximum.at(best, each.pairs[:, 0], odds)
        hanging.append((best[np.unique(each.pairs[~each.whole, 0])] > 0).mean())
    assert share - 0.01 <= np.mean(hanging) < share + 0.05


def test_what_too_few_examples_tell_is_kept():
    start = dataclasses.replace(NOTHING, scene=(1.0,) * (len(CUES) + 1))
    plain = examples(0)
    found, said = fit([dataclasses.replace(plain, scene=np.full(len(plain.scene), -1, np.int8))], start)
    assert found.scene == start.scene
    assert said["scene"].startswith("kept: 0 examples and 0 of the contrary are too few, 50")
