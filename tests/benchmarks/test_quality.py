import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.benchmarks.toy_discs import load_script


@pytest.fixture
def data(tmp_path):
    """Three pictures of one square each in `set/images`, annotations beside them."""
    folder = tmp_path / "set"
    (folder / "images").mkdir(parents=True)
    images, annotations = [], []
    for i in (1, 2, 3):
        picture = np.full((48, 64, 3), 40, np.uint8)
        picture[8:40, 10 * i : 10 * i + 24] = 200
        Image.fromarray(picture).save(folder / "images" / f"{i}.png")
        code = rle.encode(np.asfortranarray(picture[:, :, 0] == 200))
        code = {"size": code["size"], "counts": code["counts"].decode()}
        images.append({"id": i, "file_name": f"{i}.png", "width": 64, "height": 48})
        annotations.append({"id": i, "image_id": i, "segmentation": code, "bbox": [10 * i, 8, 24, 32], "area": 768})
    (folder / "truth.json").write_text(json.dumps({"images": images, "annotations": annotations}))
    (folder / "labels.json").write_text(json.dumps([annotations[0]]))
    return folder


@pytest.fixture(scope="module")
def main():
    module = load_script("quality")
    return lambda *arguments: module.main([str(argument) for argument in arguments])


def test_methods_side_by_side(data, tmp_path, main, capsys):
    truth, out, labels = data / "truth.json", tmp_path / "out.json", f"labels={data / 'labels.json'}"
    methods = ["whole", "slic_merging", "felzenszwalb"]
    assert main("--data", truth, "--methods", *methods, "--predictions", labels, "--out", out) == 0
    rows = json.loads(out.read_text())["sets"][str(truth)]["rows"]
    assert list(rows) == [*methods, "labels"]
    assert rows["whole"]["mask"]["AR@100"] == 0
    assert rows["whole"]["mask"]["covering"] == pytest.approx(768 / (48 * 64))
    assert rows["slic_merging"]["mask"]["AR@100"] > 0.8
    assert rows["labels"]["mask"]["AR@100"] == pytest.approx(1 / 3)
    assert "slic_merging" in capsys.readouterr().out


def test_several_features_get_a_row_each(data, tmp_path, main):
    truth, out = data / "truth.json", tmp_path / "out.json"
    names = ["handcrafted", "handcrafted+handcrafted"]
    assert main("--data", truth, "--images", 1, "--methods", "maskcut", "--features", *names, "--out", out) == 0
    rows = json.loads(out.read_text())["sets"][str(truth)]["rows"]
    assert list(rows) == [f"maskcut, {name}" for name in names]
    # Joined with itself nothing changes but the scale.
    assert rows["maskcut, handcrafted"]["mask"] == rows["maskcut, handcrafted+handcrafted"]["mask"]


def test_images_can_be_thinned_and_lie_elsewhere(data, tmp_path, main):
    truth, out = tmp_path / "alone.json", tmp_path / "out.json"
    truth.write_text((data / "truth.json").read_text())
    labels = data / "all.json"
    labels.write_text(json.dumps(json.loads(truth.read_text())["annotations"]))
    arguments = ["--data", f"{truth}:{data / 'images'}", "--images", 2, "--predictions", f"labels={labels}"]
    assert main(*arguments, "--methods", "whole", "--out", out) == 0
    found = json.loads(out.read_text())["sets"][str(truth)]
    assert found["images"] == 2
    assert found["rows"]["labels"]["counts"]["predictions"] == 2


def test_bad_input_is_one_sentence(data, tmp_path, main, capsys):
    truth, alone = data / "truth.json", tmp_path / "alone.json"
    alone.write_text(truth.read_text())
    for arguments, message in (
        (["--data", alone], "are not beside it"),
        (["--data", truth, "--predictions", "labels.json"], "write NAME=FILE"),
        (["--data", truth, "--data", truth, "--predictions", "a=b"], "belong to one set"),
    ):
        assert main(*arguments, "--methods", "whole") == 2
        assert message in capsys.readouterr().err
