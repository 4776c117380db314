"""Sets of a command line."""

import argparse
import json

import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.evaluation.sets import add_sets, chosen_sets


def parse(*arguments) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_sets(parser, every=2)
    return parser.parse_args([str(each) for each in arguments])


@pytest.fixture
def truth(tmp_path):
    images = [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 5} for i in range(5)]
    path = tmp_path / "labels" / "truth.json"
    path.parent.mkdir()
    path.write_text(json.dumps({"images": images, "annotations": [], "categories": []}))
    return path


def test_every_so_manieth_picture_of_each_set(truth, tmp_path):
    both = list(chosen_sets(parse("--data", f"{truth}:{tmp_path}", "--data", f"{truth}:elsewhere")))
    assert [text for text, _, _ in both] == [f"{truth}:{tmp_path}", f"{truth}:elsewhere"]
    assert [str(folder) for _, _, folder in both] == [str(tmp_path), "elsewhere"]
    assert [picture.file_name for picture in both[0][1].pictures] == ["0.png", "2.png", "4.png"]
    ((_, annotated, _),) = chosen_sets(parse("--data", f"{truth}:x", "--every", 4))
    assert [picture.file_name for picture in annotated.pictures] == ["0.png", "4.png"]


def test_images_are_looked_for_nearby(truth, tmp_path):
    with pytest.raises(InputError, match=r"are not beside it; write .*truth\.json:FOLDER"):
        list(chosen_sets(parse("--data", truth)))
    (tmp_path / "images").mkdir()
    Image.new("RGB", (5, 4)).save(tmp_path / "images" / "0.png")
    ((_, _, folder),) = chosen_sets(parse("--data", truth))
    assert folder == tmp_path / "images"


def test_nothing_can_be_every_zeroth(truth):
    with pytest.raises(InputError, match="--every must be at least 1, got 0"):
        list(chosen_sets(parse("--data", f"{truth}:x", "--every", 0)))
