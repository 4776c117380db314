"""Frames of anything: photographs, photographs under a moving window, videos, recordings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.footage.frame import Frame, Say
from hassod_ros.footage.kinds import is_bag, is_video
from hassod_ros.footage.video import video_frames
from hassod_ros.images import list_images, read_image

_ORIENTATION = 0x0112  # EXIF tag
_NEAREST_VIEW = 0.55  # of the widest view, when the moving window is closest


def open_source(
    source: str | os.PathLike,
    *,
    size: tuple[int, int] | None = None,
    frames_per_photo: int = 0,
    topics: Sequence[str] = (),
    warn: Callable[[str], object] = print,
) -> Iterator[np.ndarray]:
    """Pixels of a folder, a list of images, a video or a recording, once through.

    Args:
        source: See `open_footage`.
        size: (H, W) of the frames; pictures are scaled to fill it and cut evenly. Default: as they are.
        frames_per_photo: With photographs, move a window over each of them for so many frames; 0 shows each once.
        topics: See `open_footage`.
        warn: Gets one sentence for each photograph that cannot be read; it is passed over.

    Yields:
        (H, W, 3) uint8 RGB.

    Raises:
        InputError: Nothing there, or nothing of it can be read.

    """
    moves = is_video(source) or is_bag(source)
    for frame in open_footage(source, topics=topics, say=warn):
        if frames_per_photo and not moves:
            yield from pan_zoom(frame.pixels, size or (480, 640), frames_per_photo)
        else:
            yield fill(frame.pixels, size) if size else frame.pixels


def open_footage(
    source: str | os.PathLike, *, topics: Sequence[str] = (), max_rate: float = 0.0, say: Say = print
) -> Iterator[Frame]:
    """Frames of anything, in the order in which they were taken.

    Args:
        source: Recording (folder or file), video, folder of images, text file with one path a line, or image.
        topics: Of a recording: only these image topics; default: all.
        max_rate: Of recordings and videos: most frames per second and camera, 0 = all.
        say: Gets one sentence for everything that cannot be read; it is passed over.

    Raises:
        InputError: Nothing there, nothing of it can be read, or it is a recording and the package that reads it is
            missing.

    """
    if is_video(source):
        yield from video_frames(source, max_rate=max_rate, say=say)
    elif is_bag(source):
        try:
            from hassod_ros.footage import bags  # a robot need not have the packages
        except ModuleNotFoundError as error:
            if (error.name or "").startswith("hassod_ros"):
                raise
            raise InputError(
                f"{source} is a recording, the package {error.name} that reads it is missing; run pip install "
                "'hassod_ros[footage]'"
            ) from error
        yield from bags.frames(source, topics=topics, max_rate=max_rate, say=say)
    else:
        yield from _photos(Path(source), say)


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


def _photos(source: Path, say: Say) -> Iterator[Frame]:
    paths = list_images(source)
    root, shown = source if source.is_dir() else source.parent, 0
    for path in paths:
        try:
            pixels = read_image(path)
        except InputError as error:
            say(str(error))
            continue
        shown += 1
        # Pictures of one folder are of one camera; the time between them is not known.
        yield Frame(os.path.relpath(path.parent, root), shown - 1, pixels, encoded=_jpeg_bytes(path))
    if not shown:
        raise InputError(f"none of {len(paths)} images can be read; the first is {paths[0]}")


def _jpeg_bytes(path: Path) -> bytes | None:
    """The file as it is, where it is a JPEG that no EXIF orientation turns."""
    if path.suffix.lower() not in (".jpg", ".jpeg"):
        return None
    with Image.open(path) as file:
        return path.read_bytes() if file.getexif().get(_ORIENTATION, 1) == 1 else None
