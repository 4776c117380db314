"""Pools of shrunken photographs."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hassod_ros.errors import InputError
from hassod_ros.images import list_images, read_image
from hassod_ros.train import shrink_photos as script
from hassod_ros.train.shrink_photos import shrink


@pytest.fixture
def photos(tmp_path) -> Path:
    """A large JPEG, a small one, a PNG with the name of a JPEG in a folder below, and a file that is no picture."""
    folder = tmp_path / "photos"
    (folder / "below").mkdir(parents=True)
    random = np.random.default_rng(0)
    for name, size in (("large.jpg", (60, 90)), ("small.JPG", (20, 30)), ("below/large.png", (80, 40))):
        pixels = random.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / name)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    Image.new("RGB", (90, 60), "red").save(folder / "turned.jpg", exif=turned)
    (folder / "text.jpg").write_bytes(b"no image")
    return folder


def test_photographs_are_shrunken_and_listed(photos, tmp_path):
    pool = shrink(photos, tmp_path / "pool", max_side=45)
    assert pool["files"] == ["below/large.png.jpg", "large.jpg", "small.JPG", "turned.jpg"]
    sizes = {name: read_image(tmp_path / "pool" / "images" / name).shape[:2] for name in pool["files"]}
    assert sizes == {
        "large.jpg": (30, 45),
        "small.JPG": (20, 30),
        "below/large.png.jpg": (45, 23),
        "turned.jpg": (45, 30),
    }
    assert (tmp_path / "pool/images/small.JPG").read_bytes() == (photos / "small.JPG").read_bytes()
    assert pool["photographs"] == 4
    assert pool["bytes"] == sum(path.stat().st_size for path in list_images(tmp_path / "pool" / "images"))
    assert len(pool["left_out"]) == 1
    assert "text.jpg is not an image" in pool["left_out"][0]
    assert json.loads((tmp_path / "pool" / "pool.json").read_text()) == pool


def test_a_pool_shrunken_again_is_the_same(photos, tmp_path):
    first = shrink(photos, tmp_path / "a", max_side=45)
    second = shrink(tmp_path / "a" / "images", tmp_path / "b", max_side=45)
    assert second["files"] == first["files"]
    for name in first["files"]:
        assert (tmp_path / "a/images" / name).read_bytes() == (tmp_path / "b/images" / name).read_bytes()


def test_what_is_wrong_is_said(photos, tmp_path, capsys):
    with pytest.raises(InputError, match="got 0, 80, 60"):
        shrink(photos, tmp_path / "pool", max_side=0)
    (photos / "images").mkdir()
    Image.new("RGB", (9, 9)).save(photos / "images" / "a.png")
    with pytest.raises(InputError, match="holds the photographs themselves"):
        shrink(photos / "images", photos)
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "a.jpg").write_bytes(b"no image")
    assert script.main(["--images", str(tmp_path / "text"), "--out", str(tmp_path / "pool")]) == 2
    assert capsys.readouterr().err.startswith("shrink_photos: none of 1 photographs")


def test_a_pool_that_is_too_large_is_not_finished(tmp_path, capsys):
    (tmp_path / "photos").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (900, 1200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photos" / "noise.png")
    arguments = ["--images", str(tmp_path / "photos"), "--out", str(tmp_path / "pool"), "--megabytes", "1"]
    assert script.main([*arguments, "--max-side", "1200", "--quality", "95"]) == 2
    assert "more than 1: lower max_side or quality" in capsys.readouterr().err
    assert not (tmp_path / "pool" / "pool.json").exists()
    assert script.main([*arguments, "--max-side", "100"]) == 0
    assert "1 photographs, 0.0 MB" in capsys.readouterr().out
