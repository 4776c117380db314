"""`benchmarks/foreground.py` on discs before a wall: learned, scored, stopped and gone on."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.benchmarks.toy_discs import SMALL, disc, load_script


@pytest.fixture(scope="module")
def module():
    return load_script("foreground")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("set")
    for kind in ("images", "masks", "labels"):
        (root / kind).mkdir()
    for seed in range(4):
        image, mask = disc(seed)
        for kind, picture in (("images", image), ("masks", mask * np.uint8(255)), ("labels", mask.astype(np.uint8))):
            Image.fromarray(picture).save(root / kind / f"{seed}.png")
    return root


def test_a_stopped_run_goes_on_and_gives_the_same_figures(module, folder, tmp_path, capsys, monkeypatch):
    settings = [f"--set={each}" for each in SMALL]
    command = ["--learn", str(folder / "images"), "--saliency", str(folder), "--segmentation", str(folder), *settings]
    out = tmp_path / "out"
    assert module.main([*command, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "lightcluster has " in said
    figures = json.loads((out / "figures.json").read_text())
    saliency, classes = figures["saliency"], figures["segmentation"]
    assert saliency["whole"]["IoU"] == pytest.approx(np.pi * 26**2 / (96 * 128), abs=0.01)
    assert saliency["lightcluster"]["IoU"] > saliency["whole"]["IoU"]
    assert {f"lightcluster, {level} alone" for level in ("image", "category", "dataset")} < set(saliency)
    assert set(classes) == {"lightcluster", "heap", "k-means", "features alone"}
    assert classes["k-means"]["clusters"] <= 3

    # What one picture lacks is computed again, and nothing else.
    (out / "saliency" / "2.json").unlink()
    read = []
    monkeypatch.setattr(module, "read_image", lambda path: read.append(path.stem) or module.np.array(Image.open(path)))
    assert module.main([*command, "--out", str(out)]) == 0
    assert read == ["2"]
    again = json.loads((out / "figures.json").read_text())["saliency"]
    for name, row in saliency.items():
        assert {k: v for k, v in row.items() if k != "s/image"} == {
            k: v for k, v in again[name].items() if k != "s/image"
        }

    assert module.main([*command, "--out", str(out), "--set=size=64"]) == 2
    assert "holds figures of other settings" in capsys.readouterr().err
    assert module.main(["--out", str(out)]) == 2
    assert "give a set with --saliency" in capsys.readouterr().err
