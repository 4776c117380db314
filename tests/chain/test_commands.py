import json

import pytest
from PIL import Image
from skimage import data

from hassod_ros.chain.commands import Command, command_steps
from hassod_ros.chain.steps import run_steps
from hassod_ros.errors import InputError

POOL = Command(
    "pool", "small photographs", "shrink_photos --images {photos} --out {pool} --max-side {side}", ("pool.json",)
)
AGAIN = Command(
    "again", "smaller ones", "shrink_photos --images {pool}/images --out {again} --max-side 40", ("pool.json",)
)


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("coffee", "chelsea"):
        Image.fromarray(getattr(data, name)()).save(folder / f"{name}.png")
    return folder


def test_commands_run_once_and_again_where_something_has_changed(photos, tmp_path, capfd):
    steps = command_steps([POOL, AGAIN], tmp_path / "run", {"photos": photos, "side": 80})
    run_steps(steps, until="again")
    sizes = [Image.open(path).size for step in steps for path in sorted((step.folder / "images").iterdir())]
    assert [max(size) for size in sizes] == [80, 80, 40, 40]
    assert json.loads((steps[1].folder / "step.json").read_text())["needs"] == {"pool": steps[0].key}

    capfd.readouterr()
    run_steps(command_steps([POOL, AGAIN], tmp_path / "run", {"photos": photos, "side": 80}), until="again")
    assert "to do" not in capfd.readouterr().out
    other = command_steps([POOL, AGAIN], tmp_path / "run", {"photos": photos, "side": 60})
    assert not other[0].done
    assert not other[1].done  # what it reads from has changed
    assert {step.key for step in other}.isdisjoint(step.key for step in steps)


def test_a_file_counts_by_its_contents(tmp_path):
    command = Command("labels", "labels", "pseudo_label --images {list} --out {labels}/labels.json", ("labels.json",))
    listed = tmp_path / "list.txt"
    listed.write_text("a.jpg\n")
    first = command_steps([command], tmp_path, {"list": listed})[0].key
    moved = listed.rename(tmp_path / "other.txt")
    assert command_steps([command], tmp_path, {"list": moved})[0].key == first
    moved.write_text("b.jpg\n")
    assert command_steps([command], tmp_path, {"list": moved})[0].key != first


def test_a_command_that_fails_ends_the_chain_with_what_it_said(tmp_path):
    steps = command_steps([POOL], tmp_path / "run", {"photos": tmp_path / "none", "side": 80})
    with pytest.raises(InputError, match=r"step pool ended with status 2: shrink_photos: .*none"):
        run_steps(steps, until="pool")
    assert not steps[0].done


def test_lines_name_only_what_is_there(tmp_path):
    with pytest.raises(InputError, match=r"step again names \{pool\}, which is not before it; there are: photos"):
        command_steps([AGAIN], tmp_path, {"photos": "x"})
    with pytest.raises(InputError, match="two things called 'pool'"):
        command_steps([POOL, POOL], tmp_path, {"photos": "x", "side": 1})
