"""The parameters of objects_3d_node."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hassod_ros.geometry.grasps import Gripper
from hassod_ros.geometry.objects import ObjectOptions
from hassod_ros.nodes import health
from hassod_ros.nodes.parameters import Parameter
from hassod_ros.nodes.perception_parameters import LEVEL_NAMES
from hassod_ros.nodes.shared_parameters import DIAGNOSTICS_PERIOD, INPUT_RELIABILITY, OUTPUT_RELIABILITY

REGISTRATIONS = ("auto", "assume")

PARAMETERS = (
    Parameter(
        name="autostart",
        default=False,
        description="Configure and activate at start, without a launch file or lifecycle manager.",
        read_only=True,
    ),
    Parameter(
        name="target_frame",
        default="",
        description="Frame that everything is published in, by the transform at the image's stamp; empty = the image's "
        "own. The planning scene and rviz need a frame that they know.",
    ),
    Parameter(
        name="depth_scale",
        default=0.0,
        low=0.0,
        high=1000.0,
        unit="m",
        description="Metres per unit of the depth image; 0 = by its encoding: millimetres in 16UC1, metres in 32FC1.",
    ),
    Parameter(
        name="registration",
        default="auto",
        choices=REGISTRATIONS,
        description="auto brings depth of another frame, lens or size onto the image; assume takes it as it is, for "
        "drivers that align it and keep the depth camera's frame_id.",
    ),
    Parameter(
        name="rectified",
        default=False,
        description="Image and depth are rectified (image_rect): their camera_info's projection holds instead of its "
        "camera matrix and distortion.",
    ),
    Parameter(
        name="max_skew",
        default=0.02,
        low=0.0,
        high=10.0,
        unit="s",
        description="Most that the stamps of image and depth may differ; an equal stamp is preferred.",
    ),
    Parameter(
        name="erode",
        default=2,
        low=0,
        high=50,
        unit="px",
        description="Width of a mask's rim in which depth counts only where it is connected to the depth inside.",
    ),
    Parameter(
        name="jump",
        default=0.02,
        low=0.001,
        high=1.0,
        description="Share of its depth by which a pixel lies behind its neighbour where the depth jumps.",
    ),
    Parameter(
        name="max_depth",
        default=2.0,
        low=0.05,
        high=100.0,
        unit="m",
        description="What is further is left out.",
    ),
    Parameter(
        name="least_coverage",
        default=0.3,
        low=0.0,
        high=1.0,
        description="Share of a mask that must have depth; an object with less is flagged FEW_POINTS.",
    ),
    Parameter(
        name="least_score",
        default=0.0,
        low=0.0,
        high=1.0,
        description="Instances with a lower score are left out.",
    ),
    Parameter(
        name="levels",
        default=list(LEVEL_NAMES),
        choices=LEVEL_NAMES,
        description="Levels that are published, as they are without the supports.",
    ),
    Parameter(
        name="gripper.opening",
        default=0.085,
        low=0.0,
        high=1.0,
        unit="m",
        description="Widest distance of the fingers; 0 = no grasps.",
    ),
    Parameter(
        name="gripper.thickness",
        default=0.012,
        low=0.001,
        high=0.2,
        unit="m",
        description="Of a finger along the closing direction.",
    ),
    Parameter(
        name="gripper.width",
        default=0.02,
        low=0.001,
        high=0.2,
        unit="m",
        description="Of a finger across the closing direction.",
    ),
    Parameter(
        name="gripper.length",
        default=0.04,
        low=0.005,
        high=0.5,
        unit="m",
        description="How far the fingers reach around a thing.",
    ),
    Parameter(
        name="gripper.margin",
        default=0.004,
        low=0.0,
        high=0.1,
        unit="m",
        description="Least distance of the fingers to the support and to what is not held.",
    ),
    Parameter(
        name="planning_scene.ttl",
        default=2.0,
        low=0.1,
        high=3600.0,
        unit="s",
        description="Time after which a box that is not seen any longer leaves the planning scene.",
    ),
    INPUT_RELIABILITY,
    OUTPUT_RELIABILITY,
    DIAGNOSTICS_PERIOD,
    *health.PARAMETERS,
)


def object_options(options: Mapping[str, Any]) -> ObjectOptions:
    """What the parameters say about masks and depth."""
    return ObjectOptions(
        erode=options["erode"],
        jump=options["jump"],
        max_depth=options["max_depth"],
        least_coverage=options["least_coverage"],
    )


def gripper(options: Mapping[str, Any]) -> Gripper:
    """The gripper of the parameters."""
    return Gripper(
        **{name: options[f"gripper.{name}"] for name in ("opening", "thickness", "width", "length", "margin")}
    )
