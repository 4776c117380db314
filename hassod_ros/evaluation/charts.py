"""Small charts as SVG text, so that a report is one file that opens anywhere."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

COLORS = ("#2563a8", "#c2571a", "#2e7d4f", "#7a4fa3", "#b03052", "#5b6470")
_WIDTH, _HEIGHT = 460, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 14, 12, 44


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    diagonal: bool = False,
) -> str:
    """Lines over a common axis from 0 to the largest value, at most 1; NaN values are left out.

    Args:
        series: Name -> (x, y).
        x_label: Text below the axis.
        y_label: Text beside the axis.
        log_x: Logarithmic x axis.
        diagonal: Show the line y = x, and both axes from 0 to 1.

    """
    points = {
        name: [(float(x), float(y)) for x, y in zip(*values, strict=True) if math.isfinite(y)]
        for name, values in series.items()
    }
    xs = [x for line in points.values() for x, _ in line] or [1.0]
    top = 1.0 if diagonal else _round_up(max((y for line in points.values() for _, y in line), default=1.0))
    low, high = (0.0, 1.0) if diagonal else (min(xs), max(xs))
    scale = math.log10 if log_x else float
    span = (scale(high) - scale(low)) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            _LEFT + (scale(x) - scale(low)) / span * (_WIDTH - _LEFT - _RIGHT),
            _HEIGHT - _BOTTOM - y / top * (_HEIGHT - _TOP - _BOTTOM),
        )

    x_ticks = [10**k for k in range(9) if low <= 10**k <= high] if log_x else _ticks(low, high)
    parts = _frame(top, x_label, y_label)
    for x in x_ticks:
        parts.append(_text(place(x, 0)[0], _HEIGHT - _BOTTOM + 16, f"{x:g}", "middle"))
    if diagonal:
        (x0, y0), (x1, y1) = place(0, 0), place(1, 1)
        parts.append(f'<line x1="{x0:.1f}" y1="{y0:.1f}" x2="{x1:.1f}" y2="{y1:.1f}" class="guide"/>')
    for color, (name, line) in zip(_endless(len(points)), points.items(), strict=True):
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line))
        parts.append(f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>')
        parts += [
            f'<circle cx="{place(x, y)[0]:.1f}" cy="{place(x, y)[1]:.1f}" r="2.6" fill="{color}">'
            f"<title>{escape(name)}: {x:g}, {y:.3f}</title></circle>"
            for x, y in line
        ]
    return _svg(parts, list(points))


def bar_chart(groups: Mapping[str, Mapping[str, float]], *, y_label: str) -> str:
    """Bars side by side, one group for each name and one colour for each inner name; NaN is shown as a dash."""
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    heights = [value for values in groups.values() for value in values.values() if math.isfinite(value)]
    top = _round_up(max(heights, default=1.0))
    parts = _frame(top, "", y_label)
    slot = (_WIDTH - _LEFT - _RIGHT) / max(len(groups), 1)
    width = slot * 0.76 / max(len(names), 1)
    floor = _HEIGHT - _BOTTOM
    for g, (group, values) in enumerate(groups.items()):
        left = _LEFT + g * slot + slot * 0.12
        parts.append(_text(left + slot * 0.38, floor + 16, group, "middle"))
        for color, (n, name) in zip(_endless(len(names)), enumerate(names), strict=True):
            value = values.get(name, math.nan)
            x = left + n * width
            if not math.isfinite(value):
                parts.append(_text(x + width / 2, floor - 4, "-", "middle"))
                continue
            height = value / top * (floor - _TOP)
            parts.append(
                f'<rect x="{x + 1:.1f}" y="{floor - height:.1f}" width="{width - 2:.1f}" height="{height:.1f}" '
                f'fill="{color}"><title>{escape(group)}, {escape(name)}: {value:.3f}</title></rect>'
            )
            parts.append(_text(x + width / 2, max(floor - height - 4, 9), f"{100 * value:.1f}", "middle"))
    return _svg(parts, names if len(names) > 1 else [])


def _frame(top: float, x_label: str, y_label: str) -> list[str]:
    floor = _HEIGHT - _BOTTOM
    parts = []
    for i in range(6):
        y = floor - i / 5 * (floor - _TOP)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" class="grid"/>')
        parts.append(_text(_LEFT - 6, y + 4, f"{100 * top * i / 5:.{0 if top >= 0.2 else 1}f}", "end"))
    parts.append(_text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, x_label, "middle"))
    middle = (_TOP + floor) / 2
    parts.append(f'<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">')
    parts.append(f"{escape(y_label)}</text>")
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _svg(parts: list[str], legend: list[str]) -> str:
    picture = f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">{"".join(parts)}</svg>'
    keys = "".join(
        f'<span><i style="background:{color}"></i>{escape(name)}</span>'
        for color, name in zip(_endless(len(legend)), legend, strict=True)
    )
    return picture + (f'<div class="legend">{keys}</div>' if legend else "")


def _endless(n: int) -> list[str]:
    return [COLORS[i % len(COLORS)] for i in range(n)]


def _round_up(value: float) -> float:
    """The next limit that gives five round steps."""
    return next((limit for limit in (0.05, 0.1, 0.25, 0.5, 0.75, 1.0) if value <= limit), value)


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers within [low, high], four to ten of them."""
    span = (high - low) or 1.0
    step = 10.0 ** math.floor(math.log10(span / 2))
    step *= next(factor for factor in (1, 2, 5) if span / (step * factor) <= 10)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(i * step, 9) for i in range(first, last + 1)]
