import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from hassod_ros.cores import usable_cores

CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
needs_two = pytest.mark.skipif(CORES < 2, reason="there is one core only, which no quota can make fewer")


def tree(root: Path, group: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/self/cgroup").write_text(group)
    for name, content in files.items():
        file = root / "sys/fs/cgroup" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    return root


UNLIMITED = {
    "no control groups": ("", {}),
    "version 2": ("0::/user.slice\n", {"user.slice/cpu.max": "max 100000\n"}),
    "version 2, more than there is": ("0::/\n", {"cpu.max": "100000000 100000\n"}),
    "version 1": (
        "3:cpu,cpuacct:/docker/a\n0::/docker/a\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "-1\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
    ),
}
ONE = {
    "version 2, in a container": ("0::/\n", {"cpu.max": "100000 100000\n"}),
    "version 2, half a core": ("0::/\n", {"cpu.max": "50000 100000\n"}),
    "version 2, one and a half": ("0::/\n", {"cpu.max": "150000 100000\n"}),
    "version 2, a service": ("0::/a.slice/b.service\n", {"a.slice/b.service/cpu.max": "20000 20000\n"}),
    "version 2, the slice above": (
        "0::/a.slice/b.service\n",
        {"a.slice/cpu.max": "100000 100000\n", "a.slice/b.service/cpu.max": "max 100000\n"},
    ),
    "version 1, in a container": (
        "4:memory:/docker/a\n3:cpu,cpuacct:/docker/a\n",
        {"cpu,cpuacct/cpu.cfs_quota_us": "100000\n", "cpu,cpuacct/cpu.cfs_period_us": "100000\n"},
    ),
    "version 1, alone": (
        "1:cpu:/robot\n0::/\n",
        {"cpu/robot/cpu.cfs_quota_us": "50000\n", "cpu/robot/cpu.cfs_period_us": "50000\n"},
    ),
}


@pytest.mark.parametrize("name", UNLIMITED)
def test_without_a_quota_every_core_counts(tmp_path, name):
    group, files = UNLIMITED[name]
    assert usable_cores(tree(tmp_path, group, **files)) == CORES


@needs_two
@pytest.mark.parametrize("name", ONE)
def test_a_quota_counts_in_whole_cores(tmp_path, name):
    group, files = ONE[name]
    assert usable_cores(tree(tmp_path, group, **files)) == 1


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="binds the process to a core (Linux)")
def test_binding_to_cores_counts():
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert usable_cores() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.fixture
def limited():
    """A control group of this machine with a quota of half a core, of either version of the kernel's."""
    for mount, files in (
        (Path("/sys/fs/cgroup/cpu"), {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "50000"}),
        (Path("/sys/fs/cgroup"), {"cpu.max": "50000 100000"}),
    ):
        group = mount / f"hassod_ros_{uuid.uuid4().hex}"
        try:
            group.mkdir()
        except OSError:
            continue
        try:
            for name, content in files.items():
                (group / name).write_text(content)
        except OSError:
            group.rmdir()
            continue
        yield group
        group.rmdir()
        return
    pytest.skip("control groups of the processor cannot be made here")


@needs_two
def test_a_quota_that_the_kernel_enforces_is_seen(limited):
    program = (
        "import os, sys; from pathlib import Path; from hassod_ros.cores import usable_cores; "
        "before = usable_cores(); Path(sys.argv[1]).write_text(str(os.getpid())); print(before, usable_cores())"
    )
    command = [sys.executable, "-c", program, str(limited / "cgroup.procs")]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert said.split() == [str(usable_cores()), "1"]
