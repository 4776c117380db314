"""Small charts inside the report: SVG pictures in data URLs, so that it stays one file that opens anywhere."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
from cycler import cycler
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

_STYLE: Any = {
    "axes.edgecolor": "#c9d0d7",
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "axes.labelcolor": "#39424b",
    "axes.prop_cycle": cycler(color=["#2563a8", "#c2571a", "#2e7d4f", "#7a4fa3", "#b03052", "#5b6470"]),
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 9,
    "grid.color": "#e4e8ec",
    "legend.frameon": False,
    "lines.marker": "o",
    "lines.markersize": 3.5,
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "hassod_ros",  # the same figures, the same bytes
    "xtick.color": "#39424b",
    "ytick.color": "#39424b",
}


def line_chart(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    diagonal: bool = False,
) -> str:
    """An <img> of lines over a common axis, in per cent from 0 on; NaN values are left out.

    Args:
        series: Name -> (x, y), y in [0, 1].
        x_label: Text below the axis.
        y_label: Text beside the axis.
        log_x: Logarithmic x axis.
        diagonal: Show the line y = x, and both axes from 0 to 1.

    """
    with mpl.rc_context(_STYLE):
        figure, axes = _axes(x_label, y_label)
        for name, (x, y) in series.items():
            places = [i for i, value in enumerate(y) if math.isfinite(value)]
            axes.plot([x[i] for i in places], [100 * y[i] for i in places], label=name)
        if log_x:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        if diagonal:
            axes.plot([0, 1], [0, 100], color="#8b949e", linestyle="--", marker="", linewidth=1)
            axes.set_xlim(0, 1)
        axes.set_ylim(0, 100 if diagonal else None)
        return _image(figure, axes, len(series) > 1)


def bar_chart(groups: Mapping[str, Mapping[str, float]], *, y_label: str) -> str:
    """An <img> of bars side by side: a group for each name, a colour for each inner name; a dash stands for NaN.

    Args:
        groups: Name -> inner name -> value in [0, 1].
        y_label: Text beside the axis.

    """
    names = list(dict.fromkeys(name for values in groups.values() for name in values))
    width = 0.76 / max(len(names), 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _axes("", y_label)
        for n, name in enumerate(names):
            heights = [100 * values.get(name, math.nan) for values in groups.values()]
            known = [value if math.isfinite(value) else 0.0 for value in heights]
            places = [g + (n - (len(names) - 1) / 2) * width for g in range(len(groups))]
            bars = axes.bar(places, known, 0.94 * width, label=name)
            axes.bar_label(bars, [f"{value:.1f}" if math.isfinite(value) else "-" for value in heights], padding=2)
        axes.set_xticks(range(len(groups)), list(groups))
        axes.tick_params(axis="x", length=0)
        axes.margins(y=0.12)
        return _image(figure, axes, len(names) > 1)


def _axes(x_label: str, y_label: str) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(4.6, 2.9), layout="constrained")
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def _image(figure: Figure, axes: Axes, legend: bool) -> str:
    if legend:
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower left", ncols=3)
    file = io.BytesIO()
    figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    data = base64.b64encode(file.getvalue()).decode("ascii")
    return f'<img class="chart" alt="" src="data:image/svg+xml;base64,{data}">'
