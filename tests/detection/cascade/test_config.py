import pytest

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.errors import InputError


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"backbone_norm": "none"}, "backbone_norm"),
        ({"fpn_norm": "layer"}, "fpn_norm"),
        ({"anchor_sizes": (32.0,)}, "anchor_sizes"),
        ({"stage_ious": ()}, "stage_ious"),
        ({"stage_ious": (0.5, 0.6, 0.7, 0.8)}, "stage_ious"),
        ({"fpn_channels": 0}, "at least 1"),
        ({"detections": 0}, "at least 1"),
        ({"rpn_nms": 0.0}, "rpn_nms must lie above 0"),
        ({"nms": 1.1}, "^nms must lie above 0"),
        ({"sampling_ratio": -1}, "sampling_ratio must be 0"),
    ],
)
def test_bad_values_are_named(values, named):
    with pytest.raises(InputError, match=named):
        DetectorConfig(**values)
