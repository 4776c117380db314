"""How large `~/instances` is for each `mask_encoding`, what writing and reading it costs, and what polygons lose.

Times are processor time of one thread, medians over --repeat. `deflated` is about what a bag with compression keeps.

Example:
    python benchmarks/messages.py
    python benchmarks/messages.py --photograph photo.jpg --model model.onnx --sizes 640x480

"""

from __future__ import annotations

import hassod_ros.nodes  # noqa: F401  # isort: skip  # sets NumPy's threads, before NumPy comes

import argparse
import sys
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message, serialize_message
from roles import parse_size  # the script beside this one
from std_msgs.msg import Header

from hassod_msgs.msg import InstanceArray
from hassod_ros.errors import InputError
from hassod_ros.footage.sources import fill
from hassod_ros.images import read_image
from hassod_ros.instances import Instances
from hassod_ros.nodes.messages import MASK_ENCODINGS, instance_array, mask_of
from hassod_ros.photographs import bundled_photographs
from hassod_ros.runtime.segmenter import open_segmenter


def milliseconds(work: Callable[[], Any], repeat: int) -> float:
    """Median processor time of `work`."""
    times = []
    for _ in range(repeat):
        start = time.thread_time()
        work()
        times.append(time.thread_time() - start)
    return float(np.median(times)) * 1e3


def write(found: Instances, encoding: str) -> bytes:
    """What goes over the wire or into a bag."""
    message = instance_array(found, Header(), model_name="", model_sha256="", mask_encoding=encoding)
    return bytes(serialize_message(message))


def read(data: bytes) -> list[np.ndarray]:
    """The masks of it."""
    return [mask_of(each) for each in deserialize_message(data, InstanceArray).instances]


def row(found: Instances, encoding: str, repeat: int) -> str:
    """One line of the table."""
    data = write(found, encoding)
    ious = [(a & b).sum() / (a | b).sum() for a, b in zip(read(data), found.masks, strict=True)]
    size = f"{found.image_size[1]}x{found.image_size[0]}"
    sizes = f"{size:10} {encoding:9} {len(found):9} {len(data):10} {len(zlib.compress(data, 1)):9}"
    times = (milliseconds(lambda: write(found, encoding), repeat), milliseconds(lambda: read(data), repeat))
    return f"{sizes} {times[0]:9.2f} {times[1]:8.2f} {np.mean(ious):.3f}"


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photograph", default="", help="default: one that comes with scikit-image")
    parser.add_argument("--model", default="default")
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=[(480, 640), (1080, 1920)], metavar="WxH")
    parser.add_argument("--repeat", type=int, default=20)
    given = parser.parse_args(arguments)
    try:
        picture = read_image(given.photograph or bundled_photographs()[1])
        segment = open_segmenter(given.model)
        columns = f"{'size':10} {'encoding':9} {'instances':>9} {'bytes':>10} {'deflated':>9}"
        print(f"{columns} {'write ms':>9} {'read ms':>8} IoU")
        for size in given.sizes:
            found = segment(np.ascontiguousarray(fill(picture, size)))
            for encoding in MASK_ENCODINGS:
                print(row(found, encoding, given.repeat), flush=True)
    except InputError as error:
        print(f"messages: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
