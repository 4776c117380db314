import json

import onnx
import pytest

from hassod_ros.errors import InputError
from hassod_ros.runtime.model_info import METADATA_KEY, ModelInfo, read_model_info


@pytest.fixture
def path(write_model):
    return write_model(precision="int8", recipe="small.yaml", batch=2)


def test_reads_what_the_exporter_wrote(path):
    info = read_model_info(path)
    assert (info.input_size, info.batch, info.precision, info.recipe) == ((48, 64), 2, "int8", "small.yaml")
    assert info.levels == ("whole", "part", "subpart")


def test_agrees_with_the_onnx_package(path):
    pairs = {pair.key: pair.value for pair in onnx.load(path).metadata_props}
    assert ModelInfo.from_metadata(pairs, "model") == read_model_info(path)


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, 0.999])
def test_a_file_cut_short_is_named(path, tmp_path, share):
    whole = path.read_bytes()
    cut = tmp_path / "cut.onnx"
    cut.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(InputError, match=r"cut\.onnx.*(cut short|not exported)"):
        read_model_info(cut)


@pytest.mark.parametrize("content", [b"", b"not a model at all", b"\xff" * 100, bytes(range(256))])
def test_other_files_are_refused(tmp_path, content):
    other = tmp_path / "other.onnx"
    other.write_bytes(content)
    with pytest.raises(InputError, match=r"other\.onnx"):
        read_model_info(other)


def test_an_empty_file_is_called_so(tmp_path):
    (tmp_path / "empty.onnx").touch()
    with pytest.raises(InputError, match=r"empty\.onnx is empty; copy or export it again"):
        read_model_info(tmp_path / "empty.onnx")


def test_missing_file(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_model_info(tmp_path / "none.onnx")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 0}, "schema 0, this version reads 1; export it again"),
        ({"schema": 2}, "schema 2, this version reads 1; install a newer hassod_ros"),
        ({"input_size": [0, 64]}, "input_size cannot be"),
        ({"levels": ["part", "whole", "subpart"]}, "levels cannot be"),
        ({"std": [1, 0, 1]}, "std cannot be"),
        ({"batch": "two"}, "wrong metadata"),
        ({"mean": None}, "wrong metadata"),
    ],
)
def test_metadata_of_another_kind_are_refused(write_model, path, change, message):
    values = json.loads(read_model_info(path).to_metadata()[METADATA_KEY]) | change
    with pytest.raises(InputError, match=message):
        read_model_info(write_model(metadata={METADATA_KEY: json.dumps(values)}))


def test_a_missing_value_is_named(write_model, path):
    values = json.loads(read_model_info(path).to_metadata()[METADATA_KEY])
    del values["proposals"]
    with pytest.raises(InputError, match="lacks the metadata 'proposals'"):
        read_model_info(write_model(metadata={METADATA_KEY: json.dumps(values)}))


def test_a_foreign_model_is_refused(write_model):
    with pytest.raises(InputError, match="not exported by hassod_ros"):
        read_model_info(write_model(metadata={"author": "someone"}))


def test_an_older_file_takes_the_defaults_of_what_was_added(write_model, path):
    values = json.loads(read_model_info(path).to_metadata()[METADATA_KEY])
    del values["parent_coverage"], values["color_weight"]
    info = read_model_info(write_model(metadata={METADATA_KEY: json.dumps(values)}))
    assert (info.parent_coverage, info.color_weight) == (0.75, 0.0)
    info = read_model_info(write_model(metadata={METADATA_KEY: json.dumps(values | {"cover": 0.4})}))
    assert info.parent_coverage == 0.4  # its name before
