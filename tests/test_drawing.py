import colorsys
import subprocess
import sys
from itertools import pairwise

import numpy as np
import pytest

from hassod_ros.drawing import colours, draw, side_by_side
from hassod_ros.instances import Instances, Level


@pytest.fixture
def scene() -> Instances:
    """A whole with two parts, one of which has a subpart, and another whole."""
    masks = np.zeros((5, 40, 60), bool)
    masks[0, 5:35, 5:35] = True
    masks[1, 6:18, 6:34] = True
    masks[2, 20:34, 6:34] = True
    masks[3, 22:30, 10:20] = True
    masks[4, 10:30, 40:55] = True
    return Instances.from_dense(
        masks, image_size=(40, 60), levels=np.array([0, 1, 1, 2, 0]), parents=np.array([-1, 0, 0, 2, -1])
    )


def hues(rgb: np.ndarray) -> np.ndarray:
    return np.array([colorsys.rgb_to_hsv(*(colour / 255))[0] for colour in rgb])


def apart(a: float, b: float) -> float:
    return min(abs(a - b), 1 - abs(a - b))


def test_parts_are_shades_of_their_whole(scene):
    rgb = colours(scene)
    hue = hues(rgb)
    assert len({tuple(colour) for colour in rgb.tolist()}) == 5
    assert max(apart(hue[i], hue[0]) for i in (1, 2, 3)) < 0.06
    assert apart(hue[4], hue[0]) > 0.2


def test_many_wholes_stay_distinct():
    masks = np.ones((60, 1, 1), bool)
    rgb = colours(Instances.from_dense(masks, image_size=(1, 1))).astype(int)
    assert len(np.unique(rgb, axis=0)) == 60


def test_colours_follow_ids_not_the_order(scene):
    tracked = Instances(
        image_size=scene.image_size,
        boxes=scene.boxes,
        masks=scene.masks,
        levels=scene.levels,
        parents=scene.parents,
        ids=np.array([7, 3, 900, 12, 4]),
    )
    order = np.array([4, 2, 0, 3, 1])
    np.testing.assert_array_equal(colours(tracked.select(order)), colours(tracked)[order])


def test_fill_outline_and_untouched_background(scene):
    image = np.full((40, 60, 3), 100, np.uint8)
    before = image.copy()
    rgb = colours(scene)

    picture = draw(image, scene, alpha=0.5, outline=1)

    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(picture[0, 0], [100, 100, 100])
    for i, (row, column) in {0: (19, 8), 1: (10, 20), 2: (32, 25), 3: (26, 15), 4: (20, 48)}.items():
        if i:
            np.testing.assert_allclose(picture[row, column], (100 + rgb[i].astype(int)) / 2, atol=1)
    np.testing.assert_array_equal(picture[20, 40], rgb[4])
    np.testing.assert_array_equal(picture[22, 15], rgb[3])
    assert (picture != image).any(axis=2).sum() == scene.dense().any(axis=0).sum()


def test_scene_has_an_outline_and_no_fill_and_hides_nothing(scene):
    floor = np.zeros((1, 40, 60), bool)
    floor[0, :38, :58] = True
    both = Instances.from_dense(
        np.concatenate([floor, scene.dense()]),
        image_size=(40, 60),
        levels=np.array([0, *scene.levels]),
        parents=np.array([-1, *np.where(scene.parents >= 0, scene.parents + 1, -1)]),
        scene=np.array([True] + [False] * 5),
    )
    image = np.full((40, 60, 3), 100, np.uint8)
    picture = draw(image, both, outline=1)
    np.testing.assert_array_equal(picture[2, 2], image[2, 2])
    np.testing.assert_array_equal(picture[37, 30], colours(both)[0])
    things = draw(image, both.select(np.arange(1, 6)), outline=0)
    np.testing.assert_array_equal(draw(image, both, outline=0) == image, things == image)


def test_levels_are_chosen_and_no_outline_means_none(scene):
    image = np.zeros((40, 60, 3), np.uint8)
    picture = draw(image, scene, levels=[Level.PART], alpha=1, outline=0)
    rgb = colours(scene)
    np.testing.assert_array_equal(np.unique(picture.reshape(-1, 3), axis=0), np.unique([[0] * 3, *rgb[1:3]], axis=0))
    np.testing.assert_array_equal(draw(image, scene, levels=[]), image)


def test_wrong_image_is_refused(scene):
    with pytest.raises(ValueError, match=r"must be uint8 \(40, 60, 3\)"):
        draw(np.zeros((60, 40, 3), np.uint8), scene)
    with pytest.raises(ValueError, match="float32"):
        draw(np.zeros((40, 60, 3), np.float32), scene)


def test_side_by_side_adds_a_level_per_panel(scene):
    image = np.full((40, 60, 3), 128, np.uint8)
    sheet = side_by_side(image, scene)
    strip = sheet.shape[0] - 40
    panels = [sheet[strip:, 68 * i : 68 * i + 60] for i in range(4)]
    assert sheet.shape == (40 + strip, 4 * 60 + 3 * 8, 3)
    np.testing.assert_array_equal(panels[0], image)
    np.testing.assert_array_equal(panels[3], draw(image, scene))
    assert [int((a != b).any(axis=2).sum() > 0) for a, b in pairwise(panels)] == [1, 1, 1]
    assert (sheet[:strip] < 128).any()


def test_empty_and_one_pixel():
    image = np.full((1, 1, 3), 9, np.uint8)
    np.testing.assert_array_equal(draw(image, Instances.empty((1, 1))), image)
    assert draw(image, Instances.from_dense(np.ones((1, 1, 1), bool), image_size=(1, 1))).shape == (1, 1, 3)
    assert side_by_side(image, Instances.empty((1, 1))).dtype == np.uint8


def test_needs_neither_torch_nor_pycocotools():
    code = "import sys, hassod_ros.drawing; print({'torch', 'pycocotools', 'PIL'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
