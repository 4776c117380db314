import math

import numpy as np
import pytest

from hassod_ros.runtime.evidence import CUES, MODELS, Evidence, find_cues
from hassod_ros.runtime.postprocess import PostprocessOptions, RawDetections, to_instances
from hassod_ros.runtime.preprocess import Letterbox

SIDE = 28


def constants(**weights: dict[str, float]) -> Evidence:
    """Evidence with the named weights; `bias` is the last one."""
    return Evidence(**{name: tuple(weights.get(name, {}).get(cue, 0.0) for cue in (*CUES, "bias")) for name in MODELS})


@pytest.fixture
def picture():
    """A red square of 80 px on grey, 160 x 240, with a blue band along the lower border."""
    image = np.full((160, 240, 3), 110, np.uint8)
    image[40:120, 80:160] = (200, 30, 30)
    image[140:] = (20, 40, 190)
    return image


def cues_of(picture, boxes, maps=None, scores=None):
    boxes = np.asarray(boxes, np.float32)
    maps = np.full((len(boxes), SIDE, SIDE), 0.8, np.float32) if maps is None else np.asarray(maps, np.float32)
    scores = np.full(len(boxes), 0.5, np.float32) if scores is None else np.asarray(scores)
    found = find_cues(maps, boxes, scores, picture, 0.3)
    assert found.dtype == np.float32
    return dict(zip(CUES, found.T, strict=True))


def test_an_outline_on_an_edge_has_contrast_one_on_a_flat_wall_has_none(picture):
    found = cues_of(picture, [(80, 40, 160, 120), (10, 10, 60, 60)])
    assert found["contrast"][0] > 0.95
    assert found["faint"][0] == 0
    assert found["contrast"][1] == 0
    assert found["faint"][1] == 1


def test_colours_on_both_sides_straddle(picture):
    # All of the square and its surroundings; then half of it, whose other half is beside the mask.
    half = np.zeros((SIDE, SIDE))
    half[:, : SIDE // 2] = 0.8
    found = cues_of(picture, [(80, 40, 160, 120)] * 2, [np.full((SIDE, SIDE), 0.8), half])
    assert found["straddle"][0] < 0.05
    assert found["straddle"][1] > 0.8


def test_border_cut_area_and_sharpness_by_hand(picture):
    whole_band, square = (0, 140, 240, 160), (80, 40, 160, 120)
    found = cues_of(picture, [whole_band, square], scores=[0.9, 0.5])
    np.testing.assert_allclose(found["area"], np.log([240 * 20 / (160 * 240), 80 * 80 / (160 * 240)]), atol=1e-4)
    # 240 px below, 20 px (less where a cell is off the strip) on either side.
    np.testing.assert_allclose(found["border"], [(240 + 2 * 20) / math.sqrt(240 * 20), 0], rtol=0.01)
    np.testing.assert_allclose(found["cut"], [1, 1])  # the band by its upper side
    np.testing.assert_allclose(found["sharp"], 0.8, atol=1e-6)
    np.testing.assert_allclose(found["odds"], [math.log(9), 0], atol=1e-5)
    disc = np.hypot(*(np.mgrid[:SIDE, :SIDE] - 13.5)) < 13.9
    assert cues_of(picture, [square], [disc * 0.8])["cut"][0] < 0.4
    assert cues_of(picture, [(0, 0, 240, 160)])["cut"][0] == 0  # cut by the picture only


def test_what_lies_inside_is_counted_by_masks_not_boxes(picture):
    ring = np.ones((SIDE, SIDE))
    ring[6:22, 6:22] = 0
    middle, corner = (110, 70, 130, 90), (80, 40, 90, 50)
    found = cues_of(
        picture, [(80, 40, 160, 120)] * 2 + [middle, corner], [np.ones((SIDE, SIDE)), ring, *np.ones((2, SIDE, SIDE))]
    )
    np.testing.assert_allclose(found["inside"], [2 / 3, 1 / 3, 0, 0])


def test_a_blank_picture_has_no_contrast_even_where_noise_is_its_strongest_step():
    noise = np.random.default_rng(0).integers(126, 130, (120, 160, 3)).astype(np.uint8)
    found = cues_of(noise, [(20, 20, 100, 90)])
    assert found["contrast"][0] < 0.5
    assert np.isfinite(list(found.values())).all()


def test_nothing_and_an_empty_mask(picture):
    assert find_cues(
        np.zeros((0, SIDE, SIDE), np.float32), np.zeros((0, 4), np.float32), np.zeros(0), picture, 0.5
    ).shape == (
        0,
        len(CUES),
    )
    found = cues_of(picture, [(1, 1, 9, 9), (80, 40, 160, 120)], [np.zeros((SIDE, SIDE)), np.ones((SIDE, SIDE))])
    assert np.isfinite(list(found.values())).all()


def test_judgement_by_hand():
    evidence = constants(
        thing={"odds": 1.0, "bias": -1.0},
        scene={"border": 2.0, "bias": -1.0},
        parent={"odds": 1.0},
        child={"odds": -1.0},
    )
    cues = np.zeros((3, len(CUES)), np.float32)
    cues[:, CUES.index("odds")] = 2, 1, 3
    cues[:, CUES.index("border")] = 0, 0, 1
    cues[:, CUES.index("area")] = np.log([0.1, 0.1, 0.5])
    judged = evidence.judge(cues)
    np.testing.assert_allclose(judged.scores, 1 / (1 + np.exp(-np.array([1, 0, 1]))), rtol=1e-6)  # the last as a scene
    assert judged.scene.tolist() == [False, False, True]
    assert judged.allowed.tolist() == [[False, False, False], [True, False, False], [False, False, False]]
    cues[2, CUES.index("area")] = math.log(0.02)
    assert not evidence.judge(cues).scene.any()  # too small for a scene
    chosen = judged.select(np.array([1, 0]))
    assert chosen.allowed.tolist() == [[False, True], [False, False]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thing": (1.0,)}, "evidence.thing must be 10 numbers"),
        ({"scene": (math.nan,) * 10}, "evidence.scene must be 10 numbers"),
        ({"parent": ()}, "evidence.parent must be 10 numbers"),
        ({"scene_area": 1.0}, "scene_area"),
        ({"same": 0.0}, "same"),
    ],
)
def test_wrong_constants_are_refused(changes, message):
    values = {"thing": (0.0,) * 10, "scene": (0.0,) * 10, "parent": (0.0,) * 10, "child": (0.0,) * 10}
    with pytest.raises(ValueError, match=message):
        Evidence(**(values | changes))


