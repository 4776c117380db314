from collections.abc import Callable

import numpy as np
import pytest
from pycocotools import mask as rle


@pytest.fixture
def entry() -> Callable[..., dict]:
    """Make a COCO entry of a rectangle x0, y0, x1, y1 in a 40 x 60 picture."""

    def make(box: tuple[int, int, int, int], image_id: int = 1, size: tuple[int, int] = (40, 60), **fields) -> dict:
        x0, y0, x1, y1 = box
        mask = np.zeros(size, np.uint8, order="F")
        mask[y0:y1, x0:x1] = 1
        code = rle.encode(mask)
        return {
            "image_id": image_id,
            "category_id": 1,
            "segmentation": {"size": list(size), "counts": code["counts"].decode()},
            "bbox": [x0, y0, x1 - x0, y1 - y0],
            "area": (x1 - x0) * (y1 - y0),
            "iscrowd": 0,
            **fields,
        }

    return make
