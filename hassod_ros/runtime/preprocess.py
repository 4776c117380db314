"""Fit an image of any size into the network's fixed input."""

from __future__ import annotations

import os
from dataclasses import dataclass

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.images import halved, read_image

COLOR_ORDERS = ("RGB", "BGR")
Picture = np.ndarray | str | os.PathLike  # pixels, or the path of an image file


@dataclass(frozen=True)
class Letterbox:
    """How an image lies in the network's input: scaled, in the top left corner.

    Attributes:
        image_size: (H, W) of the image in pixels.
        content_size: (H, W) of the part of the input that holds the image; the rest is padding.

    """

    image_size: tuple[int, int]
    content_size: tuple[int, int]

    @classmethod
    def fit(cls, image_size: tuple[int, int], input_size: tuple[int, int]) -> Letterbox:
        """The largest placement that keeps the aspect ratio (to the pixel).

        Example:
            >>> Letterbox.fit((1080, 1920), (480, 640)).content_size
            (360, 640)

        """
        scale = min(input_size[0] / image_size[0], input_size[1] / image_size[1])
        height, width = (
            max(1, min(limit, round(side * scale))) for side, limit in zip(image_size, input_size, strict=True)
        )
        return cls(image_size, (height, width))

    def to_image(self, boxes: np.ndarray) -> np.ndarray:
        """(N, 4) float32 xyxy boxes in input pixels -> image pixels, clipped to the image."""
        (height, width), (rows, columns) = self.image_size, self.content_size
        scale = np.array([width / columns, height / rows] * 2, np.float32)
        limit = np.array([width, height] * 2, np.float32)
        return np.clip(boxes * scale, 0, limit)


def as_array(image: Picture, color_order: str = "RGB") -> np.ndarray:
    """The image itself, or the (H, W, 3) uint8 content of the file that it names.

    Raises:
        InputError: It is neither an array nor a path, or the file cannot be read.

    """
    if isinstance(image, np.ndarray):
        return image
    if not isinstance(image, str | os.PathLike):
        kind = type(image).__name__
        raise InputError(f"an image must be an array or the path of a file, got {kind}; check what read it")
    pixels = read_image(image)
    return np.ascontiguousarray(pixels[..., ::-1]) if color_order == "BGR" else pixels


def letterbox(image: np.ndarray, out: np.ndarray, *, fill: tuple[int, int, int], color_order: str = "RGB") -> Letterbox:
    """Resize an image straight into the network's input buffer; nothing else is copied.

    Args:
        image: (H, W, 3) uint8.
        out: (h, w, 3) uint8, written in RGB order: the image in the top left corner, `fill` elsewhere.
        fill: RGB value of the padding.
        color_order: "RGB" or "BGR", of `image`.

    Raises:
        InputError: The image has another shape or dtype, or the order is unknown.

    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or 0 in image.shape:
        raise InputError(f"an image must be uint8 of shape (H, W, 3), got {image.dtype} {image.shape}; convert it")
    if color_order not in COLOR_ORDERS:
        raise InputError(f"color_order must be one of {', '.join(COLOR_ORDERS)}, not {color_order!r}")
    placed = Letterbox.fit((image.shape[0], image.shape[1]), (out.shape[0], out.shape[1]))
    rows, columns = placed.content_size
    content = out[:rows, :columns]
    # Colours are swapped after shrinking or before enlarging, whichever touches fewer pixels; all in place.
    if color_order == "BGR" and rows * columns > image.shape[0] * image.shape[1]:
        image = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
        color_order = "RGB"
    if placed.content_size == placed.image_size:
        np.copyto(content, image)
    else:
        image = halved(image, placed.content_size)
        # Bilinear, or area averaging where bilinear would skip pixels.
        skips = image.shape[0] > 2 * rows or image.shape[1] > 2 * columns
        cv2.resize(image, (columns, rows), dst=content, interpolation=cv2.INTER_AREA if skips else cv2.INTER_LINEAR)
    if color_order == "BGR":
        cv2.cvtColor(content, cv2.COLOR_BGR2RGB, dst=content)
    # A whole line at a time: NumPy copies pixels of three bytes one by one.
    padding = np.tile(np.array(fill, np.uint8), (out.shape[1], 1))
    out[rows:] = padding
    out[:rows, columns:] = padding[columns:]
    return placed
