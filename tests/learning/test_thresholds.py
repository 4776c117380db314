import numpy as np
import pytest

from hassod_ros.learning.thresholds import SizeThresholds

AREAS = np.array([100, 500, 5000, 90_000])


def test_all_sizes_start_alike_within_the_bounds():
    assert SizeThresholds(0.9, (0.3, 0.7)).of(AREAS).tolist() == pytest.approx([0.7] * 4)


def test_each_size_follows_the_quantile_of_its_own_scores():
    thresholds = SizeThresholds(0.5, (0.2, 0.9))
    scores = np.array([0.3, 0.5, 0.8, 0.95], np.float32)
    wanted = {"small": 0.4, "medium": 0.8, "large": 0.9}  # medians; the last one is cut off
    at = dict.fromkeys(wanted, 0.5)
    for _ in range(7):
        thresholds.observe(AREAS, scores)
        at = {name: 0.95 * value + 0.05 * wanted[name] for name, value in at.items()}
    figures = {name.removeprefix("threshold_"): value for name, value in thresholds.figures().items()}
    assert figures == pytest.approx(at)
    assert thresholds.of(AREAS).tolist() == pytest.approx([at["small"], at["small"], at["medium"], at["large"]])


def test_a_picture_without_a_size_leaves_its_threshold():
    thresholds = SizeThresholds(0.5, (0.3, 0.7))
    thresholds.observe(AREAS[:0], np.zeros(0, np.float32))
    thresholds.observe(AREAS[:2], np.array([0.35, 0.35], np.float32))
    assert thresholds.values[1:].tolist() == [0.5, 0.5]
    assert thresholds.values[0] < 0.5


def test_the_state_is_part_of_a_checkpoint():
    first, second = (SizeThresholds(0.5, (0.3, 0.7)) for _ in range(2))
    first.observe(AREAS, np.full(4, 0.31, np.float32))
    second.load_state_dict(first.state_dict())
    assert second.figures() == first.figures()
