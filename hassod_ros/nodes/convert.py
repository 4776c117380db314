"""Image messages to numpy arrays (`hassod_ros.image_messages`) and back."""

from __future__ import annotations

import numpy as np
from sensor_msgs.msg import Image
from std_msgs.msg import Header

from hassod_ros.image_messages import ENCODINGS, compressed_to_array, image_to_array, to_rgb

__all__ = ["ENCODINGS", "array_to_image", "check_layout", "compressed_to_array", "image_to_array", "to_rgb"]

_OUTPUT_DTYPES = {
    "rgb8": np.uint8,
    "bgr8": np.uint8,
    "mono8": np.uint8,
    "mono16": np.uint16,
    "16UC1": np.uint16,
    "32FC1": np.float32,
}


def array_to_image(pixels: np.ndarray, encoding: str, header: Header) -> Image:
    """sensor_msgs/Image of an (H, W) or (H, W, C) array in one of the output encodings; the data are copied once.

    Args:
        pixels: uint8 (rgb8, bgr8: three channels; mono8) or uint16 (mono16, 16UC1).
        encoding: ROS name of the layout.
        header: Used as it is, not copied.

    Raises:
        ValueError: The array is not of this encoding.

    """
    pixels = check_layout(pixels, encoding)
    message = Image(header=header, height=pixels.shape[0], width=pixels.shape[1], encoding=encoding)
    message.step = pixels.nbytes // len(pixels)
    # Assigning bytes or a list is 10 to 1000 times slower: rclpy then looks at every element.
    message.data.frombytes(pixels.data.cast("B"))
    return message


def check_layout(pixels: np.ndarray, encoding: str) -> np.ndarray:
    """The pixels (H, W) or (H, W, C), contiguous.

    Raises:
        ValueError: They are not of this encoding.

    """
    channels = 3 if encoding in ("rgb8", "bgr8") else 1
    if pixels.dtype != _OUTPUT_DTYPES[encoding] or pixels.size != pixels.shape[0] * pixels.shape[1] * channels:
        raise ValueError(f"{pixels.dtype} {pixels.shape} is not an image of encoding {encoding}")
    return np.ascontiguousarray(pixels)
