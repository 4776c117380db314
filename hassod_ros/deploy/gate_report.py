"""The gate's page: every figure with its limit, and old beside new on the frames where they differ most."""

from __future__ import annotations

import base64
import os
from html import escape
from pathlib import Path

import cv2
import numpy as np

from hassod_ros.deploy.gate import Check, Verdict
from hassod_ros.drawing import draw
from hassod_ros.files import write_text
from hassod_ros.images import read_image, shrunk

_SIDE = 480  # px of the pictures' width
_EACH = 4  # frames that lost, and that gained
_STYLE = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c2330;background:#fff;margin:2rem auto;max-width:1040px;padding:0 1rem}
h1{font-size:1.5rem;margin:0 0 .5rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
.verdict{display:inline-block;padding:.25rem .75rem;border-radius:.3rem;color:#fff;font-weight:600}
.yes{background:#1b7a3d}.no{background:#b3261e}.ok{color:#1b7a3d}.bad{color:#b3261e;font-weight:600}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #e3e6ec}
td.n,th.n{text-align:right;font-variant-numeric:tabular-nums}.note{color:#525b6b}
.pair{display:grid;grid-template-columns:1fr 1fr;gap:.5rem;margin:.5rem 0 1.25rem}
figure{margin:0}img{width:100%;display:block;border-radius:.2rem}figcaption{font-size:.85rem;color:#525b6b}
.facts td{font-size:.85rem;word-break:break-all}
"""


def write_report(path: str | os.PathLike, verdict: Verdict, *, title: str = "gate") -> None:
    """Write the page as one HTML file.

    Args:
        path: Of the file.
        verdict: What `judge` returned.
        title: Heading.

    Raises:
        InputError: A frame cannot be read, or the file not be written.

    """
    word, color = ("accepted", "yes") if verdict.accepted else ("refused", "no")
    reason = f"<p>{escape(verdict.reason)}.</p>" if verdict.reason else ""
    order = np.argsort([verdict.candidate.score(i) - verdict.running.score(i) for i in range(len(verdict.paths))])
    each = min(_EACH, len(order) // 2)
    facts = {name: value for name, value in verdict.facts.items() if name != "limits"}
    write_text(
        path,
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style></head><body>'
        f'<h1>{escape(title)}</h1><p><span class="verdict {color}">{word}</span></p>{reason}'
        f"{_table(verdict.checks)}"
        f"{_frames('Worst frames: where the candidate lost most consistency', verdict, order[:each].tolist())}"
        f"{_frames('Best frames: where it gained most', verdict, order[::-1][:each].tolist())}"
        f"<h2>Facts</h2><table class=facts>"
        f"{''.join(f'<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>' for k, v in facts.items())}</table>"
        "</body></html>\n",
    )


def _table(checks: tuple[Check, ...]) -> str:
    rows = "".join(
        f"<tr><td>{escape(check.name)}</td><td class=n>{_figure(check.running)}</td>"
        f"<td class=n>{_figure(check.candidate)}</td><td class={'ok' if check.passed else 'bad'}>"
        f"{'passed' if check.passed else 'failed'}</td><td>{escape(check.sentence)}</td></tr>"
        for check in checks
    )
    head = "<tr><th></th><th class=n>running</th><th class=n>candidate</th><th></th><th></th></tr>"
    return f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.3f}"


def _frames(heading: str, verdict: Verdict, indices: list[int]) -> str:
    if not indices:
        return ""
    html = f"<h2>{heading}</h2><p class=note>Left the running model, right the candidate; outlines show all levels.</p>"
    for index in indices:
        image = read_image(verdict.paths[index])
        figures = "".join(
            f'<figure><img alt="{name}" src="{_data_url(image, frames.instances[index])}">'
            f"<figcaption>{name}: {len(frames.instances[index])} instances, consistency {frames.score(index):.3f}"
            "</figcaption></figure>"
            for name, frames in (("running", verdict.running), ("candidate", verdict.candidate))
        )
        path = verdict.paths[index]
        html += f"<div>{escape(str(Path(path.parent.name, path.name)))}</div><div class=pair>{figures}</div>"
    return html


def _data_url(image: np.ndarray, instances: object) -> str:
    picture = draw(image, instances)  # type: ignore[arg-type]
    small = shrunk(picture, min(1.0, _SIDE / picture.shape[1]))
    data = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 82])[1]
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
