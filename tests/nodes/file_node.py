"""perception_node around models that are text files: `threshold:SECONDS`, or `fails`: it does so on real pictures."""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from threshold_node import Threshold, open_model

from hassod_ros.errors import InputError
from hassod_ros.instances import Instances
from hassod_ros.nodes.perception_node import PerceptionNode
from hassod_ros.nodes.run import run


class Fails(Threshold):
    def segment(self, images: Sequence[np.ndarray], *, color_order: str = "RGB") -> list[Instances]:
        if images[0].shape[:2] != (120, 160):
            raise RuntimeError("this model cannot do real pictures")
        return super().segment(images, color_order=color_order)


def open_file(path: str) -> Threshold:
    if not Path(path).is_file():
        raise InputError(f"{path} does not exist")
    text = Path(path).read_text().split("\n")[0]
    return Fails() if text == "fails" else open_model(text)


if __name__ == "__main__":
    sys.exit(run(lambda: PerceptionNode(open_file)))
