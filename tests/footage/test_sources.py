import subprocess
import sys

import cv2
import numpy as np
import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.footage.sources import fill, open_footage, open_source, pan_zoom
from tests.footage.recordings import images, picture, write_mcap, write_rosbag2


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


def test_a_recording_is_played_like_a_video(tmp_path):
    bag = write_rosbag2(tmp_path / "bag", images(3))
    assert [np.array_equal(pixels, picture(i)) for i, pixels in enumerate(open_source(bag))] == [True] * 3
    assert [pixels.shape for pixels in open_source(bag, size=(20, 30), frames_per_photo=5)] == [(20, 30, 3)] * 3
    (bag / next(bag.glob("*.mcap")).name).unlink()
    with pytest.raises(InputError, match="holds no recording"):
        next(open_source(bag))


def test_frames_of_a_video_have_its_times_and_a_rate_passes_some_over(tmp_path):
    video = cv2.VideoWriter(str(tmp_path / "v.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for _ in range(10):
        video.write(np.zeros((48, 64, 3), np.uint8))
    video.release()
    assert [frame.stamp for frame in open_footage(tmp_path / "v.avi")] == [i * 100_000_000 for i in range(10)]
    found = list(open_footage(tmp_path / "v.avi", max_rate=5))
    assert [frame.stamp for frame in found] == [i * 200_000_000 for i in range(5)]
    assert {frame.camera for frame in found} == {"v.avi"}


def test_photographs_keep_their_files_unless_a_tag_turns_them(tmp_path):
    (tmp_path / "left").mkdir()
    photo = Image.fromarray(picture(0))
    photo.save(tmp_path / "left" / "a.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    photo.save(tmp_path / "left" / "b.jpg", exif=exif)
    photo.save(tmp_path / "left" / "c.png")
    plain, turned, png = open_footage(tmp_path)
    assert plain.encoded == (tmp_path / "left" / "a.jpg").read_bytes()
    assert turned.encoded is None
    assert turned.pixels.shape == (64, 48, 3)
    assert png.encoded is None
    assert {frame.camera for frame in (plain, turned, png)} == {"left"}


def test_without_the_packages_only_recordings_fail_and_say_what_to_install(tmp_path):
    write_mcap(tmp_path / "a.mcap", images(1))
    program = (
        "import sys\nsys.modules['mcap'] = None\nfrom hassod_ros.footage.sources import open_source\n"
        "from hassod_ros.errors import InputError\n"
        "try:\n    next(open_source(sys.argv[1]))\nexcept InputError as error:\n    print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "a.mcap"], capture_output=True, text=True, check=True
    )
    assert "pip install 'hassod_ros[footage]'" in done.stdout
