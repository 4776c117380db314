"""What scripts/demo.sh shows: photographs of one's own, a video, or those at hand."""

import importlib.util
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from hassod_ros.errors import InputError

pytest.importorskip("rclpy")
pytest.importorskip("hassod_msgs")
spec = importlib.util.spec_from_file_location("demo", Path(__file__).parents[1] / "scripts" / "demo.py")
demo = importlib.util.module_from_spec(spec)
sys.modules["demo"] = demo
spec.loader.exec_module(demo)


@pytest.mark.parametrize(("count", "shown", "still"), [(4, 4, 2.5), (100, 20, 0.5)])
def test_a_folder_is_shown_as_far_as_the_time_suffices(tmp_path, count, shown, still):
    for number in range(count):
        Image.new("RGB", (8, 6)).save(tmp_path / f"{number:03}.png")
    show = demo.prepare(tmp_path, tmp_path, 10.0)
    paths = show.source.read_text().splitlines()
    assert (len(paths), show.still, show.rate) == (shown, still, demo.RATE)
    assert [Path(paths[0]).name, Path(paths[-1]).name] == ["000.png", f"{count - 1:03}.png"]


def test_a_video_is_shown_in_its_own_time_without_a_moving_window(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 12.0, (64, 48))
    writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    assert demo.prepare(tmp_path / "clip.mp4", tmp_path, 10.0) == (tmp_path / "clip.mp4", 0.0, 12.0)


def test_without_images_the_photographs_at_hand_are_shown(tmp_path):
    show = demo.prepare(None, tmp_path, 10.0)
    assert show.still == 10 / len(show.source.read_text().splitlines())


@pytest.mark.parametrize("name", ["nowhere", "nowhere.mp4"])
def test_what_is_not_there_is_one_sentence(tmp_path, name):
    with pytest.raises(InputError, match=r"nowhere.* does not exist"):
        demo.prepare(tmp_path / name, tmp_path, 10.0)
