import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.evaluation.saliency import f_curve, s_measure, score_map, score_maps


def blobs(seed: int, shape: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    """A map and a mask that have something to do with each other."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]
    cy, cx = rng.uniform(8, shape[0] - 8), rng.uniform(8, shape[1] - 8)
    truth = (y - cy) ** 2 + (x - cx) ** 2 < rng.uniform(30, 200)
    found = np.clip(np.exp(-((y - cy - 3) ** 2 + (x - cx + 2) ** 2) / 150) + rng.normal(0, 0.1, shape), 0, 1)
    return np.round(found * 255) / 255, truth


def test_a_case_by_hand():
    found = np.array([[1.0, 0.6], [0.4, 0.0]])
    truth = np.array([[True, False], [True, False]])
    scores = score_map(found, truth)
    # At 0.5 the upper row is chosen: one hit, one miss, one false alarm.
    assert scores["IoU"] == pytest.approx(1 / 3)
    assert scores["accuracy"] == 0.5
    assert scores["MAE"] == pytest.approx((0 + 0.6 + 0.6 + 0) / 4)
    curve = scores["F"]
    assert curve[0] == pytest.approx(1.3 * 0.5 * 1 / (0.3 * 0.5 + 1))  # all four
    assert curve[255] == pytest.approx(1.3 * 1 * 0.5 / (0.3 * 1 + 0.5))  # the brightest
    assert curve[100] == pytest.approx(1.3 * (2 / 3) * 1 / (0.3 * 2 / 3 + 1))  # the three from 0.392 on
    assert score_maps([(found, truth)])["maxF"] == pytest.approx(1.3 * 0.5 / 0.8)


def test_perfect_and_inverted_maps():
    _, truth = blobs(0)
    perfect, wrong = (score_maps([(each.astype(float), truth)]) for each in (truth, ~truth))
    assert [perfect[name] for name in ("maxF", "IoU", "accuracy", "MAE")] == [1, 1, 1, 0]
    assert perfect["S"] == pytest.approx(1, abs=1e-6)
    assert (wrong["IoU"], wrong["accuracy"], wrong["MAE"]) == (0, 0, 1)
    assert wrong["S"] < 0.1


def test_measures_are_those_of_pysodmetrics():
    """Of these twelve maps, by py_sod_metrics 1.6.2 (Fmeasure, MAE, Smeasure), which asks for an older NumPy."""
    pairs = [blobs(seed) for seed in range(12)]
    # The library stretches each map to 0..1 before it measures.
    stretched = [((found - found.min()) / (found.max() - found.min()), truth) for found, truth in pairs]
    ours = score_maps(stretched)
    assert ours["maxF"] == pytest.approx(0.7498953931, abs=2e-3)  # its thresholds lie between the steps
    assert ours["MAE"] == pytest.approx(0.1615045810, abs=1e-6)
    assert ours["S"] == pytest.approx(0.7405494686, abs=1e-6)


def test_a_mask_that_is_empty_or_full_counts_the_mean():
    found = np.full((4, 4), 0.25)
    assert s_measure(found, np.zeros((4, 4), bool)) == pytest.approx(0.75)
    assert s_measure(found, np.ones((4, 4), bool)) == pytest.approx(0.25)
    assert f_curve(found, np.zeros((4, 4), bool)).max() == 0


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (np.zeros((3, 4)), "does not fit a mask"),
        (np.full((4, 4), np.nan), "values from 0 to 1"),
        (np.full((4, 4), 2.0), "values from 0 to 1"),
    ],
)
def test_bad_maps_are_named(found, message):
    with pytest.raises(InputError, match=message):
        score_map(found, np.ones((4, 4), bool))


def test_no_image():
    with pytest.raises(InputError, match="no image to score"):
        score_maps([])
