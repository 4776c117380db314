"""What footage is, told from its first bytes and names; imports nothing that only recordings need."""

from __future__ import annotations

import os
import re
from pathlib import Path

from hassod_ros.errors import InputError

VIDEO_EXTENSIONS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg"})
BAG_EXTENSIONS = frozenset({".mcap", ".db3", ".bag", ".active", ".zstd"})
# The first bytes of recordings, and of what is compressed as a whole.
MCAP, SQLITE, ROS1, ZSTD = b"\x89MCAP0\r\n", b"SQLite format 3\x00", b"#ROSBAG V2.0\n", b"\x28\xb5\x2f\xfd"


def is_video(path: str | os.PathLike) -> bool:
    """Whether `path` is named as a video."""
    return Path(path).suffix.lower() in VIDEO_EXTENSIONS


def is_bag(path: str | os.PathLike) -> bool:
    """Whether `path` is a recording: a file that is named so or begins as one, or a folder that holds such files."""
    path = Path(path)
    if path.is_dir():
        return any(file.suffix in BAG_EXTENSIONS for file in path.iterdir()) or (
            (path / "metadata.yaml").is_file()
            and b"rosbag2_bagfile_information" in (path / "metadata.yaml").read_bytes()
        )
    if path.suffix in BAG_EXTENSIONS:
        return True
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        return file.read(16).startswith((MCAP, SQLITE, ROS1, ZSTD))


def bag_files(path: str | os.PathLike) -> list[Path]:
    """The files of a recording in the order of their recording, with or without `metadata.yaml`.

    Raises:
        InputError: There is none.

    """
    path = Path(path)
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise InputError(f"{path} does not exist; give a bag's folder or file")
    files = [file for file in path.iterdir() if file.suffix in BAG_EXTENSIONS and file.is_file()]
    if not files:
        raise InputError(f"{path} holds no recording ({', '.join(sorted(BAG_EXTENSIONS))}); copy its files there")

    def natural(file: Path) -> list[tuple[int, str]]:  # NAME_10 comes after NAME_9
        return [(int(part), "") if part.isdigit() else (-1, part) for part in re.split(r"(\d+)", file.name)]

    return sorted(files, key=natural)
