"""Frames of the cameras in recordings: rosbag2 (MCAP, sqlite3), plain MCAP, ROS 1 bags; no ROS installation needed."""

from __future__ import annotations

import base64
import json
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from functools import cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import zstandard
from rosbags.typesys import Stores, get_typestore
from rosbags.typesys.store import Typestore

from hassod_ros.errors import InputError
from hassod_ros.footage.frame import CameraInfo, Frame, Say
from hassod_ros.footage.kinds import ZSTD, bag_files
from hassod_ros.footage.salvage import Raw, read_messages
from hassod_ros.image_messages import compressed_to_array, image_to_array, to_rgb

IMAGE, COMPRESSED, INFO = "sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage", "sensor_msgs/msg/CameraInfo"
# What Foxglove's own recordings hold, as JSON.
_FOXGLOVE = {"foxglove.RawImage": IMAGE, "foxglove.CompressedImage": COMPRESSED, "foxglove.CameraCalibration": INFO}
_READ = {(kind, encoding) for kind in (IMAGE, COMPRESSED, INFO) for encoding in ("cdr", "ros1")} | {
    (kind, "json") for kind in _FOXGLOVE
}
_DEPTH_ENCODINGS = ("16uc1", "32fc1", "mono16")
_WAIT = 8  # images of a camera that may wait for their depth, and depth images for theirs
_WAIT_FOR_FIRST = 2  # images of a camera of which no depth was seen yet
MATCH = 0.02  # s between the stamps of an image and its depth


class CameraMessage(NamedTuple):
    """A message of a camera, not decoded to pixels.

    Attributes:
        topic: Its name.
        type: `IMAGE`, `COMPRESSED` or `INFO`.
        log_time: When it was recorded, ns.
        stamp: Of the header, ns; the log time where that is 0.
        message: The fields of its type; `data` is uint8.

    """

    topic: str
    type: str
    log_time: int
    stamp: int
    message: Any


def topics(path: str | os.PathLike, say: Say = print) -> dict[str, tuple[str, int]]:
    """Type and number of messages of every topic; reads the whole recording."""
    types: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for file in bag_files(path):
        for raw in read_messages(file, lambda topic, kind: True, say):
            types[raw.topic] = raw.type
            counts[raw.topic] += 1
    return {topic: (types[topic], counts[topic]) for topic in sorted(types)}


def camera_messages(
    path: str | os.PathLike, *, topics: Sequence[str] = (), say: Say = print
) -> Iterator[CameraMessage]:
    """Images and camera_info of a recording, in the order in which they were written.

    Args:
        path: Folder or file of a recording.
        topics: Only these topics' images; default: all.
        say: Gets one sentence for everything that is lost or cannot be read.

    Raises:
        InputError: There is nothing of a camera in it; the sentence names what is.

    """
    seen: dict[str, str] = {}
    foreign: dict[str, str] = {}
    broken: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    read = 0

    def wanted(topic: str, kind: str) -> bool:
        seen[topic] = kind
        known = _FOXGLOVE.get(kind, kind)
        return known == INFO or (known in (IMAGE, COMPRESSED) and (not topics or topic in topics))

    for file in bag_files(path):
        for raw in read_messages(file, wanted, say):
            if (raw.type, raw.encoding) not in _READ:
                foreign[raw.topic] = f"{raw.type} as {raw.encoding}"
                continue
            try:
                message = _decode(raw)
            except Exception as error:  # whatever damaged bytes make of the decoders
                broken[raw.topic] += 1
                reasons.setdefault(raw.topic, str(error))
                continue
            read += message.type != INFO
            yield message
    for topic, what in foreign.items():
        say(f"{path}: {topic} is {what}, which is not read; record it as {IMAGE} or {COMPRESSED}")
    for topic, count in broken.items():
        say(f"{path}: {count} messages of {topic} are damaged ({reasons[topic]})")
    if missing := [topic for topic in topics if topic not in seen]:
        say(f"{path} has no topic {', '.join(missing)}")
    if not read and not broken:
        shown = ", ".join(f"{topic} ({kind})" for topic, kind in sorted(seen.items())[:8]) or "no topic at all"
        more = f" and {len(seen) - 8} more" if len(seen) > 8 else ""
        raise InputError(f"{path} holds no image{' of the given topics' if topics else ''}: {shown}{more}")


