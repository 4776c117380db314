import pytest

from hassod_ros.detection.input_size import input_size


@pytest.mark.parametrize(
    ("size", "short_side", "expected"),
    [  # as Detectron2's ResizeShortestEdge.get_output_shape(h, w, short_side, 1333) gives them
        ((375, 500), 800, (800, 1067)),
        ((500, 375), 800, (1067, 800)),
        ((427, 640), 800, (800, 1199)),
        ((480, 640), 240, (240, 320)),
        ((333, 500), 240, (240, 360)),
        ((1080, 1920), 800, (750, 1333)),
        ((640, 640), 1024, (1024, 1024)),
        ((100, 2000), 800, (67, 1333)),
        ((1, 4000), 800, (1, 1333)),
    ],
)
def test_sides_are_rounded_as_detectron2_does(size, short_side, expected):
    assert input_size(size, short_side, 1333) == expected
