"""Frames of a video file."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import cv2

from hassod_ros.errors import InputError
from hassod_ros.footage.frame import Frame, Say


def video_frames(path: str | os.PathLike, *, max_rate: float = 0.0, say: Say = print) -> Iterator[Frame]:
    """Pictures of a video in their order; the stamp is the time from its beginning.

    Args:
        path: Anything that OpenCV's FFmpeg reads.
        max_rate: Most pictures per second, 0 = all; what is passed over is not decoded to colours.
        say: Gets one sentence where the video ends before its header says so.

    Raises:
        InputError: No such file, or nothing of it can be read.

    """
    path = Path(path)
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path")
    video = cv2.VideoCapture(str(path))
    try:
        rate = video.get(cv2.CAP_PROP_FPS)
        expected = int(video.get(cv2.CAP_PROP_FRAME_COUNT))
        count, due = 0, 0.0
        while video.grab():
            # Not CAP_PROP_POS_MSEC: some containers leave it at 0.
            seconds = count / rate if rate > 0 else video.get(cv2.CAP_PROP_POS_MSEC) / 1e3
            count += 1
            if max_rate and seconds + 1e-6 < due:
                continue
            due = seconds + 1 / max_rate if max_rate else 0.0
            found, pixels = video.retrieve()
            if found:
                yield Frame(path.name, round(seconds * 1e9), cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))
        if not count:
            raise InputError(f"{path} is not a video that can be read; convert it, for example to H.264 in mp4")
        if count < 0.95 * expected:  # the header's number is an estimate in some containers
            say(f"{path} ends early: {count} of {expected} frames could be read")
    finally:
        video.release()
