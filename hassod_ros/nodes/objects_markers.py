"""Things in space for rviz: boxes, names, grasps and supports, each with the id of its object."""

from __future__ import annotations

import colorsys

import numpy as np
from geometry_msgs.msg import Point, Vector3
from std_msgs.msg import ColorRGBA
from visualization_msgs.msg import Marker, MarkerArray

from hassod_ros.geometry.grasps import Grasp
from hassod_ros.geometry.objects import Flag
from hassod_ros.instances import Level
from hassod_ros.nodes.objects_messages import Located

_FINGER = 0.05  # m, length that a finger is drawn with
_SUPPORT = ColorRGBA(r=0.6, g=0.6, b=0.6, a=0.25)
_TURN = 0.618  # of the colour circle between two ids: neighbours differ


class Markers:
    """Builds MarkerArrays that also take away what has gone since the last one."""

    def __init__(self) -> None:
        self._shown: set[tuple[str, int]] = set()

    def build(self, result: Located) -> MarkerArray:
        """`~/markers` of a result."""
        objects = result.scene.objects
        markers = []
        for i in result.published.tolist():
            name = int(result.ids[i]) & 0x7FFFFFFF  # a marker's id has a sign
            color = _SUPPORT if objects.is_support[i] else _color(name, objects.levels[i])
            box = Marker(ns="boxes", id=name, type=Marker.CUBE, pose=result.poses[i], color=color)
            box.scale = Vector3(**dict(zip("xyz", objects.sizes[i].tolist(), strict=True)))
            markers.append(box)
            if objects.is_support[i] or objects.levels[i] != Level.WHOLE:
                continue
            text = Marker(ns="names", id=name, type=Marker.TEXT_VIEW_FACING, pose=result.poses[i])
            text.text = _text(result, i)
            text.scale.z, text.color = 0.02, ColorRGBA(r=1.0, g=1.0, b=1.0, a=1.0)
            markers.append(text)
        for i, grasps in result.grasps.items():
            if grasps:
                markers.append(_gripper(int(result.ids[i]) & 0x7FFFFFFF, grasps[0], result.transform))
        for marker in markers:
            marker.header, marker.action = result.header, Marker.ADD
        now = {(marker.ns, marker.id) for marker in markers}
        gone = [
            Marker(header=result.header, ns=ns, id=name, action=Marker.DELETE) for ns, name in sorted(self._shown - now)
        ]
        self._shown = now
        return MarkerArray(markers=[*gone, *markers])

    def clear(self) -> MarkerArray:
        """Takes everything away."""
        self._shown = set()
        return MarkerArray(markers=[Marker(action=Marker.DELETEALL)])


def _text(result: Located, i: int) -> str:
    objects = result.scene.objects
    sides = " x ".join(f"{1e3 * side:.0f}" for side in objects.sizes[i])
    flags = " ".join(flag.name.lower() for flag in Flag if objects.flags[i] & flag and flag.name)
    return f"{result.ids[i]}: {sides} mm{f' {flags}' if flags else ''}"


def _color(name: int, level: int) -> ColorRGBA:
    red, green, blue = colorsys.hsv_to_rgb(name * _TURN % 1, 0.7, 1.0)
    return ColorRGBA(r=red, g=green, b=blue, a=0.45 if level == Level.WHOLE else 0.25)


def _gripper(name: int, grasp: Grasp, transform: np.ndarray) -> Marker:
    """Both fingers and the palm as lines."""
    marker = Marker(ns="grasps", id=name, type=Marker.LINE_LIST, color=ColorRGBA(r=1.0, g=0.2, b=0.1, a=1.0))
    marker.scale.x = 0.003
    marker.pose.orientation.w = 1.0
    half = grasp.width / 2
    corners = np.array([[0, s * half, z, 1] for s in (-1, 1) for z in (grasp.reach, grasp.reach - _FINGER)])
    points = [Point(x=x, y=y, z=z) for x, y, z, _ in (transform @ grasp.pose @ corners.T).T.tolist()]
    marker.points = [points[i] for i in (0, 1, 2, 3, 1, 3)]
    return marker
