"""The parameters of perception_node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hassod_ros.default_model import DEFAULT
from hassod_ros.instances import Level
from hassod_ros.nodes import health
from hassod_ros.nodes.messages import MASK_ENCODINGS
from hassod_ros.nodes.parameters import Parameter
from hassod_ros.nodes.shared_parameters import DIAGNOSTICS_PERIOD, INPUT_RELIABILITY, OUTPUT_RELIABILITY
from hassod_ros.runtime.backends import BACKENDS
from hassod_ros.runtime.selection import Selection

LEVEL_NAMES = tuple(level.name.lower() for level in Level)

PARAMETERS = (
    Parameter(
        name="model",
        default=DEFAULT,
        description="Path of an exported model; default or default-int8, which ship with the package; or "
        "training_free, discovery itself. Later changes: `~/reload_model`.",
        read_only=True,
    ),
    Parameter(
        name="model_roots",
        default=[""],
        description="Folders that models are loaded from, links resolved, whoever asks; a single empty one = any file.",
        read_only=True,
    ),
    Parameter(
        name="backend",
        default="auto",
        choices=("auto", *BACKENDS),
        description="What runs an exported model; auto = ONNX Runtime on the GPU where it can, else on the CPU.",
        read_only=True,
    ),
    Parameter(
        name="device",
        default="",
        description="Where the model runs: cpu, cuda or cuda:NUMBER; empty = as the backend has it.",
        read_only=True,
    ),
    Parameter(
        name="threads",
        default=0,
        low=0,
        high=1024,
        description="Threads that ONNX Runtime computes with on the CPU; 0 = one per core that the process may use.",
        read_only=True,
    ),
    Parameter(
        name="cache",
        default="",
        description="Folder for engines that are built for a GPU; empty = ~/.cache/hassod_ros/engines.",
        read_only=True,
    ),
    Parameter(
        name="workspace",
        default=0,
        low=0,
        high=1_000_000,
        unit="MB",
        description="Most scratch memory of a layer when TensorRT builds an engine; 0 = all of the GPU's.",
        read_only=True,
    ),
    Parameter(
        name="dla_core",
        default=-1,
        low=-1,
        high=15,
        description="Deep learning accelerator (Jetson) that TensorRT uses where it can; -1 = the GPU only.",
        read_only=True,
    ),
    Parameter(
        name="remember_model",
        default=True,
        description="Load what `~/reload_model` took last when the node is configured again, also after a restart, "
        "until the parameter model says something else. Kept in $ROS_HOME/hassod_ros, by default ~/.ros/hassod_ros.",
        read_only=True,
    ),
    Parameter(
        name="autostart",
        default=False,
        description="Configure and activate at start, without a launch file or lifecycle manager.",
        read_only=True,
    ),
    Parameter(
        name="cameras",
        default=[""],
        description="Names of the cameras. NAME subscribes `NAME/image` and publishes below `~/NAME/`; a single empty "
        "name subscribes `image` and publishes below `~/`.",
        read_only=True,
    ),
    Parameter(
        name="image_transport",
        default="raw",
        choices=("raw", "compressed"),
        description="`raw` subscribes `image`, `compressed` subscribes `image/compressed`.",
        read_only=True,
    ),
    INPUT_RELIABILITY,
    OUTPUT_RELIABILITY,
    *(
        Parameter(
            name=f"score_thresholds.{name}",
            default=-1.0,
            low=-1.0,
            high=1.0,
            description=f"Least score of a {name} in place of the model's own; below 0 = the model's own.",
        )
        for name in LEVEL_NAMES
    ),
    Parameter(
        name="parent_coverage",
        formerly="cover",
        default=0.0,
        low=0.0,
        high=1.0,
        description="Share of a mask that its parent must contain, in place of the model's own; 0 = the model's own. "
        "Higher: fewer parts, more wholes.",
    ),
    Parameter(
        name="levels",
        default=list(LEVEL_NAMES),
        choices=LEVEL_NAMES,
        description="Levels that are published; children of a missing level hang on the next one above.",
    ),
    Parameter(
        name="max_instances",
        default=100,
        low=1,
        high=1000,
        description="Most instances per image; the best scores are kept.",
    ),
    Parameter(
        name="publish_scene",
        default=False,
        description="Publish background and supports too, such as floor, wall and table top.",
    ),
    Parameter(
        name="mask_encoding",
        default="crop",
        choices=tuple(MASK_ENCODINGS),
        description="How `~/instances` writes masks: as images of their rectangles, as run lengths (exact), or as "
        "polygons (up to three quarters of a pixel beside the border).",
    ),
    Parameter(
        name="max_rate",
        default=0.0,
        low=0.0,
        high=1000.0,
        unit="Hz",
        description="Most images per second and camera that are segmented, 0 = no limit.",
    ),
    Parameter(
        name="max_age",
        default=0.0,
        low=0.0,
        high=3600.0,
        unit="s",
        description="Images older than this when their turn comes are dropped, 0 = no limit.",
    ),
    Parameter(
        name="correct_clock",
        default=False,
        description="Where the clocks of camera and node differ by more than a second, count ages from the camera's "
        "freshest images. A slow way from the camera looks the same.",
    ),
    Parameter(
        name="tracking",
        default=True,
        description="Give instances ids that stay the same from image to image.",
    ),
    Parameter(
        name="tracking.memory",
        default=1.0,
        low=0.0,
        high=3600.0,
        unit="s",
        description="How long a thing keeps its id that is not seen; where images come slowly, three images long.",
    ),
    Parameter(
        name="tracking.least_iou",
        default=0.3,
        low=0.0,
        high=1.0,
        description="Mask IoU, with the place where a thing should be by now, that makes it the same thing.",
    ),
    Parameter(
        name="overlay.max_rate",
        default=10.0,
        low=0.0,
        high=1000.0,
        unit="Hz",
        description="Most overlays per second and camera that are drawn, 0 = as many as there is time for.",
    ),
    Parameter(
        name="overlay.opacity",
        default=0.45,
        low=0.0,
        high=1.0,
        description="Share of the colour in the overlay's fills.",
    ),
    Parameter(
        name="overlay.outline", default=1, low=0, high=20, unit="px", description="Width of the overlay's outlines."
    ),
    Parameter(
        name="overlay.jpeg_quality",
        default=85,
        low=1,
        high=100,
        description="Quality of `~/overlay/compressed`.",
    ),
    DIAGNOSTICS_PERIOD,
    *health.PARAMETERS,
)


def camera_parameters(name: str) -> tuple[Parameter, ...]:
    """Those of one camera; `name` is "" for the only one."""
    prefix = f"{name}." if name else ""
    return (
        Parameter(
            name=f"{prefix}region",
            default=[0, 0, 0, 0],
            description="The part of the image that is segmented: x, y, width and height in px; a width or height of 0 "
            "goes up to the edge. Results are in pixels of the whole image.",
            read_only=True,
        ),
        Parameter(
            name=f"{prefix}ignore_mask",
            default="",
            description="Image file of the camera's size; what lies mostly where it is white is not published.",
            read_only=True,
        ),
        Parameter(
            name=f"{prefix}pixel_range",
            default=[0.0, 0.0],
            description="Values of 16-bit images that become black and white, such as 7000 and 8500 of a thermal "
            "camera; 0 and 0 = by the last 30 images.",
            read_only=True,
        ),
    )


def selection(options: Mapping[str, Any]) -> Selection:
    """What the parameters ask for."""
    wanted = [options[f"score_thresholds.{name}"] for name in LEVEL_NAMES]
    return Selection(
        score_thresholds=tuple(None if least < 0 else least for least in wanted),
        parent_coverage=options["parent_coverage"] or None,
        levels=tuple(Level[name.upper()] for name in options["levels"]),
        max_instances=options["max_instances"],
        scene=options["publish_scene"],
    )


def backend_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """What is passed to the backend of a model: only what was asked for, as no backend has everything."""
    given = {name: options[name] for name in ("device", "threads", "cache") if options[name]}
    if options["workspace"]:
        given["workspace"] = options["workspace"] * 1_000_000
    if options["dla_core"] >= 0:
        given["dla_core"] = options["dla_core"]
    return given
