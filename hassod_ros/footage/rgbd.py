"""Colour with depth: folders of pictures with an index, and recordings."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.footage.frame import CameraInfo, Frame, Say
from hassod_ros.footage.kinds import is_bag
from hassod_ros.images import list_images, read_image

INDEX = "frames.json"
_MATCH = 0.15  # s between an image and its depth; some cameras take them in turn
_MILLIMETRE = np.float32(1e-3)


class Shot(NamedTuple):
    """A frame and where its camera was.

    Attributes:
        frame: With depth, where there is any.
        pose: (4, 4) from the camera's optical frame to the world, where it is known.

    """

    frame: Frame
    pose: np.ndarray | None = None


def is_rgbd(source: str | os.PathLike) -> bool:
    """Whether a source holds depth beside colour: an index, a folder with one, or folders `rgb` and `depth`."""
    path = Path(source)
    if path.suffix == ".json":
        return True
    return path.is_dir() and ((path / INDEX).is_file() or ((path / "rgb").is_dir() and (path / "depth").is_dir()))


def open_rgbd(source: str | os.PathLike, *, say: Say = print) -> Iterator[Shot]:
    """Frames with depth, in order.

    An index is JSON with a list `frames` or `images`, each with `file_name`, `depth_file` (16-bit PNG, millimetres, 0 =
    none; paths beside the index), `intrinsics` (fx, fy, cx, cy; or once for all), and perhaps `pose_cam2world` (4 x 4).
    Without one, pictures of equal names in `rgb/` and `depth/` belong together.

    Args:
        source: Index, folder, or recording.
        say: Gets one sentence for each frame that cannot be read; it is passed over.

    Raises:
        InputError: Nothing there, or nothing of it can be read.

    """
    path = Path(source)
    if is_bag(path):
        yield from _recorded(path, say)
        return
    shown = 0
    entries = _entries(path)
    for entry, folder in entries:
        try:
            shot = _read(entry, folder)
        except InputError as error:
            say(str(error))
            continue
        shown += 1
        yield shot
    if not shown:
        raise InputError(f"none of {len(entries)} frames of {path} can be read; check the files that it names")


def _recorded(path: Path, say: Say) -> Iterator[Shot]:
    try:
        from hassod_ros.footage.bags import frames  # a robot need not have the packages
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("hassod_ros"):
            raise
        raise InputError(
            f"{path} is a recording, the package {error.name} that reads it is missing; run pip install "
            "'hassod_ros[footage]'"
        ) from error
    for frame in frames(path, match=_MATCH, say=say):
        yield Shot(frame)


def _entries(path: Path) -> list[tuple[Mapping[str, Any], Path]]:
    index = path / INDEX if path.is_dir() else path
    if index.is_file():
        try:
            data = json.loads(index.read_text(encoding="utf-8"))
            frames = data.get("frames", data.get("images"))
            shared = {"intrinsics": data["intrinsics"]} if "intrinsics" in data else {}
            return [({**shared, **entry}, index.parent) for entry in frames]
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{index} is no index of frames: {error}; see docs/manipulation.md") from error
    if not path.is_dir():
        raise InputError(f"{path} does not exist; check the path")
    depth = {file.stem: file for file in sorted((path / "depth").glob("*.png"))}
    return [
        ({"file_name": str(picture), "depth_file": str(depth[picture.stem])}, path)
        for picture in list_images(path / "rgb")
        if picture.stem in depth
    ]


def _read(entry: Mapping[str, Any], folder: Path) -> Shot:
    try:
        picture, depth_file = folder / entry["file_name"], folder / entry["depth_file"]
    except (KeyError, TypeError) as error:
        raise InputError(f"an entry of the index in {folder} lacks {error}; give file_name and depth_file") from error
    pixels = read_image(picture)
    depth = cv2.imread(str(depth_file), cv2.IMREAD_UNCHANGED)
    if depth is None or depth.dtype != np.uint16 or depth.ndim != 2:
        raise InputError(f"{depth_file} is not a 16-bit PNG of millimetres; convert it")
    metres = depth.astype(np.float32) * _MILLIMETRE
    metres[depth == 0] = np.nan
    lens = entry.get("intrinsics")
    frame = Frame(
        camera=str(folder),
        stamp=0,
        pixels=pixels,
        info=_info(pixels.shape[:2], lens) if lens else None,
        depth=metres,
        depth_info=_info(pixels.shape[:2], lens) if lens else None,
    )
    pose = entry.get("pose_cam2world")
    return Shot(frame, None if pose is None else np.array(pose, np.float64).reshape(4, 4))


def _info(size: tuple[int, int], lens: Mapping[str, float]) -> CameraInfo:
    try:
        fx, fy, cx, cy = (float(lens[name]) for name in ("fx", "fy", "cx", "cy"))
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"intrinsics {dict(lens)} lack {error}; give fx, fy, cx and cy") from error
    k = (fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0)
    p = (fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0)
    return CameraInfo(size, k, (), "plumb_bob", (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0), p, "")


class Link(NamedTuple):
    """A transform of /tf_static: where `child` is in `parent`, x y z in m, and a quaternion x y z w."""

    parent: str
    child: str
    translation: tuple[float, float, float]
    rotation: tuple[float, float, float, float]


def static_transforms(path: str | os.PathLike, say: Say = print) -> list[Link]:
    """The transforms of a recording's /tf_static; none where it cannot be read, which is said."""
    from rosbags.highlevel import AnyReader
    from rosbags.typesys import Stores, get_typestore

    links = {}
    try:
        with AnyReader([Path(path)], default_typestore=get_typestore(Stores.LATEST)) as reader:
            connections = [each for each in reader.connections if each.topic == "/tf_static"]
            for connection, _, raw in reader.messages(connections) if connections else ():
                for each in reader.deserialize(raw, connection.msgtype).transforms:  # type: ignore[attr-defined]
                    place, turn = each.transform.translation, each.transform.rotation
                    links[each.child_frame_id] = Link(
                        each.header.frame_id,
                        each.child_frame_id,
                        (place.x, place.y, place.z),
                        (turn.x, turn.y, turn.z, turn.w),
                    )
    except Exception as error:  # damaged recordings fail in many ways
        say(f"the transforms of {path} cannot be read: {error}")
    return list(links.values())
