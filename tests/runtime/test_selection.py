import numpy as np
import pytest

from hassod_ros.instances import Instances, Level
from hassod_ros.runtime.postprocess import PostprocessOptions
from hassod_ros.runtime.selection import Selection

OWN = PostprocessOptions(score_thresholds=(0.5, 0.4, 0.3), parent_coverage=0.6, color_weight=1.0)


@pytest.fixture
def found() -> Instances:
    """A whole with a part with a subpart, another whole, and a wall."""
    masks = np.ones((5, 4, 4), bool)
    return Instances.from_dense(
        masks,
        image_size=(4, 4),
        levels=np.array([0, 1, 2, 0, 0]),
        parents=np.array([-1, 0, 1, -1, -1]),
        scores=np.array([0.5, 0.9, 0.8, 0.7, 0.95]),
        scene=np.array([False, False, False, False, True]),
    )


@pytest.mark.parametrize(
    ("wanted", "scores", "parents"),
    [
        ({}, [0.95, 0.9, 0.8, 0.7, 0.5], [-1, 4, 1, -1, -1]),
        ({"scene": False}, [0.9, 0.8, 0.7, 0.5], [3, 0, -1, -1]),
        ({"scene": False, "max_instances": 2}, [0.9, 0.8], [-1, 0]),
        ({"levels": (Level.WHOLE, Level.SUBPART)}, [0.95, 0.8, 0.7, 0.5], [-1, 3, -1, -1]),
        ({"score_thresholds": (0.6, None, 0.85)}, [0.95, 0.9, 0.7], [-1, -1, -1]),
        ({"score_thresholds": (0.0, 0.0, 0.0), "levels": ()}, [], []),
    ],
)
def test_what_is_left_over_comes_by_descending_score(found, wanted, scores, parents):
    left = Selection(**wanted).apply(found)
    np.testing.assert_allclose(left.scores, scores)
    assert left.parents.tolist() == parents


def test_thresholds_replace_the_models_own_upwards_downwards_and_by_nothing_at_all():
    wanted = Selection(score_thresholds=(0.0, 0.9, None))
    assert wanted.options(OWN).score_thresholds == (0.0, 0.9, 0.3)
    assert wanted.thresholds(None) == (0.0, 0.9, 0.0)
    assert Selection().options(OWN) == OWN


def test_the_coverage_of_a_parent_replaces_the_models_own():
    assert Selection(parent_coverage=0.9).options(OWN).parent_coverage == 0.9


def test_masks_that_cannot_be_among_the_best_are_not_drawn():
    assert Selection(max_instances=100).options(OWN).max_instances == 100
    assert 100 < Selection(max_instances=100, scene=False).options(OWN).max_instances < 200
    assert Selection(max_instances=100, levels=(Level.PART,)).options(OWN).max_instances == OWN.max_instances
