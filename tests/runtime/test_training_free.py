import numpy as np

from hassod_ros.runtime.segmenter import open_segmenter


def test_finds_a_part_inside_its_whole_whatever_the_colour_order():
    image = np.full((120, 160, 3), (40, 90, 200), np.uint8)
    image[20:100, 30:130] = (210, 40, 40)
    image[40:80, 60:100] = (240, 240, 60)
    segment = open_segmenter("training_free")
    segment.warm_up()
    found = segment(image)
    assert (np.diff(found.scores) <= 0).all()
    inner = np.zeros((120, 160), bool)
    inner[40:80, 60:100] = True
    masks = found.dense()
    overlap = (masks & inner).sum(axis=(1, 2)) / (masks | inner).sum(axis=(1, 2))
    assert overlap.max() > 0.9
    same = segment.segment([np.ascontiguousarray(image[..., ::-1])], color_order="BGR")[0]
    np.testing.assert_array_equal(same.dense(), masks)
    segment.close()
