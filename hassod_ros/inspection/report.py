"""A report of inspected pictures: one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.inspection.drawing import draw_heat, draw_taught, draw_verdict
from hassod_ros.inspection.reference import Reference
from hassod_ros.inspection.verdict import Result, Verdict

_WIDTH = 640  # pixels of a picture in the report
_BINS = 28
_STYLE = """
body { font: 16px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 1100px; padding: 0 1rem; color: #1b1f24 }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2rem }
table { border-collapse: collapse; width: 100% }
th, td { text-align: left; padding: .35rem .6rem; border-bottom: 1px solid #d5dae0 }
.word { color: white; font-weight: 700; padding: .1rem .55rem; border-radius: .25rem; white-space: nowrap }
.OK { background: #00823c } .NG { background: #c8141e } .UNDECIDED { background: #b87800 }
.part { display: grid; grid-template-columns: 1fr 1fr; gap: 1rem; margin: 1rem 0 2rem; align-items: start }
.part img { width: 100%; height: auto; border: 1px solid #d5dae0 }
.counts { font-size: 1.15rem } .counts > span { white-space: nowrap; margin-right: 1.5rem }
figcaption { color: #57606a; font-size: .9rem } figure { margin: 0 } svg { width: 100%; height: auto }
@media (max-width: 700px) { .part { grid-template-columns: 1fr } }
"""


@dataclass(frozen=True)
class Inspected:
    """A picture that was judged: its name, small drawings as JPEG, and the verdict."""

    name: str
    drawing: bytes
    heat: bytes
    verdict: Verdict


def inspected(name: str, picture: np.ndarray, verdict: Verdict) -> Inspected:
    """Keep of a judged (H, W, 3) uint8 RGB picture what the report shows."""
    return Inspected(name, _jpeg(draw_verdict(picture, verdict)), _jpeg(draw_heat(picture, verdict)), verdict)


def _jpeg(picture: np.ndarray) -> bytes:
    scale = min(1.0, _WIDTH / picture.shape[1])
    small = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA) if scale < 1 else picture
    code = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])[1]
    return code.tobytes()


def render(reference: Reference, parts: Sequence[Inspected], margin: float) -> str:
    """The report's HTML."""
    counts = Counter(part.verdict.result for part in parts)
    sure, likely = reference.false_alarm_rate(margin)
    words = "".join(
        f"<span>{_word(result)} {counts[result]}</span> " for result in (Result.OK, Result.NG, Result.UNDECIDED)
    )
    disagree = ""
    if reference.disagree:
        disagree = f"<p>Good pictures that differ from the rest: {html.escape(', '.join(reference.disagree))}.</p>"
    rows = "".join(_row(i, part) for i, part in enumerate(parts))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>Inspection by {html.escape(reference.name)}</title><style>{_STYLE}</style></head><body>
<h1>{len(parts)} pictures, inspected by “{html.escape(reference.name)}”</h1>
<p class="counts">{words}</p>
<p>Taught by {len(reference.pictures)} good pictures, {len(reference.components)} components. A good part is called NG
with a chance of about {likely:.1%}; without the margin of {margin:g} it would be at most {sure:.0%}.</p>{disagree}
<h2>How far from the limit</h2>{_histogram(parts)}
{_taught(reference)}
<h2>All pictures</h2>
<table><tr><th>Picture</th><th>Verdict</th><th>Score</th><th>Why</th></tr>{rows}</table>
{"".join(_part(i, part) for i, part in enumerate(parts))}
</body></html>
"""


def _word(result: Result) -> str:
    return f'<span class="word {result.name}">{result.name}</span>'


def _row(index: int, part: Inspected) -> str:
    verdict = part.verdict
    sentences = "<br>".join(html.escape(each.sentence) for each in verdict.findings) or html.escape(verdict.sentence)
    link = f'<a href="#part{index}">{html.escape(part.name)}</a>'
    score = "" if verdict.result == Result.UNDECIDED else f"{verdict.score:.2f}"
    return f"<tr><td>{link}</td><td>{_word(verdict.result)}</td><td>{score}</td><td>{sentences}</td></tr>"


def _part(index: int, part: Inspected) -> str:
    title = f'<h2 id="part{index}">{html.escape(part.name)} {_word(part.verdict.result)}</h2>'
    figures = _figure(part.drawing, "verdict") + _figure(part.heat, "measured; red is beyond the limit")
    return f'{title}<div class="part">{figures}</div>'


def _taught(reference: Reference) -> str:
    """The taught part with its components, which findings call by their numbers."""
    if not reference.components:
        return ""
    figure = _figure(_jpeg(draw_taught(reference)), "the components that were taught, by their numbers")
    return f'<h2>What was taught</h2><div class="part">{figure}</div>'


def _figure(data: bytes, text: str) -> str:
    source = "data:image/jpeg;base64," + base64.b64encode(data).decode("ascii")
    return f'<figure><img alt="{html.escape(text)}" src="{source}"><figcaption>{text}</figcaption></figure>'


def _histogram(parts: Sequence[Inspected]) -> str:
    """Scores of the parts as bars, the limit as a line; each doubling has the same width."""
    scores = np.array([part.verdict.score for part in parts if part.verdict.result != Result.UNDECIDED])
    if not len(scores):
        return "<p>No picture could be judged.</p>"
    edges = np.geomspace(0.125, 16, _BINS + 1)
    heights, _ = np.histogram(np.clip(scores, 0.1251, 15.99), edges)
    most, wide, high = max(int(heights.max()), 1), 960, 220
    step = wide / _BINS
    bars = []
    for i, count in enumerate(heights.tolist()):
        tall = round((high - 50) * count / most)
        colour = "#c8141e" if edges[i] >= 1 - 1e-9 else "#00823c"
        bars.append(
            f'<rect x="{i * step + 2:.1f}" y="{high - 30 - tall}" width="{step - 4:.1f}" '
            f'height="{tall}" fill="{colour}">'
            f"<title>{count} pictures, score {edges[i]:.2f} to {edges[i + 1]:.2f}</title></rect>"
        )
        if count:
            bars.append(f'<text x="{(i + 0.5) * step:.1f}" y="{high - 34 - tall}" text-anchor="middle">{count}</text>')
    marks = "".join(
        f'<text x="{(np.log2(mark) + 3) / 7 * wide:.1f}" y="{high - 10}" text-anchor="middle">{mark:g}</text>'
        for mark in (0.25, 0.5, 1, 2, 4, 8)
    )
    limit = 3 / 7 * wide
    line = f'<line x1="{limit:.1f}" y1="10" x2="{limit:.1f}" y2="{high - 30}" stroke="#1b1f24" stroke-dasharray="5 4"/>'
    caption = f'<text x="{limit + 6:.1f}" y="22">limit</text>'
    return (
        f'<svg viewBox="0 0 {wide} {high}" font-size="14" font-family="system-ui, sans-serif" role="img" '
        f'aria-label="histogram of scores">{"".join(bars)}{line}{caption}{marks}</svg>'
        "<p>Score: what was measured over its limit; from 1 on a part is NG.</p>"
    )
