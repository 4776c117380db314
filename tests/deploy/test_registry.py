from __future__ import annotations

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hassod_ros.deploy.registry import REFUSED, Registry, Version
from hassod_ros.errors import InputError

WRITER = """
import sys
from pathlib import Path
from hassod_ros.deploy.registry import Registry
registry = Registry(sys.argv[1], create=True)
for number in range(int(sys.argv[3])):
    model = Path(sys.argv[4], f"{sys.argv[2]}_{number}.onnx")
    model.write_bytes(f"{sys.argv[2]} {number} ".encode() * 1000)
    version = registry.register(model, provenance={"writer": sys.argv[2], "number": number})
    registry.set_alias("stable", version)
    print(version.number, flush=True)
"""


def writer(root: Path, name: str, count: int, work: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(root), name, str(count), str(work)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path / "models", create=True)


def add(registry: Registry, content: str, **options: object) -> Version:
    file = registry.root.parent / "made.onnx"
    file.write_text(content)
    return registry.register(file, **options)  # type: ignore[arg-type]


def check_whole(registry: Registry) -> None:
    """Every version is complete, every alias names one, and the history tells both."""
    told = {entry["version"] for entry in registry.history() if entry["event"] == "register"}
    for version in registry.versions():
        version.check()
        assert version.record["schema"] == 1
        assert str(version) in told
    for number in registry.aliases().values():
        registry.resolve(str(number)).check()
    changes = [entry for entry in registry.history() if entry["event"] == "alias"]
    if changes:
        assert changes[-1]["number"] == registry.aliases()[changes[-1]["alias"]]


def test_versions_aliases_and_where_they_came_from(registry: Registry, tmp_path: Path) -> None:
    report = tmp_path / "page.html"
    report.write_text("<html>")
    first = add(registry, "one", status="imported")
    second = add(registry, "two", parent=first, provenance={"sources": ["night.mcap"]}, gate={"ok": 1}, report=report)
    assert [str(version) for version in registry.versions()] == ["perception/1", "perception/2"]
    assert second.record["parent"] == {"version": "perception/1", "sha256": first.sha256}
    assert second.record["provenance"] == {"sources": ["night.mcap"]}
    assert json.loads((second.folder / "gate.json").read_text()) == {"ok": 1}
    assert (second.folder / "report.html").read_text() == "<html>"
    assert (second.model.read_text(), first.model.read_text()) == ("two", "one")

    registry.set_alias("stable", first)
    registry.set_alias("stable", second, why="gate passed")
    again = Registry(registry.root)
    for reference in ("stable", "2", "perception/stable", "perception/2"):
        assert again.resolve(reference).number == 2
    assert again.previous("stable").number == 1
    assert [entry["event"] for entry in again.history()] == ["register", "register", "alias", "alias"]
    assert again.history()[-1] | {"before": 1, "number": 2, "why": "gate passed"} == again.history()[-1]
    check_whole(again)


def test_the_same_file_is_registered_once(registry: Registry) -> None:
    assert add(registry, "one").number == add(registry, "one").number == 1
    assert add(registry, "one", status=REFUSED, reason="worse").number == 2


def test_a_refused_model_gets_an_alias_only_by_force(registry: Registry) -> None:
    version = add(registry, "worse", status=REFUSED, reason="temporal consistency is 0.5")
    with pytest.raises(InputError, match=r"was refused \(temporal consistency is 0\.5\)"):
        registry.set_alias("stable", version)
    registry.set_alias("stable", version, force=True)
    assert registry.aliases() == {"stable": 1}


def test_what_does_not_exist_is_answered_by_what_does(registry: Registry) -> None:
    with pytest.raises(InputError, match="has no perception 'stable'; there is: nothing yet"):
        registry.resolve("stable")
    registry.set_alias("canary", add(registry, "one"))
    with pytest.raises(InputError, match=r"has no perception 'stable'; there is: canary \(1\), 1"):
        registry.resolve("stable")
    with pytest.raises(InputError, match="named no other version before"):
        registry.previous("canary")
    with pytest.raises(InputError, match="cannot be an alias"):
        registry.set_alias("3", registry.resolve("1"))
    with pytest.raises(InputError, match="cannot name models"):
        add(registry, "one", name="../up")
    with pytest.raises(InputError, match="has no alias 'stable'"):
        registry.remove_alias("stable")


