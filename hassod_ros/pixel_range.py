"""16-bit pixels to 8 bits, for cameras that use 10, 12 or 14 of them, and for thermal images."""

from __future__ import annotations

from collections import deque

import cv2
import numpy as np

_FRAMES = 30  # that are looked back on, so that the picture does not flicker
_WHITES = (255, 1023, 4095, 16383, 65535)  # the largest values of cameras with 8, 10, 12, 14 and 16 bits
_NARROW = 4  # a picture that uses less than this fraction of the camera's values is stretched
_LEAST = 128  # but never beyond this fraction, which would show noise
_TAILS = (0.5, 99.5)  # percent of the pixels that a stretched picture may clip
_SAMPLE = 128  # rows and columns that are looked at


class PixelRange:
    """Which value of a camera becomes black, and which white.

    By itself it finds out how many bits the camera uses, and keeps black at 0. Where a scene fills only a small part of
    these values, as that of a thermal camera does, this part is stretched instead. Both follow the last 30 frames.

    Args:
        low: Value that becomes 0.
        high: Value that becomes 255; where it is not above `low`, both follow what is seen.

    """

    def __init__(self, low: float = 0.0, high: float = 0.0) -> None:
        self._fixed = (low, high) if high > low else None
        self._seen: deque[tuple[float, float, float]] = deque(maxlen=_FRAMES)

    def to_uint8(self, pixels: np.ndarray) -> np.ndarray:
        """(H, W, C) uint8 of (H, W, C) uint16; a fourth channel, alpha, is not looked at for the range."""
        low, high = self._fixed or self._find(pixels[..., :3])
        rows = pixels.reshape(len(pixels), -1)
        if low:
            rows = np.maximum(rows, np.uint16(low)) - np.uint16(low)
        return cv2.convertScaleAbs(rows, alpha=255 / (high - low)).reshape(pixels.shape)

    def _find(self, pixels: np.ndarray) -> tuple[float, float]:
        steps = [max(1, side // _SAMPLE) for side in pixels.shape[:2]]
        sample = pixels[:: steps[0], :: steps[1]]
        low, high = np.percentile(sample, _TAILS)
        self._seen.append((float(low), float(high), float(sample.max())))
        lows, highs, most = zip(*self._seen, strict=True)
        low, high = min(lows), max(highs)
        white = next(value for value in _WHITES if max(most) <= value)
        if high - low >= white / _NARROW:
            return 0.0, float(white)
        return low, max(high, low + white / _LEAST)