def test_scores_scene_and_parents_of_an_image_follow_evidence(picture):
    boxes = np.array([(0, 0, 240, 160), (80, 40, 160, 120), (90, 50, 120, 80)], np.float32)
    raw = RawDetections(
        boxes=boxes[None],
        scores=np.array([[0.9, 0.6, 0.8]], np.float32),
        level_probabilities=np.eye(3, dtype=np.float32)[[2, 1, 0]][None],
        masks=np.ones((1, 3, SIDE, SIDE), np.float32),
        count=np.array([3], np.int32),
        converged=np.ones(1, bool),
    )
    evidence = constants(
        thing={"contrast": 4.0, "bias": -2.0}, scene={"border": 1.0, "bias": -1.0}, parent={"bias": 1.0}
    )
    placed = Letterbox.fit((160, 240), (160, 240))
    options = PostprocessOptions(
        score_thresholds=(0.3,) * 3,
        level_source="coverage",
        parent_coverage=0.75,
        evidence=evidence,
        mask_threshold=0.3,
    )
    plain = to_instances(raw, 0, placed, PostprocessOptions(score_thresholds=(0.3,) * 3, level_source="coverage"))
    assert plain.parents.tolist() == [-1, 2, 0]  # everything hangs on the frame
    found = to_instances(raw, 0, placed, options, picture)
    # The whole frame is scene and comes first by its own probability; the square is a whole; the patch inside it, of no
    # contrast, has a score below the threshold.
    assert found.scene.tolist() == [True, False]
    assert found.boxes.tolist() == [[0, 0, 240, 160], [80, 40, 160, 120]]
    assert found.parents.tolist() == [-1, -1]
    assert found.levels.tolist() == [0, 0]
    assert found.scores[1] > 0.8
    low = PostprocessOptions(
        score_thresholds=(0.0,) * 3, level_source="coverage", evidence=evidence, mask_threshold=0.3
    )
    patch = to_instances(raw, 0, placed, low, picture)
    assert patch.parents.tolist() == [-1, -1, 1]
    assert len(to_instances(raw, 0, placed, PostprocessOptions(max_instances=1, evidence=evidence), picture)) <= 1
    with pytest.raises(ValueError, match="evidence needs the pixels"):
        to_instances(raw, 0, placed, options)
