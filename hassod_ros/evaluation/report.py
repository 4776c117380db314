"""An evaluation as one HTML file: tables, charts and the best and worst pictures, without any request to a network."""

from __future__ import annotations

import base64
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from pycocotools import mask as rle

from hassod_ros.coco import from_coco, to_rle
from hassod_ros.drawing import draw
from hassod_ros.errors import InputError
from hassod_ros.evaluation.annotations import AnnotatedSet, Picture, Segments
from hassod_ros.evaluation.charts import bar_chart, line_chart
from hassod_ros.evaluation.tables import COLUMNS, COMPOSITION, KINDS, cell, composition
from hassod_ros.files import write_json, write_text
from hassod_ros.images import read_image, shrunk
from hassod_ros.instances import Instances

_SIDE = 420  # width of a picture in the report, pixels
_SHOWN = 10  # predictions drawn at least
_EACH = 6  # best and worst pictures

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1d2329; background: #fff; max-width: 1120px; margin: 2rem auto;
  padding: 0 1rem; }
h1 { font-size: 1.6rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin-top: 2.2rem; }
p.note { color: #5b6470; max-width: 75ch; margin: .3rem 0 .8rem; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: .4rem 0 1rem; }
.wide { overflow-x: auto; } .facts td { text-align: left; }
th, td { padding: .28rem .5rem; font-size: .9rem; text-align: right; border-bottom: 1px solid #dde2e7;
  white-space: nowrap; }
th:first-child, td:first-child { text-align: left; } thead th { color: #5b6470; font-weight: 600; }
.grid2 { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 1.2rem 2rem; }
figure { margin: 0; } figcaption { font-weight: 600; margin-bottom: .2rem; }
.pairs figcaption { font-weight: 400; font-size: .85rem; color: #39424b; overflow-wrap: anywhere; }
.pair { display: flex; gap: 4px; } .pair img { width: calc(50% - 2px); height: auto; display: block; }
.chart { width: 100%; height: auto; }
"""


def write_report(
    folder: str | os.PathLike,
    scores: Mapping[str, Any],
    annotated: AnnotatedSet,
    predictions: Mapping[int, Segments],
    *,
    images: str | os.PathLike | None = None,
    title: str = "Evaluation",
    facts: Mapping[str, str] | None = None,
) -> Path:
    """Write `metrics.json` and `report.html` into `folder`.

    Args:
        folder: Made where it does not exist.
        scores: What `evaluate` gave.
        annotated: The set.
        predictions: Image id -> predictions.
        images: Folder that the annotations' file names are relative to; without it no pictures are shown.
        title: Heading.
        facts: Where the figures come from, such as files and fingerprints.

    Returns:
        Path of the HTML file.

    Raises:
        InputError: A picture cannot be read or the folder cannot be written.

    """
    folder = Path(folder)
    facts = dict(facts or {})
    write_json(folder / "metrics.json", {**clean(scores), "facts": facts}, indent=1)
    main = "mask" if "mask" in scores else "box"
    sections = [_facts(scores, facts), _score_tables(scores), _charts(scores, main), _composition(scores, main)]
    if images is not None:
        sections.append(_pictures(scores, annotated, predictions, Path(images), main))
    page = (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head>'
        f"<body><h1>{escape(title)}</h1>{''.join(sections)}</body></html>\n"
    )
    write_text(folder / "report.html", page)
    return folder / "report.html"


def clean(value: Any) -> Any:
    """The same with None for NaN, which JSON does not have."""
    if isinstance(value, Mapping):
        return {str(key): clean(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_instances(segments: Segments, size: tuple[int, int]) -> Instances:
    """Segments as Instances for drawing: without parents and empty masks, unknown levels as wholes, scores in [0, 1].

    Where only boxes are known the masks are the boxes.
    """
    if segments.masks is None:
        corners = np.concatenate([segments.boxes[:, :2], segments.boxes[:, :2] + segments.boxes[:, 2:]], axis=1)
        polygons = [[x0, y0, x1, y0, x1, y1, x0, y1] for x0, y0, x1, y1 in corners.tolist()]
        masks = [to_rle([polygon], size) for polygon in polygons]
    else:
        masks = segments.masks
    return from_coco(
        [
            {
                "id": i + 1,
                "segmentation": mask,
                "score": float(np.clip(segments.scores[i], 0, 1)),
                "level": max(int(segments.levels[i]), 0),
            }
            for i, mask in enumerate(masks)
            if rle.area(mask)
        ],
        size,
    )


def _table(rows: Mapping[str, Mapping[str, Any]], columns: Sequence[str], corner: str = "") -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in (corner, *columns))
    body = "".join(
        f"<tr><td>{escape(name)}</td>{''.join(f'<td>{escape(cell(row.get(column)))}</td>' for column in columns)}</tr>"
        for name, row in rows.items()
    )
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(scores: Mapping[str, Any], facts: Mapping[str, str]) -> str:
    counts = scores["counts"]
    text = (
        f"{counts['images']} images, {counts['annotations']} annotations, {counts['predictions']} predictions, "
        f"{counts['predictions_per_image']:.2f} an image; {counts['images_without_predictions']} images without any. "
        "All figures are class-agnostic and in per cent."
    )
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(value)}</td></tr>" for name, value in facts.items())
    table = f'<div class="wide facts"><table>{rows}</table></div>' if rows else ""
    return f'<p class="note">{escape(text)}</p>{table}'


def _score_tables(scores: Mapping[str, Any]) -> str:
    rows = {kind: {**scores[kind], "ECE": scores[kind]["calibration"]["ECE"]} for kind in KINDS if kind in scores}
    best = ("best_iou@1", "best_iou@10", "best_iou@100", "best_iou@1000", "covering", "ECE")
    return (
        "<h2>Recall and precision</h2>"
        '<p class="note">AR is recall averaged over IoU 0.50 to 0.95 with the best 1, 10, 100, 1000 predictions of an '
        "image. AP and the sizes count up to the limit of predictions. Where a set does not label every object, "
        "trust AR, not AP.</p>"
        f"{_table(rows, COLUMNS)}"
        "<h2>Best overlap and calibration</h2>"
        '<p class="note">best_iou: mean over annotations of the best IoU, without one-to-one matching. covering: the '
        "same, weighted by area, per image. ECE: mean distance of score and share that is right (IoU 0.5).</p>"
        f"{_table(rows, best)}"
    )


def _charts(scores: Mapping[str, Any], main: str) -> str:
    by_iou, by_count = {}, {}
    for kind in KINDS:
        if kind in scores:
            curve, count = scores[kind]["recall_by_iou"], scores[kind]["recall_by_detections"]
            by_iou[kind] = (curve["iou"], curve["recall"])
            by_count[kind] = (count["detections"], count["recall"])
    reliability = scores[main]["calibration"]["curve"]
    sizes = {
        size: {kind: scores[kind][f"AR_{size}"] for kind in KINDS if kind in scores}
        for size in ("small", "medium", "large")
    }
    charts = {
        "Recall by IoU": line_chart(by_iou, x_label="IoU threshold", y_label="recall, %"),
        "AR by number of predictions": line_chart(
            by_count, x_label="predictions per image", y_label="AR, %", log_x=True
        ),
        "AR by size of annotation": bar_chart(sizes, y_label="AR, %"),
        f"Reliability of scores ({main})": line_chart(
            {"share right": (reliability["score"], reliability["precision"])},
            x_label="mean score of the bin",
            y_label="right at IoU 0.5, %",
            diagonal=True,
        ),
    }
    return _figures("Curves", charts)


def _composition(scores: Mapping[str, Any], main: str) -> str:
    levels, parents = scores[main]["levels"], scores[main]["parents"]
    html = (
        "<h2>Levels, stuff and nesting</h2>"
        '<p class="note">whole right: of found annotated wholes the share called whole; part right: of found '
        "annotated parts the share called part or subpart; levels: their mean. stuff: of the best 10 and 20 "
        "predictions the share that lies on wall, floor, sky and the like by more than half.</p>"
        f"{_table({kind: composition(scores[kind]) for kind in KINDS if kind in scores}, COMPOSITION)}"
    )
    if any(row["predictions"] for row in levels["predicted"].values()):
        predicted = bar_chart(
            {f"{name} ({row['predictions']})": {"AR": row["AR_alone"]} for name, row in levels["predicted"].items()},
            y_label="AR of this level alone, %",
        )
        charts = {"By predicted level (number of predictions)": predicted}
        if levels["annotated"]:
            charts["By true level"] = bar_chart(
                {
                    f"{name} ({row['annotations']})": {"AR": row["AR"], "level predicted right": row["level_right"]}
                    for name, row in levels["annotated"].items()
                },
                y_label="%",
            )
        html += _figures(f"Levels ({main})", charts)
    if parents["parts"]:
        html += (
            f"<h2>Parts in wholes ({main})</h2>"
            '<p class="note">A part is found when a prediction overlaps it with IoU 0.5 or more; it is nested right '
            "when an ancestor of the best such prediction overlaps the true whole with IoU 0.5 or more. accuracy: "
            "among found parts; of_all_parts: among all, so recall counts too. precision: of all found things that "
            "hang on another one, the share that belongs there.</p>"
            f"{_table({'parts': parents}, list(parents))}"
        )
    return html


def _figures(heading: str, charts: Mapping[str, str]) -> str:
    figures = "".join(
        f"<figure><figcaption>{escape(name)}</figcaption>{chart}</figure>" for name, chart in charts.items()
    )
    return f'<h2>{escape(heading)}</h2><div class="grid2">{figures}</div>'


def _pictures(
    scores: Mapping[str, Any], annotated: AnnotatedSet, predictions: Mapping[int, Segments], images: Path, main: str
) -> str:
    by_id = {picture.image_id: picture for picture in annotated.pictures}
    ranked = sorted(scores["pictures"], key=lambda row: -row["AR@100"])
    each = min(_EACH, len(ranked) // 2)
    html = ""
    for heading, rows in (("Best pictures", ranked[:each]), ("Worst pictures", ranked[::-1][:each])):
        if not rows:
            continue
        figures = []
        for row in rows:
            picture = by_id[row["image_id"]]
            truth, guess = _pair(picture, predictions.get(picture.image_id), images)
            figures.append(
                f'<figure><div class="pair"><img alt="annotations" src="{truth}"><img alt="predictions" src="{guess}">'
                f"</div><figcaption>{escape(row['file_name'])}: AR@100 {100 * row['AR@100']:.1f}</figcaption></figure>"
            )
        html += (
            f"<h2>{heading} (by {main} AR at 100 predictions)</h2>"
            '<p class="note">Left the annotations (of the first annotator), right the best predictions: as many as '
            f'there are annotations, at least {_SHOWN}.</p><div class="grid2 pairs">{"".join(figures)}</div>'
        )
    return html


def _pair(picture: Picture, predicted: Segments | None, images: Path) -> tuple[str, str]:
    """Annotations and predictions drawn into the picture, as data URLs."""
    image = read_image(images / picture.file_name)
    if image.shape[:2] != picture.size:
        raise InputError(
            f"{images / picture.file_name} is {image.shape[1]}x{image.shape[0]}, its annotations say "
            f"{picture.size[1]}x{picture.size[0]}; give the folder of the images that were annotated"
        )
    truth = picture.truth
    if len(truth):  # several annotators over each other could not be read
        truth = truth.select(np.flatnonzero(truth.annotators == truth.annotators.min()))
    drawings = [to_instances(truth, picture.size)]
    if predicted is None:
        drawings.append(Instances.empty(picture.size))
    else:
        shown = min(len(predicted), max(_SHOWN, len(truth)))
        drawings.append(to_instances(predicted.select(np.arange(shown)), picture.size))
    first, second = (_data_url(draw(image, instances)) for instances in drawings)
    return first, second


def _data_url(image: np.ndarray) -> str:
    small = shrunk(image, min(1.0, _SIDE / image.shape[1]))
    done, data = cv2.imencode(".jpg", small[:, :, ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])
    if not done:
        raise InputError(f"a picture of {image.shape} cannot be written as JPEG; leave the pictures out")
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
