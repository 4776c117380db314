import json
from collections import namedtuple

import numpy as np
import pytest

from hassod_ros.errors import InputError
from hassod_ros.inspection import journal as module
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.journal import Journal
from hassod_ros.inspection.verdict import undecided
from tests.inspection.parts import observe, part

Usage = namedtuple("Usage", "total used free")


def test_a_line_for_each_part_and_a_picture_of_the_bad(reference, tmp_path):
    journal = Journal(tmp_path, 1 << 20)
    picture = part(red=None)
    journal.write(Inspector(reference, observe)(picture), picture, reference="plate")
    journal.write(undecided("No image came"), None)
    (file,) = tmp_path.glob("*.jsonl")
    first, second = (json.loads(line) for line in file.read_text().splitlines())
    assert first["result"] == "NG"
    assert first["reference"] == "plate"
    assert first["findings"][0]["kind"] == "MISSING"
    assert (tmp_path / first["picture"]).read_bytes()[:2] == b"\xff\xd8"
    assert (second["result"], second["findings"]) == ("UNDECIDED", [])
    assert "picture" not in second


def test_the_oldest_goes_beyond_the_limit_and_nothing_else(tmp_path):
    (tmp_path / "mine.jpg").write_bytes(b"x" * 1000)
    journal = Journal(tmp_path, 300_000)
    picture = np.random.default_rng(0).integers(0, 256, (100, 100, 3), np.uint8)
    names = []
    for _ in range(100):
        journal.write(undecided("why"), picture)
        names.append(json.loads(max(tmp_path.glob("*.jsonl")).read_text().splitlines()[-1])["picture"])
    kept = [name for name in names if (tmp_path / name).exists()]
    size = sum(file.stat().st_size for file in tmp_path.iterdir())
    assert size < 300_000 + 20 * 15_000  # looked at every 20 entries
    assert kept == names[-len(kept) :]
    assert len(kept) < 60
    assert (tmp_path / "mine.jpg").exists()


def test_a_full_disk_is_said_and_its_end_noticed(tmp_path, monkeypatch):
    journal = Journal(tmp_path, 1 << 20)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda path: Usage(100, 100, 0))
    with pytest.raises(InputError, match="less than 200 MB are free; free some space"):
        journal.write(undecided("why"), None)
    monkeypatch.undo()
    journal.write(undecided("why"), None)
    assert len(list(tmp_path.glob("*.jsonl"))) == 1


def test_a_folder_that_cannot_be_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file" / "log", "/proc"):
        with pytest.raises(InputError, match="cannot write to log_dir"):
            Journal(folder, 1)
