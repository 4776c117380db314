from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.footage.select import SelectConfig
from hassod_ros.footage.sources import pan_zoom
from hassod_ros.footage.store import HELD, ExtractConfig, as_images, extract, labelled_images
from hassod_ros.images import list_images, read_image
from tests.footage.recordings import COMPRESSED, IMAGE, Messages, image, images, jpeg, number_of, write_mcap
from tests.footage.test_select import scene
from train.extract import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bag(tmp_path: Path) -> Path:
    """Two cameras, one of them with depth, 60 frames each."""
    messages: Messages = []
    for number, frame in enumerate(pan_zoom(scene(0), (120, 160), 60)):
        messages.append(("/arm/color", IMAGE, number, image(number, frame, "rgb8")))
        depth = np.full((120, 160), 700 + number, np.uint16)
        messages.append(("/arm/depth", IMAGE, number, image(number, depth, "16UC1")))
    for number, frame in enumerate(pan_zoom(scene(1), (120, 160), 60)):
        messages.append(("/base/image/compressed", COMPRESSED, number, jpeg(number, frame)))
    return write_mcap(tmp_path / "night.mcap", sorted(messages, key=lambda message: message[2]))


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "frames.jsonl").read_text().splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


CONFIG = ExtractConfig(SelectConfig(count=12), max_rate=0, hold_back=0.2)


def test_frames_are_kept_with_their_depth_and_a_line_each(tmp_path: Path, bag: Path) -> None:
    out = tmp_path / "frames"
    counts = extract([bag], out, CONFIG, say=lambda line: None)
    rows = rows_of(out)
    assert len(rows) == sum(counts.values()) == 120
    kept = [row for row in rows if row["why"] == "kept"]
    base = list(pan_zoom(scene(1), (120, 160), 60))
    assert len(kept) == counts["kept"] == 12
    assert {row["camera"] for row in kept} == {"/arm/color", "/base/image"}
    assert sorted(list_images(out / "images")) == sorted(out / row["file"] for row in kept)
    for row in kept:
        number = number_of(row["stamp"])
        if row["camera"] == "/arm/color":
            millimetres = cv2.imread(str(out / row["depth"]), cv2.IMREAD_UNCHANGED)
            assert (millimetres == 700 + number).all()
        else:
            assert row["depth"] is None
            assert (out / row["file"]).read_bytes() == bytes(jpeg(number, base[number]).data)
    assert read_image(out / "contact_sheet.jpg").shape[1] > 1000
    assert json.loads((out / "sources.json").read_text())["sources"][0]["frames"] == 120


def test_held_back_frames_are_whole_blocks_of_time_in_pairs(tmp_path: Path, bag: Path) -> None:
    out = tmp_path / "frames"
    extract([bag], out, CONFIG, say=lambda line: None)
    for camera in ("/arm/color", "/base/image"):
        own = {number_of(row["stamp"]): row["why"] for row in rows_of(out) if row["camera"] == camera}
        held = [number for number, why in own.items() if why == HELD]
        assert 10 <= len(held) <= 12
        assert held[0] > 0
        assert {own[number] for number in range(held[0], held[-1])} <= {HELD, "blurred"}  # no other frame in between
    written = [row for row in rows_of(out) if row["file"] and row["file"].startswith("held_back/")]
    assert 20 <= len(written) <= 24
    assert all(row["why"] == HELD for row in written)


@pytest.mark.parametrize("start", [1_000_000, -1_000_000])  # s: after a long pause, or set back while it recorded
def test_frames_are_held_back_though_the_clock_was_set(tmp_path: Path, start: int) -> None:
    stamps = [*range(30), *range(start, start + 30)]
    pages = list(pan_zoom(scene(0), (120, 160), 60))
    bag = write_mcap(
        tmp_path / "night.mcap",
        [("/arm", IMAGE, 10 + at, image(10 + at, page, "rgb8")) for at, page in zip(stamps, pages, strict=True)],
    )
    extract([bag], tmp_path / "frames", CONFIG, say=lambda line: None)
    rows = rows_of(tmp_path / "frames")
    held = [number_of(row["stamp"]) for row in rows if row["why"] == HELD]
    assert 8 <= len(held) <= 16
    written = [number_of(row["stamp"]) for row in rows if row["file"] and row["file"].startswith("held_back/")]
    assert len(written) >= 6
    assert len({abs(number) > 1000 for number in written[:2]}) == 1


def test_another_choice_replaces_the_one_before_and_nothing_else(tmp_path: Path, bag: Path) -> None:
    out = tmp_path / "frames"
    extract([bag], out, CONFIG, say=lambda line: None)
    (out / "images" / "mine").mkdir()
    (out / "images" / "mine" / "photo.jpg").write_bytes(b"mine")
    counts = extract([bag], out, ExtractConfig(SelectConfig(count=4), max_rate=0), say=lambda line: None)
    assert counts["kept"] == 4
    assert len(list((out / "images").glob("*/*_*.jpg"))) == 4
    assert not list((out / "held_back").glob("*/*"))
    assert len(list((out / "depth").glob("*/*"))) == 2
    assert (out / "images" / "mine" / "photo.jpg").read_bytes() == b"mine"


