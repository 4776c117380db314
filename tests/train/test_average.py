import dataclasses

import pytest
import torch

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import open_detector, read_config, save_weights
from hassod_ros.errors import InputError
from hassod_ros.train import average as script
from hassod_ros.train.average import average
from tests.tiny_network import tiny_cascade


@pytest.fixture
def tiny_detector() -> DetectorConfig:
    return tiny_cascade()


@pytest.fixture
def checkpoints(tmp_path, tiny_detector):
    paths = [tmp_path / f"{seed}.pth" for seed in range(3)]
    for seed, path in enumerate(paths):
        torch.manual_seed(seed)
        model = CascadeMaskRCNN(tiny_detector)
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer += seed
        save_weights(model, path)
    return paths


def test_weights_and_running_statistics_are_averaged(checkpoints, tmp_path, capsys):
    out = tmp_path / "out.pth"
    assert script.main(["--checkpoints", *map(str, checkpoints), "--out", str(out)]) == 0
    assert capsys.readouterr().out.strip() == str(out)
    each = [open_detector(path, read_config(path)).state_dict() for path in checkpoints]
    mean = open_detector(out, read_config(out)).state_dict()
    assert any("running_mean" in name for name in mean)
    for name, value in mean.items():
        if value.is_floating_point():
            torch.testing.assert_close(value, torch.stack([state[name] for state in each]).mean(0))


def test_shares_say_what_each_counts(checkpoints, tmp_path):
    out = tmp_path / "out.pth"
    words = ["--checkpoints", *map(str, checkpoints), "--shares", "3", "0", "1", "--out", str(out)]
    assert script.main(words) == 0
    first, _, last = (open_detector(path, read_config(path)).state_dict() for path in checkpoints)
    for name, value in open_detector(out, read_config(out)).state_dict().items():
        if value.is_floating_point():
            torch.testing.assert_close(value, 0.75 * first[name] + 0.25 * last[name])


@pytest.mark.parametrize("shares", [[1.0], [1.0, -1.0, 1.0], [0.0, 0.0, 0.0]])
def test_shares_that_do_not_fit(checkpoints, shares):
    with pytest.raises(InputError, match="a number from 0 for each of the 3 checkpoints, not all 0"):
        average(checkpoints, shares)


def test_one_checkpoint_stays_as_it_is(checkpoints):
    config = read_config(checkpoints[1])
    alone, there = average(checkpoints[1:2]).state_dict(), open_detector(checkpoints[1], config).state_dict()
    assert all(torch.equal(alone[name], there[name]) for name in there if there[name].is_floating_point())


def test_bad_input(checkpoints, tmp_path, tiny_detector, capsys):
    other = tmp_path / "other.pth"
    save_weights(CascadeMaskRCNN(dataclasses.replace(tiny_detector, nms=0.4)), other)
    with pytest.raises(InputError, match=r"other\.pth is not the same kind of detector"):
        average([checkpoints[0], other])
    with pytest.raises(InputError, match="nothing to average"):
        average([])
    missing = ["--checkpoints", str(tmp_path / "none.pth"), "--out", str(tmp_path / "out.pth")]
    assert script.main(missing) == 2
    assert "none.pth" in capsys.readouterr().err
