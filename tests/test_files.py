import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import hassod_ros
from hassod_ros.errors import InputError
from hassod_ros.files import (
    alone,
    atomic_path,
    find_config,
    find_out_early,
    make_folder,
    revision,
    sha256,
    write_json,
    write_text,
)


def test_write_text_replaces_and_leaves_nothing_else(tmp_path):
    target = tmp_path / "deep" / "note.txt"
    write_text(target, "old")
    write_text(target, "Krähe\n")
    assert target.read_bytes() == "Krähe\n".encode()
    assert os.listdir(target.parent) == ["note.txt"]


def test_write_json_gives_equal_bytes_for_equal_values(tmp_path):
    value = {"b": [1, 2.5, None], "a": "ü"}
    write_json(tmp_path / "one.json", value)
    write_json(tmp_path / "two.json", json.loads(json.dumps(value)))
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()
    assert json.loads((tmp_path / "one.json").read_text(encoding="utf-8")) == value
    write_json(tmp_path / "one.json", value, indent=2)
    assert "\n  " in (tmp_path / "one.json").read_text(encoding="utf-8")


def test_a_folder_that_cannot_be_made_is_found_out_without_making_any(tmp_path):
    find_out_early(tmp_path / "new" / "deep")
    assert os.listdir(tmp_path) == []
    (tmp_path / "file").write_text("x")
    for check in (find_out_early, make_folder):
        with pytest.raises(InputError, match=f"cannot write to {tmp_path}/file.*; choose another folder"):
            check(tmp_path / "file" / "deep")
    make_folder(tmp_path / "new" / "deep")
    assert (tmp_path / "new" / "deep").is_dir()


def test_the_temporary_path_keeps_the_suffix_and_the_folder(tmp_path):
    with atomic_path(tmp_path / "picture.png") as temporary:
        assert (temporary.suffix, temporary.parent) == (".png", tmp_path)
        temporary.write_bytes(b"x")
        assert not (tmp_path / "picture.png").exists()
    assert (tmp_path / "picture.png").read_bytes() == b"x"


def test_permissions_are_the_usual_ones(tmp_path):
    with atomic_path(tmp_path / "atomic"):
        pass
    (tmp_path / "plain").touch()
    assert (tmp_path / "atomic").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("error", [KeyError("broken"), KeyboardInterrupt()])
def test_an_error_in_the_block_keeps_the_old_file(tmp_path, error):
    target = tmp_path / "kept"
    write_text(target, "old")

    def write_half() -> None:
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["kept"]


def test_a_value_json_cannot_hold_keeps_the_old_file(tmp_path):
    write_json(tmp_path / "a.json", 1)
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"x": object()})
    assert (tmp_path / "a.json").read_text() == "1\n"


def test_a_file_where_the_folder_should_be(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"cannot write .*/file/out\.json"):
        write_json(tmp_path / "file" / "out.json", 1)


def test_a_folder_where_the_file_should_be(tmp_path):
    (tmp_path / "out.json").mkdir()
    with pytest.raises(InputError, match=r"cannot write .*out\.json"):
        write_json(tmp_path / "out.json", 1)
    assert os.listdir(tmp_path) == ["out.json"]


def test_a_place_that_takes_no_files():
    # Nobody can make files under /proc, not even root.
    with pytest.raises(InputError, match=r"cannot write /proc/hassod/x: .*; choose another folder"):
        write_text("/proc/hassod/x", "text")


def test_a_write_protected_folder(tmp_path):
    if os.geteuid() == 0:
        pytest.skip("root may write anywhere")
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(InputError, match="choose another folder"):
            write_text(tmp_path / "x", "text")
    finally:
        tmp_path.chmod(0o700)


def test_a_write_that_fails_half_way_keeps_the_old_file(tmp_path):
    # The limit on a file's size fails writes as a full disk does: part of the data is in, then OSError.
    target = tmp_path / "labels.json"
    write_text(target, "old")
    code = (
        "import resource, signal, sys\n"
        "from hassod_ros.errors import InputError\n"
        "from hassod_ros.files import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "try:\n"
        "    write_text(sys.argv[1], 'x' * 100_000)\n"
        "except InputError as error:\n"
        "    print(error)\n"
    )
    root = Path(hassod_ros.__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(target)], cwd=root, capture_output=True, text=True, check=True, timeout=60
    )
    assert f"cannot write {target}: " in done.stdout
    assert "free some space" in done.stdout
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["labels.json"]


def test_a_full_device_is_named(tmp_path):
    if not Path("/dev/full").exists():
        pytest.skip("this system has no /dev/full")
    with pytest.raises(InputError, match="No space left on device"), atomic_path(tmp_path / "x"):
        Path("/dev/full").write_bytes(b"x")
    assert os.listdir(tmp_path) == []


def test_a_folder_in_which_nothing_was_written_does_not_stay(tmp_path):
    with pytest.raises(InputError, match="no labels"), alone(tmp_path / "runs" / "a"):
        raise InputError("no labels")
    assert not any(tmp_path.iterdir())
    with alone(tmp_path / "runs" / "a"):
        (tmp_path / "runs" / "a" / "model.pth").touch()
    (tmp_path / "there").mkdir()
    with alone(tmp_path / "there"):
        pass
    assert sorted(each.name for each in tmp_path.iterdir()) == ["runs", "there"]
    assert (tmp_path / "runs" / "a" / "model.pth").is_file()


def test_sha256_of_more_than_one_block(tmp_path):
    data = bytes(range(256)) * 10_000
    (tmp_path / "weights").write_bytes(data)
    assert sha256(tmp_path / "weights") == hashlib.sha256(data).hexdigest()


def test_revision_names_this_code():
    assert revision()
    root = Path(hassod_ros.__file__).resolve().parent.parent
    if not (root / ".git").exists():
        assert revision() == hassod_ros.__version__
        return
    head = subprocess.run(
        ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, check=True
    ).stdout.strip()
    name = revision().removesuffix("-dirty")
    assert head.startswith(name.rpartition("-g")[2]) or name.startswith("v")


def test_a_configuration_is_found_in_a_colcon_workspace(tmp_path, monkeypatch):
    recipe = tmp_path / "install" / "hassod_ros" / "share" / "hassod_ros" / "config" / "recipes" / "mine.yaml"
    recipe.parent.mkdir(parents=True)
    recipe.touch()
    monkeypatch.setenv("AMENT_PREFIX_PATH", f"{tmp_path / 'none'}:{tmp_path / 'install' / 'hassod_ros'}")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("hassod_ros.__file__", str(tmp_path / "site-packages" / "hassod_ros" / "__init__.py"))
    assert find_config("recipes/mine.yaml") == recipe
    with pytest.raises(InputError, match=r"config/recipes/other.yaml is neither here nor in .*share/hassod_ros.*; run"):
        find_config("recipes/other.yaml")