def frames(
    path: str | os.PathLike,
    *,
    topics: Sequence[str] = (),
    max_rate: float = 0.0,
    match: float = MATCH,
    say: Say = print,
) -> Iterator[Frame]:
    """Pictures of all cameras of a recording, with depth beside them where the stamps match.

    Memory does not grow with the recording. Images that are damaged or of unknown encodings are counted and told.

    Args:
        path: Folder or file of a recording.
        topics: Only these topics, the depth topic included; default: all.
        max_rate: Most pictures per second and camera, 0 = all; what is passed over is not decoded.
        match: Greatest difference of the stamps of an image and its depth, s.
        say: Gets one sentence for everything that is lost or cannot be read.

    Raises:
        InputError: There is no picture in it.

    """
    pairs = _Pairs(match * 1e9)
    last: dict[str, int] = {}
    infos: dict[str, CameraInfo] = {}
    bad: Counter[str] = Counter()
    reasons: dict[str, str] = {}
    yielded = 0

    def decode(image: CameraMessage, depth: CameraMessage | None) -> Frame | None:
        try:
            return _frame(image, depth, infos)
        except InputError as error:
            bad[image.topic] += 1
            reasons.setdefault(image.topic, str(error))
            return None

    def pairs_of_all() -> Iterator[tuple[CameraMessage, CameraMessage | None]]:
        for message in camera_messages(path, topics=topics, say=say):
            if message.type == INFO:
                infos[message.topic.rpartition("/")[0]] = _info(message.message)
                continue
            if not is_depth(message):
                camera = camera_name(message.topic)
                passed = message.stamp - last.get(camera, 0)
                if max_rate and camera in last and 0 <= passed < 0.999e9 / max_rate:
                    continue
                last[camera] = message.stamp
            yield from pairs.add(message)
        yield from pairs.rest()

    for image, depth in pairs_of_all():
        if frame := decode(image, depth):
            yielded += 1
            yield frame
    for topic, count in bad.items():
        say(f"{path}: {count} images of {topic} cannot be read ({reasons[topic]})")
    for topic, (matched, count) in pairs.depth_counts().items():
        if matched < count:
            missed = count - matched
            say(f"{path}: {missed} of {count} depth images of {topic} have no image within {match * 1e3:.0f} ms")
    if not yielded:
        what = f"; {next(iter(reasons.values()))}" if reasons else ", only depth; record the colour images too"
        raise InputError(f"{path} holds no picture that can be used{what}")


def camera_name(topic: str) -> str:
    """The camera of an image topic: raw and compressed images are of the same one."""
    return topic.removesuffix("/compressed")


def is_depth(message: CameraMessage) -> bool:
    """Whether an image message is a depth image: by its encoding; 16 grey bits are depth where the topic says so."""
    if message.type == COMPRESSED:
        return "compressedDepth" in message.message.format
    encoding = message.message.encoding.lower()
    return encoding in ("16uc1", "32fc1") or (encoding == "mono16" and "depth" in message.topic.lower())


class _Pairs:
    """Finds the depth image of each image; both may come first, and both wait only so long."""

    def __init__(self, tolerance: float) -> None:
        self._tolerance = tolerance
        self._images: dict[str, deque[CameraMessage]] = {}  # by camera
        self._depth: dict[str, deque[CameraMessage]] = {}  # by topic
        self._counts: dict[str, list[int]] = {}  # by depth topic: matched, all

    def add(self, message: CameraMessage) -> Iterator[tuple[CameraMessage, CameraMessage | None]]:
        """Take a message in; images that need not wait any longer, with their depth or None."""
        if is_depth(message):
            self._depth.setdefault(message.topic, deque(maxlen=_WAIT)).append(message)
            self._counts.setdefault(message.topic, [0, 0])[1] += 1
            cameras = list(self._images)
        else:
            camera = camera_name(message.topic)
            self._images.setdefault(camera, deque()).append(message)
            cameras = [camera]
        for camera in cameras:
            yield from self._release(camera)

    def rest(self) -> Iterator[tuple[CameraMessage, CameraMessage | None]]:
        """What still waits at the end."""
        for camera in self._images:
            yield from self._release(camera, all_of_them=True)

    def depth_counts(self) -> dict[str, list[int]]:
        """By depth topic: how many found their image, and how many there were."""
        return self._counts

    def _release(self, camera: str, all_of_them: bool = False) -> Iterator[tuple[CameraMessage, CameraMessage | None]]:
        waiting, topic = self._images[camera], self._depth_topic(camera)
        while waiting:
            image = waiting[0]
            depth = self._depth.get(topic, deque())
            best = min(depth, key=lambda message: abs(message.stamp - image.stamp), default=None)
            near = best is not None and abs(best.stamp - image.stamp) <= self._tolerance
            passed = bool(depth) and depth[-1].stamp > image.stamp + self._tolerance
            exact = best is not None and best.stamp == image.stamp
            if not (exact or passed or all_of_them or len(waiting) > (_WAIT if topic else _WAIT_FOR_FIRST)):
                return
            waiting.popleft()
            if near:
                self._counts[topic][0] += 1
            yield image, best if near else None

    def _depth_topic(self, camera: str) -> str:
        """The depth topic of a camera: the one whose name has more in common with it than with other cameras."""
        own = [topic for topic in self._depth if _common(topic, camera) == max(_common(topic, c) for c in self._images)]
        return max(own, key=lambda topic: _common(topic, camera), default="")


