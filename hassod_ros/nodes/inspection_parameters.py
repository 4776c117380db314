"""The parameters of inspection_node."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hassod_ros.errors import InputError
from hassod_ros.inspection.settings import METHODS, Settings, parse_polygons
from hassod_ros.nodes import health
from hassod_ros.nodes.parameters import Parameter
from hassod_ros.nodes.perception_parameters import PARAMETERS as PERCEPTION

MODES = ("triggered", "continuous")
_SHARED = (
    "backend",
    "autostart",
    "image_transport",
    "input_reliability",
    "output_reliability",
    "overlay.max_rate",
    "overlay.jpeg_quality",
    "diagnostics_period",
)
_DEFAULTS = Settings()

PARAMETERS = (
    Parameter(
        name="model",
        default="default",
        description="Path of an exported detector, default or default-int8, which ship with the package; none compares "
        "pixels and colours only. Later changes: `~/reload_model`.",
        read_only=True,
    ),
    # Each part that was looked at is drawn.
    *(
        replace(parameter, default=0.0) if parameter.name == "overlay.max_rate" else parameter
        for parameter in PERCEPTION
        if parameter.name in _SHARED
    ),
    Parameter(
        name="mode",
        default="triggered",
        choices=MODES,
        description="triggered: the next image after a message on `trigger` is judged; continuous: every image is, and "
        "the newest wins.",
    ),
    Parameter(
        name="trigger_timeout",
        default=1.0,
        low=0.05,
        high=60.0,
        unit="s",
        description="A trigger without an image within this time gives an UNDECIDED part.",
    ),
    Parameter(
        name="reference_dir",
        default="~/.ros/hassod_ros/references",
        description="Folder of the references and all their versions; nodes may share it.",
        read_only=True,
    ),
    Parameter(
        name="reference",
        default="",
        description="Name of the reference to begin with, or the path of an .npz file; empty = the one last in use. "
        "Later changes: `~/load_reference`.",
        read_only=True,
    ),
    Parameter(
        name="method",
        default=_DEFAULTS.method,
        choices=METHODS,
        description="What a new reference is learned as: aligned, a part that looks the same each time; texture, a "
        "surface whose pattern never repeats.",
    ),
    Parameter(
        name="roi",
        default="",
        description='What a new reference looks at: "x y width height" in pixels of the image; empty = all of it.',
        check=lambda text: Settings(roi=parse_roi(text)),
    ),
    Parameter(
        name="ignore",
        default=[""],
        description='Polygons that a new reference does not look at, each as "x,y x,y x,y" in pixels of the image.',
        check=lambda texts: Settings(ignore=parse_polygons(texts)),
    ),
    Parameter(
        name="tolerance.position",
        default=_DEFAULTS.position,
        low=0.0,
        high=50.0,
        unit="px",
        description="How far edges (of a new reference) and components may lie off beyond what good pictures show.",
    ),
    Parameter(
        name="tolerance.angle",
        default=_DEFAULTS.angle,
        low=0.0,
        high=180.0,
        unit="deg",
        description="How far the part may be turned.",
    ),
    Parameter(
        name="margin",
        default=_DEFAULTS.margin,
        low=1.0,
        high=20.0,
        description="How much worse than the worst good picture a part may be.",
    ),
    Parameter(
        name="least_area",
        default=_DEFAULTS.least_area,
        low=1,
        high=1_000_000,
        unit="px",
        description="Smaller spots are no finding.",
    ),
    Parameter(
        name="camera_moved",
        default=10.0,
        low=0.0,
        high=10_000.0,
        unit="px",
        description="20 parts in a row that lie off by more than this in the same way are an error: the camera has "
        "moved. 0 = never.",
    ),
    Parameter(
        name="log_dir",
        default="",
        description="Folder of a log, one JSON line for each part, with pictures of the NG ones; empty = no log.",
        read_only=True,
    ),
    Parameter(
        name="log_limit",
        default=1000,
        low=1,
        high=1_000_000,
        unit="MB",
        description="Size of the log, the oldest goes first.",
        read_only=True,
    ),
    *health.PARAMETERS,
)


def settings(options: Mapping[str, Any]) -> Settings:
    """What the parameters ask for.

    Raises:
        InputError: A value cannot be.

    """
    return Settings(
        method=options["method"],
        roi=parse_roi(options["roi"]),
        ignore=parse_polygons(options["ignore"]),
        position=options["tolerance.position"],
        angle=options["tolerance.angle"],
        margin=options["margin"],
        least_area=options["least_area"],
    )


def parse_roi(text: str) -> tuple[int, int, int, int] | None:
    """The region of a text such as "10 20 300 200"; None of an empty one.

    Raises:
        InputError: It is not of this form.

    """
    if not text.strip():
        return None
    try:
        x, y, width, height = (int(value) for value in text.replace(",", " ").split())
    except ValueError as error:
        raise InputError(f'roi is {text!r}; write "x y width height" in whole pixels') from error
    return x, y, width, height