def test_folders_that_are_no_registry_or_of_another_schema(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is no registry of models"):
        Registry(tmp_path)
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(InputError, match="holds other files"):
        Registry(tmp_path, create=True)
    (tmp_path / "registry.json").write_text('{"schema": 7}')
    with pytest.raises(InputError, match="has schema 7, this program knows 1"):
        Registry(tmp_path)
    (tmp_path / "registry.json").write_text("{")
    with pytest.raises(InputError, match="is damaged"):
        Registry(tmp_path)


def test_a_changed_model_file_is_noticed(registry: Registry) -> None:
    version = add(registry, "one")
    version.check()
    version.model.write_text("other")
    with pytest.raises(InputError, match="is not the file that was registered"):
        version.check()


def test_prune_keeps_the_newest_the_named_and_what_to_roll_back_to(registry: Registry) -> None:
    versions = [add(registry, f"model {number}") for number in range(8)]
    registry.set_alias("stable", versions[0])
    registry.set_alias("stable", versions[2])
    gone = registry.prune(keep=2)
    assert [version.number for version in gone] == [2, 4, 5, 6]
    assert [version.number for version in registry.versions()] == [1, 3, 7, 8]
    assert add(registry, "new").number == 9
    check_whole(registry)


def test_two_writers_at_once_lose_nothing(tmp_path: Path) -> None:
    root = tmp_path / "models"
    children = [writer(root, name, 8, tmp_path) for name in ("left", "right")]
    for child in children:
        output, errors = child.communicate(timeout=120)
        assert child.returncode == 0, errors
        assert len(output.split()) == 8
    registry = Registry(root)
    assert [version.number for version in registry.versions()] == list(range(1, 17))
    made = {(v.record["provenance"]["writer"], v.record["provenance"]["number"]) for v in registry.versions()}
    assert made == {(name, number) for name in ("left", "right") for number in range(8)}
    assert len(registry.history()) == 32
    check_whole(registry)


def test_killed_writers_leave_it_whole(tmp_path: Path) -> None:
    root, rng = tmp_path / "models", random.Random(0)
    for attempt in range(6):
        child = writer(root, f"w{attempt}", 200, tmp_path)
        assert child.stdout
        child.stdout.readline()  # it has begun
        time.sleep(rng.uniform(0, 0.1))
        child.send_signal(signal.SIGKILL)
        child.wait()
        registry = Registry(root)
        add(registry, f"after {attempt}")
        check_whole(registry)


def test_a_full_disk_leaves_it_whole(tmp_path: Path) -> None:
    """Files that may not grow beyond a limit fail as on a full disk: at every place where something is written."""
    registry = Registry(tmp_path / "models", create=True)
    registry.set_alias("stable", add(registry, "x" * 3000))
    program = (
        "import resource, sys\nlimit = int(sys.argv[3])\n"
        "from hassod_ros.deploy.registry import Registry\nfrom hassod_ros.errors import InputError\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))\n"
        "try:\n    registry = Registry(sys.argv[1])\n    version = registry.register(sys.argv[2])\n"
        "    registry.set_alias('stable', version)\nexcept InputError as error:\n    print(error)\n    sys.exit(2)"
    )
    file = tmp_path / "new.onnx"
    file.write_text("y" * 300)
    failed = 0
    for limit in (50, 250, 400, 600, 10_000):
        copy = tmp_path / f"copy_{limit}"
        shutil.copytree(registry.root, copy)
        before = {str(version) for version in Registry(copy).versions()}
        done = subprocess.run(
            [sys.executable, "-c", program, str(copy), str(file), str(limit)], capture_output=True, text=True
        )
        assert "Traceback" not in done.stderr
        failed += done.returncode == 2
        assert done.returncode == 0 or done.stdout.count("\n") == 1
        after = Registry(copy)
        assert before <= {str(version) for version in after.versions()}
        add(after, f"later {limit}")
        check_whole(after)
    assert failed >= 3
    assert done.returncode == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 50


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_registry_that_may_only_be_read(registry: Registry) -> None:
    version = add(registry, "one")
    registry.root.chmod(0o500)
    try:
        assert registry.resolve("1").number == 1
        with pytest.raises(InputError, match="cannot write"):
            registry.set_alias("stable", version)
    finally:
        registry.root.chmod(0o700)


@pytest.mark.parametrize("content", ["[]", "{}", '{"schema": 1}', '{"schema": 1, "model_sha256": 3, "status": "x"}'])
def test_a_damaged_record_is_named(registry: Registry, content: str) -> None:
    (add(registry, "one").folder / "record.json").write_text(content)
    with pytest.raises(InputError, match=r"record\.json is missing or damaged; restore or remove"):
        registry.versions()


@pytest.mark.parametrize("content", ["[]", '{"perception": []}', '{"perception": {"stable": "one"}}', "{"])
def test_damaged_aliases_are_named(registry: Registry, content: str) -> None:
    (registry.root / "aliases.json").write_text(content)
    with pytest.raises(InputError, match=r"aliases\.json is damaged; restore it from .*history\.jsonl"):
        registry.aliases()


def test_a_model_file_that_is_not_there_is_named(registry: Registry, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.onnx cannot be read \(No such file or directory\); check the path"):
        registry.register(tmp_path / "none.onnx")
