import cv2
import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.footage.sources import fill, open_source, pan_zoom


@pytest.fixture
def photo():
    rows, columns = np.mgrid[:90, :160]
    return np.dstack([rows * 2, columns, np.full_like(rows, 50)]).astype(np.uint8)


def test_pan_zoom_stays_inside_the_photograph_moves_smoothly_and_comes_back(photo):
    frames = np.array(list(pan_zoom(photo, (45, 60), 40))).astype(int)
    assert frames.shape == (40, 45, 60, 3)
    assert set(np.unique(frames[..., 2])) == {50}  # no border was made up
    assert frames[..., 0].max() <= 178
    steps = np.abs(np.diff(np.concatenate([frames, frames[:1]]), axis=0)).max(axis=(1, 2, 3))
    assert 0 < steps.max() < 25
    extents = frames[:, 22, -1, 1] - frames[:, 22, 0, 1]
    assert extents.argmax() == 0
    assert extents.min() / extents.max() == pytest.approx(0.55, abs=0.02)


@pytest.mark.parametrize("size", [(30, 30), (120, 100), (90, 160)])
def test_fill_keeps_the_middle(photo, size):
    picture = fill(photo, size)
    assert picture.shape == (*size, 3)
    middle = picture[size[0] // 2, size[1] // 2].astype(int)
    assert np.abs(middle - photo[45, 80]).max() <= 3


def test_video_gives_its_frames_in_order(tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for value in (20, 100, 200):
        video.write(np.full((48, 64, 3), value, np.uint8))
    video.release()
    frames = list(open_source(tmp_path / "v.avi"))
    assert [round(frame.mean(), -1) for frame in frames] == [20, 100, 200]


def test_damaged_video_and_folder_without_a_readable_image(tmp_path):
    (tmp_path / "v.mp4").write_bytes(b"nothing")
    with pytest.raises(InputError, match="is not a video that can be read"):
        next(open_source(tmp_path / "v.mp4"))
    (tmp_path / "a.png").write_bytes(b"nothing")
    warnings = []
    with pytest.raises(InputError, match="none of 1 images can be read"):
        next(open_source(tmp_path, warn=warnings.append))
    assert len(warnings) == 1
