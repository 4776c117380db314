import base64
import json
import re
from collections import Counter
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.evaluation.annotations import AnnotatedSet, Picture, to_segments
from hassod_ros.evaluation.charts import bar_chart, line_chart
from hassod_ros.evaluation.evaluate import evaluate
from hassod_ros.evaluation.report import to_instances, write_report
from hassod_ros.evaluation.tables import format_scores, format_table


@pytest.fixture
def case(entry):
    truth = [entry((0, 0, 30, 20), id=1, part=False), entry((0, 0, 10, 10), id=2, part=True, whole_id=1)]
    guess = [
        entry((0, 0, 30, 20), id=1, score=0.9, level=0),
        entry((0, 0, 10, 9), id=2, score=0.8, level=1, parent_id=1),
    ]
    pictures = [Picture(i, f"<{i}>.png", (40, 60), to_segments(truth, (40, 60))) for i in (1, 2)]
    predictions = {1: to_segments(guess, (40, 60))}
    return AnnotatedSet(pictures, True), predictions


@pytest.fixture
def images(tmp_path):
    folder = tmp_path / "images"
    folder.mkdir()
    for i in (1, 2):
        Image.fromarray(np.full((40, 60, 3), 90 * i, np.uint8)).save(folder / f"<{i}>.png")
    return folder


class Balance(HTMLParser):
    """Every tag that opens also closes, and nothing is loaded from elsewhere."""

    def __init__(self):
        super().__init__()
        self.open, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.open.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href", "srcset", "data")]

    def handle_startendtag(self, tag, attributes):
        pass

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_report_is_one_file_that_needs_nothing_else(case, images, tmp_path):
    scores = evaluate(*case)
    page = write_report(tmp_path / "out", scores, *case, images=images, title="A & B", facts={"model": "<x>"})
    html = page.read_text()
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    kinds = Counter(source.partition(",")[0] for source in parser.sources)
    # The best and the worst picture, annotations and predictions; curves, sizes, reliability and levels.
    assert kinds == {"data:image/jpeg;base64": 4, "data:image/svg+xml;base64": 6}
    assert not re.search(r"https?:|url\(|@import|<script", html)
    assert "A &amp; B" in html
    assert "&lt;1&gt;.png" in html
    assert "nan" not in html
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["mask"]["AR@100"] == pytest.approx(scores["mask"]["AR@100"])
    assert metrics["mask"]["AP_large"] is None
    assert metrics["facts"] == {"model": "<x>"}


def test_wrong_images_are_named(case, images, tmp_path):
    Image.fromarray(np.zeros((10, 10, 3), np.uint8)).save(images / "<1>.png")
    with pytest.raises(InputError, match=r"is 10x10, its annotations say 60x40"):
        write_report(tmp_path / "out", evaluate(*case), *case, images=images)


def test_instances_for_drawing(entry):
    empty = entry((0, 0, 0, 0), score=2.0)
    segments = to_segments([entry((1, 2, 4, 6), score=1.5, level=2), empty], (40, 60))
    found = to_instances(segments, (40, 60))
    assert found.boxes.tolist() == [[1, 2, 4, 6]]
    assert found.scores.tolist() == [1.0]
    boxes = to_segments([{"bbox": [1, 2, 3, 4], "image_id": 1}], (40, 60), with_masks=False)
    assert to_instances(boxes, (40, 60)).areas.tolist() == [12]


def test_screen_tables(case):
    text = format_scores(evaluate(*case))
    assert "2 images, 4 annotations, 2 predictions (1.00 an image; 1 images without any)" in text
    assert re.search(r"^mask .* 50\.0", text, re.MULTILINE)
    assert re.search(
        r"^mask +2 +1 +1 +1 +100\.0 +100\.0 +50\.0 +1 +100\.0 +2 +100\.0 +50\.0 +66\.7$", text, re.MULTILINE
    )
    assert format_table({"a": {"x": 0.5, "n": 3}, "b": {"x": float("nan")}}, ["x", "n"]).splitlines() == [
        "      x  n",
        "----------",
        "a  50.0  3",
        "b     -  -",
    ]


def drawn(chart: str) -> ElementTree.Element:
    """The SVG in a chart's data URL."""
    (data,) = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', chart)
    return ElementTree.fromstring(base64.b64decode(data))


def texts(svg: ElementTree.Element) -> list[str]:
    return [element.text for element in svg.iter("{http://www.w3.org/2000/svg}text")]


def test_charts_label_values_and_skip_what_is_missing():
    series = {"a": ([1, 10, 100], [0.0, float("nan"), 0.5]), "b": ([1, 100], [0.1, 0.2])}
    chart = line_chart(series, x_label="n", y_label="%", log_x=True)
    assert chart == line_chart(series, x_label="n", y_label="%", log_x=True)  # no date, no chance
    svg = drawn(chart)
    assert {"n", "%", "a", "b", "1", "10", "100", "50"} <= set(texts(svg))
    markers = [e for e in svg.iter("{http://www.w3.org/2000/svg}use") if "fill" in (e.get("style") or "")]
    assert len([e for e in markers if "#2563a8" in e.get("style")]) == 2 + 1  # two values and the legend's
    bars = texts(drawn(bar_chart({"g": {"x": 0.25, "y": float("nan")}}, y_label="%")))
    assert {"25.0", "-", "g", "x", "y"} <= set(bars)
    drawn(line_chart({}, x_label="", y_label="", diagonal=True))
