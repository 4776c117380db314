import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from hassod_ros.inspection.drawing import draw_taught, draw_verdict
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.report import inspected, render
from hassod_ros.inspection.verdict import undecided
from tests.inspection.parts import observe, part, taken


def test_the_report_needs_nothing_but_itself(reference):
    inspector = Inspector(reference, observe)
    pictures = {
        "good.png": taken(part(), 70),
        "<bad>.png": part(red=None),
        "black.png": np.zeros((240, 320, 3), np.uint8),
    }
    parts = [inspected(name, picture, inspector(picture)) for name, picture in pictures.items()]
    text = render(reference, parts, 1.5)
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", text)
    assert "&lt;bad&gt;.png" in text
    assert "<bad>" not in text
    for word in ("OK", "NG", "UNDECIDED", "is missing", "The picture is blank"):
        assert word in text
    assert text.count("data:image/jpeg;base64,") == 7  # two of each, and what was taught
    HTMLParser().feed(text)


def test_colour_and_word_say_the_same(reference):
    inspector = Inspector(reference, observe)
    greens = draw_verdict(taken(part(), 71), inspector(taken(part(), 71)))[5, 5]
    reds = draw_verdict(part(red=None), inspector(part(red=None)))[5, 5]
    amber = draw_verdict(part(), undecided("why"))[5, 5]
    assert greens[1] > 2 * greens[0]
    assert reds[0] > 4 * reds[1]
    assert amber[0] > amber[1] > 4 * max(1, amber[2])


def test_a_drawing_has_a_sentence_for_each_finding(reference):
    inspector = Inspector(reference, observe)
    one, two = part(red=None), part(red=None, blue=None)
    heights = [draw_verdict(picture, inspector(picture)).shape[0] for picture in (one, two)]
    assert heights[1] - heights[0] == 984 // 16  # another strip


@pytest.mark.parametrize("box", [(100, 80, 150, 120), (300, 0, 320, 20), (0, 220, 20, 240)])  # two in corners
def test_numbers_of_circles_do_not_lie_on_each_other(reference, box):
    verdict = Inspector(reference, observe)(part(red=None))
    red = []
    for count in (1, 5):
        alike = (replace(verdict.findings[0], box=box),) * count
        sheet = draw_verdict(part(red=None), replace(verdict, findings=alike))
        inside = sheet[sheet.shape[1] // 7 :][:720, 12:-12]
        red.append(int((np.abs(inside - (200.0, 20.0, 30.0)).max(axis=2) < 20).sum()))
    assert red[1] > red[0] + 4 * 500  # boxes of 30 x 39 px with a white number


def test_what_was_taught_is_drawn_with_an_outline_around_each_component(reference):
    plain = replace(reference, components=())
    changed = np.abs(draw_taught(reference).astype(int) - draw_taught(plain)).max(axis=2) > 60
    scale = changed.shape[1] / reference.ideal.shape[1]
    for component in reference.components:
        x0, y0, x1, y1 = (round(value * scale) for value in component.box)
        outside = changed.copy()
        outside[y0 - 6 : y1 + 6, x0 - 6 : x1 + 6] = False
        assert changed.sum() - outside.sum() > 2 * (x1 - x0)
    boxes = np.ones_like(changed)
    for component in reference.components:
        x0, y0, x1, y1 = (round(value * scale) for value in component.box)
        boxes[y0 - 6 : y1 + 6, x0 - 6 : x1 + 40] = False
    assert not (changed & boxes).any()


def test_the_number_of_a_component_is_not_written_over_by_one_in_it(reference):
    first = reference.components[0]
    one, both = (draw_taught(replace(reference, components=(first,) * count)) for count in (1, 2))
    blue = [np.abs(sheet - (20.0, 80.0, 170.0)).max(axis=2) < 20 for sheet in (one, both)]
    assert blue[1].sum() > blue[0].sum() + 200


def test_all_of_a_long_sentence_is_on_the_drawing():
    words = "The light is far from what was taught: check the lamps, the exposure and the lens, then teach "
    first, second = (draw_verdict(part(), undecided(words + last)) for last in ("anew", "more"))
    assert (first != second).any()
    bar = first[: first.shape[1] // 7]
    for edge in (bar[:3], bar[-3:], bar[:, -3:]):
        assert (edge == bar[0, 0]).all()
