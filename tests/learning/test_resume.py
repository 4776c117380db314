import resource

import pytest
import torch

from hassod_ros.detection.checkpoints import write_tensors
from hassod_ros.errors import InputError
from hassod_ros.learning.resume import load_state

SETTINGS = {"burn_in.warmup": 10, "data.short_sides": [64, 80]}
CPU = torch.device("cpu")


def test_gives_back_tensors_and_values(tmp_path):
    weights = {"a": torch.arange(5.0), "n": torch.tensor(3)}
    write_tensors(tmp_path / "c.pt", {"settings": SETTINGS, "student": weights, "iteration": 7})
    state = load_state(tmp_path / "c.pt", SETTINGS, CPU)
    assert state["iteration"] == 7
    assert torch.equal(state["student"]["a"], weights["a"])
    assert load_state(tmp_path / "none.pt", SETTINGS, CPU) is None


def test_names_the_keys_of_another_recipe(tmp_path):
    write_tensors(tmp_path / "c.pt", {"settings": SETTINGS})
    other = {"burn_in.warmup": 20, "data.short_sides": [64, 80], "run.seed": 1}
    with pytest.raises(
        InputError, match=r"burn_in.warmup \(10 there, 20 now\), run.seed \(absent there, 1 now\); take"
    ):
        load_state(tmp_path / "c.pt", other, CPU)


@pytest.mark.parametrize("content", [b"", b"PK damaged", None])
def test_refuses_a_damaged_file(tmp_path, content):
    path = tmp_path / "c.pt"
    write_tensors(path, {"settings": SETTINGS, "a": torch.zeros(1000)})
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(InputError, match=r"is not a checkpoint of this program .*; move it away to start again"):
        load_state(path, SETTINGS, CPU)


def test_a_full_disk_keeps_the_old_checkpoint(tmp_path):
    path = tmp_path / "c.pt"
    write_tensors(path, {"settings": SETTINGS, "iteration": 1})
    old = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))  # the kernel refuses larger files
    try:
        with pytest.raises(InputError, match=r"cannot write .*c\.pt: .*; free some space"):
            write_tensors(path, {"settings": SETTINGS, "a": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert path.read_bytes() == old
    assert list(tmp_path.iterdir()) == [path]
