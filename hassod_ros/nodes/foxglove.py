"""Instances as foxglove_msgs/ImageAnnotations, which Foxglove draws over any image; without it `INSTALLED` is False."""

from __future__ import annotations

import numpy as np
from std_msgs.msg import Header

from hassod_ros.drawing import colours
from hassod_ros.instances import Instances, Level
from hassod_ros.runtime.mask_encoding import outlines

try:
    from foxglove_msgs.msg import Color, ImageAnnotations, Point2, PointsAnnotation, TextAnnotation
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

_TOLERANCE = 1.5  # pixels that an outline may run beside its mask; every point is a message
_FILL = 0.25
_FONT = 12.0


def image_annotations(instances: Instances, header: Header) -> ImageAnnotations:
    """Outlines in the colours of the overlay, and level and score of each whole.

    Args:
        instances: Of the image that `header` belongs to.
        header: Of the input image.

    """
    message = ImageAnnotations()
    regions = instances.regions.tolist()
    for i, color in enumerate((colours(instances) / 255).tolist()):
        x0, y0 = regions[i][:2]
        for line in outlines(instances.masks[i], _TOLERANCE):
            shape = PointsAnnotation(timestamp=header.stamp, type=PointsAnnotation.LINE_LOOP, thickness=1.0)
            shape.points = [Point2(x=float(x), y=float(y)) for x, y in np.add(line, (x0, y0)).tolist()]
            # As in the overlay, background and supports have an outline only.
            shape.outline_color = _color(color, 1.0)
            shape.fill_color = _color(color, 0.0 if instances.scene[i] else _FILL)
            message.points.append(shape)
        if instances.levels[i] == Level.WHOLE:
            text = TextAnnotation(timestamp=header.stamp, text=f"whole {instances.scores[i]:.2f}", font_size=_FONT)
            text.position = Point2(x=float(x0), y=float(y0))
            text.text_color, text.background_color = _color([1.0] * 3, 1.0), _color(color, 0.7)
            message.texts.append(text)
    return message


def _color(rgb: list[float], alpha: float) -> Color:
    return Color(r=rgb[0], g=rgb[1], b=rgb[2], a=alpha)
