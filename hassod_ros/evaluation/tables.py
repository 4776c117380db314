"""Scores as text tables, in per cent as papers print them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

MAIN = ("AR@10", "AR@100", "AR@1000", "AR_small", "AR_medium", "AR_large", "AP")
COLUMNS = ("AR@1", *MAIN, "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
COMPOSITION = ("whole right", "part right", "levels", "stuff@10", "stuff@20", "nested", "nest precision")
KINDS = ("mask", "box")


def composition(values: Mapping[str, Any]) -> dict[str, float]:
    """What `evaluate` found about levels, stuff and nesting as one row of `COMPOSITION`, so that none hides another."""
    accuracy, parents = values["levels"]["accuracy"], values["parents"]
    return {
        "whole right": accuracy["whole"],
        "part right": accuracy["part"],
        "levels": accuracy["mean"],
        **{name: values[name] for name in ("stuff@10", "stuff@20")},
        "nested": parents["accuracy"],
        "nest precision": parents["precision"],
    }


def format_table(rows: Mapping[str, Mapping[str, Any]], columns: Iterable[str], *, corner: str = "") -> str:
    """Rows of scores in [0, 1] as aligned text; integers and words are shown as they are, missing values as a dash."""
    columns = list(columns)
    cells = [[corner, *columns]] + [
        [name, *(cell(row.get(column)) for column in columns)] for name, row in rows.items()
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "  ".join(
            [line[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(line[1:], widths[1:], strict=True))]
        )
        for line in cells
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:]])


def cell(value: Any) -> str:
    """One table cell: a share in per cent with one decimal, a count or a word as it is, a dash for what is missing."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return "-"
    return f"{100 * value:.1f}" if isinstance(value, float) else str(value)


def format_scores(scores: Mapping[str, Any]) -> str:
    """Everything that `evaluate` found, for the screen."""
    counts = scores["counts"]
    blocks = [
        f"{counts['images']} images, {counts['annotations']} annotations, {counts['predictions']} predictions "
        f"({counts['predictions_per_image']:.2f} an image; {counts['images_without_predictions']} images without any)"
    ]
    kinds = {kind: scores[kind] for kind in KINDS if kind in scores}
    blocks.append(format_table(kinds, COLUMNS))
    best = ["best_iou@1", "best_iou@10", "best_iou@100", "best_iou@1000", "covering"]
    errors = {kind: {**values, "ECE": values["calibration"]["ECE"]} for kind, values in kinds.items()}
    blocks.append(format_table(errors, [*best, "ECE"]))
    rows = {kind: composition(values) for kind, values in kinds.items()}
    if not all(math.isnan(value) for row in rows.values() for value in row.values()):
        blocks.append(format_table(rows, COMPOSITION, corner="levels, stuff, nesting"))
    for kind, values in kinds.items():
        if any(row["predictions"] for row in values["levels"]["predicted"].values()):
            blocks.append(
                format_table(
                    values["levels"]["predicted"], ["predictions", "AR_alone"], corner=f"{kind}, predicted level"
                )
            )
        if values["levels"]["annotated"]:
            blocks.append(
                format_table(
                    values["levels"]["annotated"], ["annotations", "AR", "level_right"], corner=f"{kind}, true level"
                )
            )
        if values["parents"]["parts"]:
            blocks.append(format_table({kind: values["parents"]}, values["parents"], corner="parts in wholes"))
    return "\n\n".join(blocks)
