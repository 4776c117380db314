"""What inspection_node publishes about each part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from sensor_msgs.msg import CompressedImage, Image, RegionOfInterest
from std_msgs.msg import Header

from hassod_msgs.msg import Finding as FindingMessage
from hassod_msgs.msg import Verdict as VerdictMessage
from hassod_ros.inspection.drawing import draw_verdict
from hassod_ros.inspection.store import Stored
from hassod_ros.inspection.verdict import Finding, Verdict
from hassod_ros.nodes.convert import array_to_image
from hassod_ros.nodes.outputs import Output


@dataclass(frozen=True)
class Judged:
    """A part and its verdict.

    Attributes:
        header: Of the image.
        picture: (H, W, 3) uint8 RGB; None where there was no image.
        verdict: What became of it.
        stored: The reference that it was held against; None without one.
        tact: ms from the image's arrival to the verdict.
        options: The node's parameters by name.

    """

    header: Header
    picture: np.ndarray | None
    verdict: Verdict
    stored: Stored | None
    tact: float
    options: dict[str, Any]

    @cached_property
    def drawing(self) -> np.ndarray:
        """uint8 RGB, see `draw_verdict`."""
        picture = np.zeros((480, 640, 3), np.uint8) if self.picture is None else self.picture
        return draw_verdict(picture, self.verdict)


def verdict_message(judged: Judged) -> VerdictMessage:
    """`~/verdict`."""
    verdict, stored = judged.verdict, judged.stored
    message = VerdictMessage(header=judged.header, result=int(verdict.result), sentence=verdict.sentence)
    message.score, message.tact = float(verdict.score), float(judged.tact)
    if (alignment := verdict.alignment) is not None:
        message.shift_x, message.shift_y = alignment.shift
        message.angle, message.scale = alignment.angle, alignment.scale
        message.correlation = alignment.correlation
    if verdict.light is not None:
        message.light = verdict.light.change
    if stored is not None:
        message.reference_name, message.reference_version = stored.reference.name, stored.version
        message.reference_sha256 = stored.sha256
    message.findings = [_finding_message(each) for each in verdict.findings]
    return message


def _finding_message(finding: Finding) -> FindingMessage:
    x0, y0, x1, y1 = finding.box
    return FindingMessage(
        kind=int(finding.kind),
        component_id=finding.component,
        roi=RegionOfInterest(x_offset=x0, y_offset=y0, width=x1 - x0, height=y1 - y0),
        measured=float(finding.measured),
        limit=float(finding.limit),
        unit=finding.unit,
        sentence=finding.sentence,
    )


def _overlay(judged: Judged) -> Image:
    return array_to_image(judged.drawing, "rgb8", judged.header)


def _compressed_overlay(judged: Judged) -> CompressedImage:
    quality = [cv2.IMWRITE_JPEG_QUALITY, judged.options["overlay.jpeg_quality"]]
    message = CompressedImage(header=judged.header, format="rgb8; jpeg compressed bgr8")
    code = cv2.imencode(".jpg", cv2.cvtColor(judged.drawing, cv2.COLOR_RGB2BGR), quality)[1]
    message.data.frombytes(code.data.cast("B"))
    return message


def _heatmap(judged: Judged) -> Image | None:
    if judged.picture is None:
        return None
    heat = judged.verdict.heatmap((judged.picture.shape[0], judged.picture.shape[1]))
    return array_to_image(heat, "32FC1", judged.header)


OUTPUTS: tuple[Output[Judged], ...] = (
    Output("verdict", VerdictMessage, verdict_message),
    Output("overlay", Image, _overlay, urgent=False),
    Output("overlay/compressed", CompressedImage, _compressed_overlay, urgent=False),
    Output("heatmap", Image, _heatmap, urgent=False),
)
