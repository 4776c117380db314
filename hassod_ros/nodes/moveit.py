"""Boxes for MoveIt's planning scene, where moveit_msgs is installed; else `INSTALLED` is False."""

from __future__ import annotations

from typing import Any

from hassod_ros.nodes.objects_messages import Located

try:
    from moveit_msgs.msg import CollisionObject, PlanningScene
    from shape_msgs.msg import SolidPrimitive
except ImportError:
    INSTALLED = False
else:
    INSTALLED = True

PREFIX = "hassod_"


class PlanningSceneBoxes:
    """Diffs of the planning scene: a box `hassod_ID` for each whole and support, which leaves when it is not seen.

    Other objects of the scene are left alone, and so are boxes that are attached to the robot.
    """

    def __init__(self) -> None:
        self._seen: dict[str, tuple[float, str]] = {}  # name -> when, frame

    def build(self, result: Located, now: float) -> Any:
        """The diff of a result that came `now` (s, a steady clock)."""
        objects = result.scene.objects
        diff = PlanningScene(is_diff=True)
        diff.robot_state.is_diff = True
        for i in result.published.tolist():
            if objects.parents[i] >= 0:
                continue
            name = f"{PREFIX}{result.ids[i]}"
            box = SolidPrimitive(type=SolidPrimitive.BOX, dimensions=objects.sizes[i].tolist())
            solid = CollisionObject(header=result.header, id=name, operation=CollisionObject.ADD)
            # The pose of the box and not of the object: older MoveIt versions know no other.
            solid.pose.orientation.w = 1.0
            solid.primitives, solid.primitive_poses = [box], [result.poses[i]]
            diff.world.collision_objects.append(solid)
            self._seen[name] = (now, result.header.frame_id)
        diff.world.collision_objects += self._gone(now, result.options["planning_scene.ttl"])
        return diff

    def expire(self, now: float, ttl: float) -> Any | None:
        """The diff that takes away what was not seen for `ttl` seconds; None where there is nothing."""
        gone = self._gone(now, ttl)
        if not gone:
            return None
        diff = PlanningScene(is_diff=True)
        diff.robot_state.is_diff = True
        diff.world.collision_objects = gone
        return diff

    def _gone(self, now: float, ttl: float) -> list[Any]:
        names = [name for name, (seen, _) in self._seen.items() if now - seen > ttl]
        gone = []
        for name in names:
            _, frame = self._seen.pop(name)
            message = CollisionObject(id=name, operation=CollisionObject.REMOVE)
            message.header.frame_id = frame
            gone.append(message)
        return gone
