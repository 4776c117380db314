"""The diagnostics of one camera of perception_node."""

from __future__ import annotations

from typing import Any, NamedTuple

from diagnostic_msgs.msg import DiagnosticStatus

from hassod_ros.nodes.camera import Camera
from hassod_ros.nodes.diagnostics import frame_status
from hassod_ros.nodes.frames import FrameLoop
from hassod_ros.runtime.model_slot import ModelSlot
from hassod_ros.runtime.stream import FrameStatistics


class NodeState(NamedTuple):
    """What all cameras share.

    Attributes:
        slot: Of the model.
        frames: Works on the cameras' frames; None while the node is not active.
        failure: Why the last transition failed, or "".
        told_model: What `~/reload_model` was told in place of the parameter's, or "".
        enabled: False while `~/enable` says no.

    """

    slot: ModelSlot
    frames: FrameLoop | None
    failure: str
    told_model: str
    enabled: bool


def camera_status(node: str, camera: Camera | None, state: NodeState, options: dict[str, Any]) -> DiagnosticStatus:
    """The status of a camera, or of the node while it is not configured and has none.

    Args:
        node: Its full name.
        camera: None where there is none.
        state: Of the node.
        options: Its parameters by name.

    """
    slot, model = state.slot, state.slot.model
    images = camera.input if camera is not None else None
    silence = images.silence if images is not None else 0.0
    return frame_status(
        f"{node}: {(camera and camera.name) or 'segmentation'}",
        camera.statistics if camera else FrameStatistics(),
        options,
        failure=state.failure or (camera.failure if camera else ""),
        idle=_idle(camera, state),
        warnings=camera.warnings() if camera else (),
        judged={"silence": silence, "no_result": state.frames.overdue() if state.frames else 0.0},
        text={
            "model": model.name if model else "",
            "model_sha256": model.sha256 if model else "",
            "told_model": state.told_model,
            "precision": model.precision if model else "",
            "backend": model.segmenter.backend if model else "",
            "loading": slot.loading,
            "progress": slot.progress,
            "input": images.describe() if images else "",
            "last_malformed": camera.malformed if camera else "",
        },
        figures={
            "since_last_image_s": silence,
            "clock_offset_s": camera.clock.offset if camera else 0.0,
        },
    )


def _idle(camera: Camera | None, state: NodeState) -> str:
    """Why nothing is expected to come out, "" where something is."""
    images = camera.input if camera is not None else None
    if images is None:
        slot = state.slot
        return ": ".join(filter(None, (f"loading {slot.loading}", slot.progress))) if slot.loading else "not active"
    if not state.enabled:
        return "disabled"
    return "" if images.subscribed else "waiting: nobody subscribes to the results"
