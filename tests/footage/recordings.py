"""Recordings of known pictures, written by other people's writers, and ways to break them."""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import lz4.frame
import numpy as np
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Writer as Rosbag1
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin
from rosbags.rosbag2 import Writer as Rosbag2
from rosbags.typesys import Stores, get_typestore

ROS2, ROS1 = get_typestore(Stores.ROS2_HUMBLE), get_typestore(Stores.ROS1_NOETIC)
START, PERIOD = 1_700_000_000_000_000_000, 33_333_333
IMAGE, COMPRESSED, INFO = (f"sensor_msgs/msg/{name}" for name in ("Image", "CompressedImage", "CameraInfo"))


def stamp_of(number: int) -> int:
    return START + number * PERIOD


def number_of(stamp: int) -> int:
    number, rest = divmod(stamp - START, PERIOD)
    assert rest == 0
    return number


def picture(number: int, size: tuple[int, int] = (48, 64)) -> np.ndarray:
    """(H, W, 3) RGB noise that no other number has, so that no chunk of it is compressed to nothing."""
    return np.random.default_rng(number).integers(0, 256, (*size, 3), np.uint8)


def header(number: int, store: Any = ROS2, frame_id: str = "camera") -> Any:
    sec, nanosec = divmod(stamp_of(number), 10**9)
    time = store.types["builtin_interfaces/msg/Time"](sec=sec, nanosec=nanosec)
    extra = {"seq": number} if store is ROS1 else {}
    return store.types["std_msgs/msg/Header"](stamp=time, frame_id=frame_id, **extra)


def image(
    number: int, pixels: np.ndarray | None = None, encoding: str = "bgr8", store: Any = ROS2, **fields: Any
) -> Any:
    pixels = picture(number)[..., ::-1] if pixels is None else pixels
    data = np.ascontiguousarray(pixels)
    values = {
        "header": header(number, store),
        "height": pixels.shape[0],
        "width": pixels.shape[1],
        "encoding": encoding,
        "is_bigendian": 0,
        "step": data.nbytes // pixels.shape[0],
        "data": data.reshape(-1).view(np.uint8),
    }
    return store.types[IMAGE](**values | fields)


def jpeg(number: int, pixels: np.ndarray | None = None) -> Any:
    data = cv2.imencode(".jpg", picture(number) if pixels is None else pixels[..., ::-1])[1]
    return ROS2.types[COMPRESSED](header=header(number), format="jpeg", data=data.reshape(-1))


def camera_info(number: int, store: Any = ROS2) -> Any:
    names = ("D", "K", "R", "P") if store is ROS1 else ("d", "k", "r", "p")
    values = zip(names, (np.zeros(5), np.arange(9.0), np.eye(3).reshape(-1), np.arange(12.0)), strict=True)
    region = store.types["sensor_msgs/msg/RegionOfInterest"](
        x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
    )
    fields = {"height": 48, "width": 64, "distortion_model": "plumb_bob", "binning_x": 0, "binning_y": 0}
    return store.types[INFO](header=header(number, store), roi=region, **fields, **dict(values))


Messages = list[tuple[str, str, int, Any]]  # topic, type, number, message


def images(count: int = 40, topic: str = "/camera/image_raw", store: Any = ROS2) -> Messages:
    return [(topic, IMAGE, number, image(number, store=store)) for number in range(count)]


def write_rosbag2(
    folder: Path, messages: Messages, storage: str = "mcap", mode: str = "NONE", types: dict[str, str] | None = None
) -> Path:
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    bag = Rosbag2(folder, version=8, storage_plugin=plugin)
    if mode != "NONE":
        bag.set_compression(CompressionMode[mode], CompressionFormat.ZSTD)
    with bag:
        connections = {
            (topic, kind): bag.add_connection(topic, kind, typestore=ROS2)
            for topic, kind in dict.fromkeys((topic, kind) for topic, kind, _, _ in messages)
        }
        for topic, kind, number, message in messages:
            bag.write(connections[topic, kind], stamp_of(number), ROS2.serialize_cdr(message, kind))
    return folder


def write_mcap(
    path: Path, messages: Messages, chunk: int = 100_000, compression: str = "ZSTD", close: bool = True, **options: Any
) -> Path:
    """As a recorder does; `close=False` ends it as kill -9 would."""
    with open(path, "wb") as file:
        writer = McapWriter(file, chunk_size=chunk, compression=CompressionType[compression], **options)
        writer.start("ros2")
        channels: dict[tuple[str, str], int] = {}
        for topic, kind, number, message in messages:
            if (topic, kind) not in channels:
                schema = writer.register_schema(kind, "ros2msg", b"")
                channels[topic, kind] = writer.register_channel(topic, "cdr", schema)
            data = bytes(ROS2.serialize_cdr(message, kind))
            writer.add_message(channels[topic, kind], stamp_of(number), data, stamp_of(number))
        if close:
            writer.finish()
    return path


def write_ros1(path: Path, messages: Messages, compression: str | None = None, chunk: int = 100_000) -> Path:
    bag = Rosbag1(path)
    bag.chunk_threshold = chunk
    if compression:
        bag.set_compression(Rosbag1.CompressionFormat[compression])
    if compression == "LZ4":  # as ROS writes it
        bag.compressor = partial(lz4.frame.compress, content_checksum=True)
    with bag:
        connections = {
            topic: bag.add_connection(topic, kind, typestore=ROS1)
            for topic, kind in dict.fromkeys((topic, kind) for topic, kind, _, _ in messages)
        }
        for topic, kind, number, message in messages:
            bag.write(connections[topic], stamp_of(number), ROS1.serialize_ros1(message, kind))
    return path


def write_wal(folder: Path, messages: Messages) -> Path:
    """A rosbag2 database whose recorder was killed: everything is in the write-ahead log yet."""
    folder.mkdir()
    live, killed = folder / "live.db3", folder / "killed.db3"
    connection = sqlite3.connect(live)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA wal_autocheckpoint=0")
    connection.execute(
        "CREATE TABLE topics(id INTEGER PRIMARY KEY, name TEXT NOT NULL, type TEXT NOT NULL, "
        "serialization_format TEXT NOT NULL, offered_qos_profiles TEXT NOT NULL)"
    )
    connection.execute(
        "CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id INTEGER NOT NULL, timestamp INTEGER NOT NULL, "
        "data BLOB NOT NULL)"
    )
    connection.execute("INSERT INTO topics VALUES (1, ?, ?, 'cdr', '')", messages[0][:2])
    for _, kind, number, message in messages:
        data = bytes(ROS2.serialize_cdr(message, kind))
        connection.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)", (stamp_of(number), data))
    connection.commit()
    for end in ("", "-wal"):  # as they stand while it is open
        killed.with_name(killed.name + end).write_bytes(live.with_name(live.name + end).read_bytes())
    connection.close()
    live.unlink()
    return killed


def cut(path: Path, share: float) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])


def damage(path: Path, position: int, count: int = 64) -> None:
    data = bytearray(path.read_bytes())
    data[position : position + count] = bytes(byte ^ 0x5A for byte in data[position : position + count])
    path.write_bytes(data)