def test_the_same_recording_twice_counts_once_and_other_recordings_add_what_is_new(tmp_path: Path, bag: Path) -> None:
    copy = tmp_path / "copy.mcap"
    copy.write_bytes(bag.read_bytes())
    said: list[str] = []
    once = extract([bag], tmp_path / "one", CONFIG, say=said.append)
    assert extract([bag, copy], tmp_path / "two", CONFIG, say=said.append) == once
    assert any("it counts once" in line for line in said)


def test_killed_at_any_time_it_goes_on_and_gives_the_same(tmp_path: Path, bag: Path) -> None:
    expected = tmp_path / "expected"
    command = [sys.executable, "train/extract.py", bag, "--count", "12", "--rate", "0", "--hold-back", "0.2", "--out"]
    start = time.monotonic()
    subprocess.run([*command, expected], cwd=ROOT, check=True, capture_output=True)
    seconds = time.monotonic() - start
    out = tmp_path / "killed"
    for share in (0.6, 0.8, 0.95):
        child = subprocess.Popen([*command, out], cwd=ROOT, stdout=subprocess.DEVNULL)
        time.sleep(share * seconds)
        child.send_signal(signal.SIGKILL)
        child.wait()
    subprocess.run([*command, out], cwd=ROOT, check=True, capture_output=True)
    found = files_of(out)
    left = {name for name in found if Path(name).name.startswith(".")}  # of atomic writes that were killed
    assert {name: data for name, data in found.items() if name not in left} == files_of(expected)


def test_a_missing_source_and_one_without_pictures_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist"):
        extract([tmp_path / "none.mcap"], tmp_path / "out", say=lambda line: None)
    path = write_mcap(tmp_path / "depth.mcap", [("/depth", IMAGE, 0, image(0, np.ones((4, 4), np.uint16), "16UC1"))])
    with pytest.raises(InputError, match="only depth"):
        extract([path], tmp_path / "out", say=lambda line: None)


def test_topics_of_what_has_none_are_not_passed_over(tmp_path: Path, bag: Path) -> None:
    (tmp_path / "photos").mkdir()
    cv2.imwrite(str(tmp_path / "photos" / "a.png"), np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8))
    config = ExtractConfig(topics=("/arm/color",))
    with pytest.raises(InputError, match="photos has no topics, only recordings have; leave --topics out"):
        extract([tmp_path / "photos"], tmp_path / "out", config, say=lambda line: None)
    said: list[str] = []
    extract([bag, tmp_path / "photos"], tmp_path / "out", config, say=said.append)
    assert f"{tmp_path}/photos has no topics, only recordings have; all of it counts" in said


def test_file_names_need_not_be_utf8(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8)
    Path(os.fsdecode(os.fsencode(folder) + b"/latin\xe9.png")).write_bytes(cv2.imencode(".png", picture)[1].tobytes())
    assert extract([folder], tmp_path / "out", say=lambda line: None) == {"kept": 1}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path: Path, bag: Path) -> None:
    (tmp_path / "out").mkdir(mode=0o500)
    with pytest.raises(InputError, match="cannot write"):
        extract([bag], tmp_path / "out", say=lambda line: None)


def test_the_scripts_of_training_take_recordings(tmp_path: Path) -> None:
    from train.shrink_photos import main

    bag = write_mcap(tmp_path / "bag.mcap", images(6))
    assert main(["--images", str(bag), "--out", str(tmp_path / "pool"), "--max-side", "32"]) == 0
    assert len(list_images(tmp_path / "pool" / "images")) == 2


def test_footage_becomes_images_where_images_are_wanted(tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / "bag.mcap", images(6))
    folder = as_images(bag, tmp_path / "frames", say=lambda line: None)
    assert folder == tmp_path / "frames" / "images"
    assert len(list_images(folder)) == 2  # at 10 Hz of 30
    assert as_images(folder, tmp_path / "unused") == folder
    assert not (tmp_path / "unused").exists()


def test_footage_stands_for_the_frames_that_were_labelled(tmp_path: Path) -> None:
    bag = write_mcap(tmp_path / "night.mcap", images(2))
    with pytest.raises(InputError, match=r"labels.frames/images; label it first: pseudo_label --images .*night.mcap"):
        labelled_images(bag, tmp_path / "labels.json")
    frames = tmp_path / "labels.frames" / "images"
    frames.mkdir(parents=True)
    assert labelled_images(bag, tmp_path / "labels.json") == frames
    assert labelled_images(frames, tmp_path / "other.json") == frames


@pytest.mark.parametrize("out", [".", "below/frames"])
def test_frames_do_not_go_into_the_folder_they_are_read_from(tmp_path: Path, out: str) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="which would be read with it the next time; choose another --out"):
        extract([tmp_path], tmp_path / out)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_footage_of_which_nothing_is_left_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blank = tmp_path / "blank"
    blank.mkdir()
    for number in range(4):
        cv2.imwrite(str(blank / f"{number}.png"), np.full((60, 80, 3), 90, np.uint8))
    assert main([str(blank), "--out", str(tmp_path / "frames")]) == 2
    assert "kept 0 of 4 frames (4 blank)" in capsys.readouterr().err
