"""Frames for the camera player: photographs, photographs under a moving window, or a video."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.images import list_images, read_image

VIDEO_EXTENSIONS = frozenset({".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg"})
_NEAREST_VIEW = 0.55  # of the widest view, when the moving window is closest


def open_source(
    source: str | os.PathLike,
    *,
    size: tuple[int, int] | None = None,
    frames_per_photo: int = 0,
    warn: Callable[[str], object] = print,
) -> Iterator[np.ndarray]:
    """Frames of a folder, a list of images or a video, once through.

    Args:
        source: Folder, text file with one path a line, image, or video.
        size: (H, W) of the frames; pictures are scaled to fill it and cut evenly. Default: as they are.
        frames_per_photo: With photographs, move a window over each of them for so many frames; 0 shows each once.
        warn: Gets one sentence for each photograph that cannot be read; it is passed over.

    Yields:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: Nothing there, or nothing of it can be read.

    """
    path = Path(source)
    if path.suffix.lower() in VIDEO_EXTENSIONS:
        frames = _video(path)
    elif path.is_file() and path.suffix.lower() != ".txt":
        frames = iter([read_image(path)])
    else:
        frames = _photos(list_images(path), warn)
    if frames_per_photo and path.suffix.lower() not in VIDEO_EXTENSIONS:
        for photo in frames:
            yield from pan_zoom(photo, size or (480, 640), frames_per_photo)
        return
    for frame in frames:
        yield fill(frame, size) if size else frame


def pan_zoom(photo: np.ndarray, size: tuple[int, int], count: int) -> Iterator[np.ndarray]:
    """A window that moves over a still photograph as a hand-held camera would: in, round and out again.

    Args:
        photo: (H, W, 3) uint8.
        size: (h, w) of the frames in pixels.
        count: Frames of one round; the last one leads back to the first.

    Yields:
        (h, w, 3) uint8.

    """
    height, width = size
    # Shrunk once with averaging where the nearest view would still skip pixels; warpAffine alone would flicker.
    scale = max(height / photo.shape[0], width / photo.shape[1]) / _NEAREST_VIEW
    if scale < 1:
        photo = cv2.resize(photo, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    rows, columns = photo.shape[:2]
    widest = min(rows / height, columns / width)  # photo pixels per frame pixel
    for angle in np.linspace(0, 2 * np.pi, count, endpoint=False):
        step = widest * (1 - (1 - _NEAREST_VIEW) * (1 - np.cos(angle)) / 2)
        room_x, room_y = columns - step * width, rows - step * height
        x = room_x * (0.5 + 0.5 * np.sin(angle))
        y = room_y * (0.5 + 0.5 * np.sin(2 * angle))
        window = np.array([[step, 0, x + (step - 1) / 2], [0, step, y + (step - 1) / 2]])
        yield cv2.warpAffine(
            photo,
            window,
            (width, height),
            flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )


def fill(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Scale (H, W, 3) to fill `size` (h, w) and cut off evenly what sticks out."""
    height, width = size
    scale = max(height / image.shape[0], width / image.shape[1])
    rows, columns = max(height, round(image.shape[0] * scale)), max(width, round(image.shape[1] * scale))
    if (rows, columns) != image.shape[:2]:
        image = cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    top, left = (rows - height) // 2, (columns - width) // 2
    return image[top : top + height, left : left + width]


def _photos(paths: Sequence[Path], warn: Callable[[str], object]) -> Iterator[np.ndarray]:
    shown = 0
    for path in paths:
        try:
            photo = read_image(path)
        except InputError as error:
            warn(str(error))
            continue
        shown += 1
        yield photo
    if not shown:
        raise InputError(f"none of {len(paths)} images can be read; the first is {paths[0]}")


def _video(path: Path) -> Iterator[np.ndarray]:
    if not path.is_file():
        raise InputError(f"{path} does not exist; check the path")
    video = cv2.VideoCapture(str(path))
    try:
        found, frame = video.read()
        if not found:
            raise InputError(f"{path} is not a video that can be read; convert it, for example to H.264 in mp4")
        while found:
            yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB)
            found, frame = video.read()
    finally:
        video.release()