def _common(first: str, second: str) -> int:
    """Characters that two names share at their beginning."""
    return next(
        (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
    )


def _frame(image: CameraMessage, depth: CameraMessage | None, infos: dict[str, CameraInfo]) -> Frame:
    message = image.message
    compressed = image.type == COMPRESSED
    pixels = to_rgb(*(compressed_to_array(message) if compressed else image_to_array(message)))
    is_jpeg = compressed and bytes(message.data[:3]) == b"\xff\xd8\xff"
    return Frame(
        camera=camera_name(image.topic),
        stamp=image.stamp,
        pixels=pixels,
        encoded=bytes(message.data) if is_jpeg else None,
        frame_id=message.header.frame_id,
        info=_info_of(image.topic, infos),
        depth=depth_to_array(depth.message) if depth else None,
        depth_info=_info_of(depth.topic, infos) if depth else None,
    )


def _info_of(topic: str, infos: dict[str, CameraInfo]) -> CameraInfo | None:
    """`camera_info` lies beside the image topic, in its folder or, with RealSense's recorder, in `info` above."""
    folder = camera_name(topic).rpartition("/")[0]
    for place in (folder, f"{folder.rpartition('/')[0]}/info", camera_name(topic)):
        if place in infos:
            return infos[place]
    return None


def depth_to_array(message: Any) -> np.ndarray:
    """(H, W) float32 metres of a depth message (16 bits: millimetres), NaN where there is none.

    Raises:
        InputError: Size, `step` and data do not fit together, or the picture is damaged.

    """
    if hasattr(message, "format"):
        values = _compressed_depth(message)
    else:
        encoding = message.encoding.lower()
        if encoding not in _DEPTH_ENCODINGS:
            raise InputError(f"encoding {message.encoding} is no depth; use 16UC1 or 32FC1")
        dtype = np.dtype("f4" if encoding == "32fc1" else "u2").newbyteorder(">" if message.is_bigendian else "<")
        row = message.width * dtype.itemsize
        if message.step < row or len(message.data) < message.step * (message.height - 1) + row or not row:
            raise InputError(
                f"a depth image of {message.width} x {message.height} with step {message.step} holds "
                f"{len(message.data)} bytes; it was cut short, or its driver fills it wrongly"
            )
        values = np.ndarray(
            (message.height, message.width), dtype, message.data, strides=(message.step, dtype.itemsize)
        )
    metres = values.astype(np.float32) * (1.0 if values.dtype.kind == "f" else 1e-3)
    metres[~(metres > 0) | ~np.isfinite(metres)] = np.nan
    return metres


def _compressed_depth(message: Any) -> np.ndarray:
    """compressed_depth_image_transport: 12 bytes of parameters, then a PNG of millimetres or of inverse depth."""
    data = np.asarray(message.data, np.uint8)
    values = cv2.imdecode(data[12:], cv2.IMREAD_UNCHANGED) if data.size > 12 else None
    if values is None:
        raise InputError("a compressed depth image is damaged; record it again")
    if not message.format.startswith("32FC1"):
        return values
    a, b = np.frombuffer(data[4:12].tobytes(), "<f4")
    with np.errstate(divide="ignore"):
        return np.where(values > 0, a / (values.astype(np.float32) - b), 0).astype(np.float32)


def _info(message: Any) -> CameraInfo:
    def values(*names: str) -> tuple[float, ...]:
        return tuple(float(value) for value in next(getattr(message, name) for name in names if hasattr(message, name)))

    return CameraInfo(
        (int(message.height), int(message.width)),
        values("k", "K"),
        values("d", "D"),
        message.distortion_model,
        values("r", "R"),
        values("p", "P"),
        message.header.frame_id,
    )


@cache
def _typestore(store: Stores) -> Typestore:
    return get_typestore(store)


def _decode(raw: Raw) -> CameraMessage:
    kind = _FOXGLOVE.get(raw.type, raw.type)
    message: Any
    if raw.encoding == "json":
        message = _from_json(json.loads(raw.data))
    elif raw.encoding == "ros1":
        message = _typestore(Stores.ROS1_NOETIC).deserialize_ros1(memoryview(raw.data), kind)
    else:
        data = raw.data
        if data.startswith(ZSTD):  # rosbag2 with compression_mode MESSAGE; no serialised message begins like this
            data = zstandard.ZstdDecompressor().decompressobj().decompress(data)
        # The three types are the same in all distributions from Humble on; older ones differ in other types only.
        message = _typestore(Stores.ROS2_HUMBLE).deserialize_cdr(memoryview(data), kind)
    stamp = message.header.stamp
    nanoseconds = stamp.sec * 1_000_000_000 + stamp.nanosec
    return CameraMessage(raw.topic, kind, raw.log_time, nanoseconds or raw.log_time, message)


def _from_json(fields: dict[str, Any]) -> SimpleNamespace:
    """A message of Foxglove's as ROS has it."""
    time = fields.get("timestamp") or {}
    stamp = SimpleNamespace(sec=int(time.get("sec", 0)), nanosec=int(time.get("nsec", time.get("nanosec", 0))))
    header = SimpleNamespace(stamp=stamp, frame_id=fields.get("frame_id", ""))
    message = SimpleNamespace(**{**fields, "header": header, "is_bigendian": 0})
    if "data" in fields:
        message.data = np.frombuffer(base64.b64decode(fields["data"], validate=True), np.uint8)
    return message
