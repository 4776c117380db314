"""The output `features` is put back into the shipped models after it was taken out."""

import json

import numpy as np
import onnx
import pytest

from hassod_ros.default_model import default_model
from hassod_ros.deploy.feature_output import add_features
from hassod_ros.errors import InputError
from hassod_ros.export import add_features as script
from hassod_ros.runtime.backends import open_backend
from hassod_ros.runtime.model_info import METADATA_KEY, read_model_info
from hassod_ros.runtime.segmenter import Segmenter


@pytest.fixture(scope="module")
def photos(tmp_path_factory, shared):
    path = tmp_path_factory.mktemp("photos") / "photos.txt"
    path.write_text(str(sorted((shared / "data" / "photos" / "images").rglob("*.jpg"))[0]))
    return path


@pytest.fixture
def old_file(tmp_path):
    """A shipped model as it was before there was the output."""

    def strip(precision):
        model = onnx.load(default_model(precision))
        names = [value.name for value in model.graph.output]
        shape = model.graph.output.pop(names.index("features"))
        for node in model.graph.node:  # of an export the pyramid's own name, of `add_features` a copy's
            for names in (node.input, node.output):
                names[:] = ["pyramid" if name == "features" else name for name in names]
        (finest,) = [
            node
            for node in model.graph.node
            if any("fpn_output2.weight" in name for name in node.input[:2]) and node.op_type == "Conv"
        ]
        shape.name = finest.output[0]
        model.graph.value_info.append(shape)
        metadata = {entry.key: entry.value for entry in model.metadata_props}
        info = json.loads(metadata[METADATA_KEY])
        del info["feature_stride"]
        onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(info)})
        path = tmp_path / f"old-{precision}.onnx"
        onnx.save(model, path)
        return path

    return strip


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_an_old_file_gets_the_features_of_the_shipped_one(old_file, photos, tmp_path, precision):
    old, new = old_file(precision), tmp_path / "new.onnx"
    assert read_model_info(old).feature_stride == 0
    assert script.main([str(old), "--images", str(photos), "--out", str(new)]) == 0
    assert read_model_info(new) == read_model_info(default_model(precision))
    image = np.random.default_rng(0).integers(0, 256, (1, 352, 352, 3), np.uint8)
    found, expected = (open_backend(path, features=True).infer(image) for path in (new, default_model(precision)))
    np.testing.assert_array_equal(found.features, expected.features)
    assert found.features.shape == (1, 64, 88, 88)
    assert found.features.std() > 0.1


def test_old_files_go_on_working(old_file):
    segmenter = Segmenter(old_file("fp32"))
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    ((instances, features),) = segmenter.observe([picture])
    assert instances.image_size == (40, 60)
    assert features is None


def test_an_old_file_cannot_be_asked_for_features(old_file):
    with pytest.raises(InputError, match="has no output `features`; add it with add_features"):
        open_backend(old_file("fp32"), features=True)


def test_a_file_that_has_them_is_left_alone(photos, tmp_path, capsys):
    path = str(default_model())
    assert script.main([path, "--images", str(photos), "--out", str(tmp_path / "new.onnx")]) == 2
    assert "has the output `features` already" in capsys.readouterr().err
    assert not (tmp_path / "new.onnx").exists()


def test_a_graph_without_a_pyramid_is_refused(old_file, photos, tmp_path):
    path = old_file("fp32")
    model = onnx.load(path)
    for values in (model.graph.initializer, model.graph.value_info):
        for value in values:
            value.name = value.name.replace("fpn_output2", "other")
    for node in model.graph.node:
        for names in (node.input, node.output):
            names[:] = [name.replace("fpn_output2", "other") for name in names]
    onnx.save(model, path)
    with pytest.raises(InputError, match="no finest pyramid level"):
        add_features(path, tmp_path / "new.onnx", photos, report=lambda line: None)
    assert not (tmp_path / "new.onnx").exists()


def test_features_cover_the_image_and_not_its_padding():
    segmenter = Segmenter(default_model(), features=True)
    picture = np.random.default_rng(0).integers(0, 256, (100, 200, 3), np.uint8)
    ((_, features),) = segmenter.observe([picture])
    assert features.shape == (64, 44, 88)
