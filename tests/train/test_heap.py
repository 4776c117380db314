"""`train/heap.py` from a folder of photographs to a state that `evaluate` takes."""

import json

import numpy as np
from PIL import Image

from hassod_ros.train.evaluate import main as evaluate
from hassod_ros.train.heap import main

SMALL = ["--features", "handcrafted", "--device", "cpu", "--set=size=96", "--set=head.iterations=8", "--set=crf=null"]


def test_a_head_is_trained_shown_and_used(tmp_path, capsys):
    for folder in ("images", "masks"):
        (tmp_path / "set" / folder).mkdir(parents=True)
    for seed in range(4):
        y, x = np.mgrid[:96, :128]
        mask = (y - 48) ** 2 + (x - 44 - 10 * seed) ** 2 < 26**2
        image = np.where(mask[..., None], (220, 60 + 20 * seed, 0), (90, 110, 140)).astype(np.uint8)
        Image.fromarray(image).save(tmp_path / "set" / "images" / f"{seed}.png")
        Image.fromarray(mask.astype(np.uint8) * 255).save(tmp_path / "set" / "masks" / f"{seed}.png")
    (tmp_path / "set" / "images" / "broken.jpg").write_bytes(b"no image")
    out = tmp_path / "heap.npz"
    command = ["--images", str(tmp_path / "set" / "images"), "--out", str(out), *SMALL, "--set=head.every=4"]
    assert main(command) == 0
    said = capsys.readouterr().out
    assert "left out: " in said
    assert "from 4 images" in said
    assert list((tmp_path / "heap.run" / "tensorboard").glob("events*"))
    (tmp_path / "set" / "images" / "broken.jpg").unlink()
    score = ["--task", "saliency", "--annotations", str(tmp_path / "set"), "--method", "heap", "--state", str(out)]
    assert evaluate([*score, "--features", "handcrafted", "--report", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["scores"]["IoU"] > 0.2
    assert main(command) == 2
    assert "exists; remove it" in capsys.readouterr().err
