"""The scripts as a person runs them: one sentence on stderr and status 2 for wrong input."""

from pathlib import Path

import pytest

from hassod_ros.train import detector, mean_teacher, prepare_data

SMOKE = str(Path(__file__).parents[2] / "config" / "recipes" / "smoke.yaml")


@pytest.mark.parametrize("script", [detector, mean_teacher], ids=["detector", "mean_teacher"])
def test_an_unknown_key_ends_with_the_nearest_name(script, capsys):
    assert script.main(["--config", SMOKE, "--run.outptu", "x"]) == 2
    lines = capsys.readouterr().err.splitlines()
    name = script.__name__.rpartition(".")[2]
    assert lines == [f"{name}: the command line sets run.outptu, which does not exist; the nearest name is run.output"]


def test_a_folder_without_images_ends_with_one_sentence(tmp_path, capsys):
    argv = ["--config", SMOKE, "--data.images", str(tmp_path), "--data.annotations", str(tmp_path / "none.json")]
    assert detector.main([*argv, "--run.output", str(tmp_path / "run")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        f"detector: {tmp_path}/none.json does not exist; set data.annotations to a COCO JSON file or a folder"
    ]
    assert not (tmp_path / "run").exists()


def test_mean_teacher_asks_for_burn_in_first(tmp_path, capsys):
    assert mean_teacher.main(["--config", SMOKE, "--run.output", str(tmp_path)]) == 2
    assert "run train/detector.py with the same run.output first" in capsys.readouterr().err


def test_help_lists_the_keys(capsys):
    with pytest.raises(SystemExit) as ended:
        detector.main(["--help"])
    assert ended.value.code == 0
    assert "--burn_in.drop_loss_iou" in capsys.readouterr().out


def test_prepare_data_writes_a_list_or_says_what_is_missing(tmp_path, capsys):
    assert prepare_data.main(["coco", "--source", str(tmp_path), "--output", str(tmp_path / "coco.txt")]) == 2
    assert "lacks train2017, unlabeled2017" in capsys.readouterr().err
    for name in ("train2017", "unlabeled2017"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    assert prepare_data.main(["coco", "--source", str(tmp_path), "--output", str(tmp_path / "coco.txt")]) == 0
    assert "2 pictures" in capsys.readouterr().out
    assert len((tmp_path / "coco.txt").read_text().splitlines()) == 2
