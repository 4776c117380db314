import dataclasses
import pickle
from collections import OrderedDict

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torchvision.models import resnet18

from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import load_weights, open_detector, read_config, read_tensors, save_weights
from hassod_ros.errors import InputError


@pytest.fixture
def model(small_config):
    torch.manual_seed(0)
    return CascadeMaskRCNN(small_config)


@pytest.fixture
def fresh(small_config):
    torch.manual_seed(1)
    return CascadeMaskRCNN(small_config)


def differ(model, tensors):
    state = model.state_dict()
    return [name for name, value in tensors.items() if not torch.equal(state[name], value)]


def pickled(folder, tensors, protocol=2):
    path = folder / "weights.pkl"
    with open(path, "wb") as file:
        content = {"model": tensors, "__author__": "somebody", "matching_heuristics": True}
        pickle.dump(content, file, protocol=protocol)
    return path


def arrays(model):
    return {name: value.numpy() for name, value in model.state_dict().items()}


def test_round_trip_is_bit_equal(model, fresh, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    report = load_weights(fresh, tmp_path / "a.pth")
    assert set(report.loaded) == set(model.state_dict())
    assert report.missing == report.unknown == report.misshapen == ()
    assert differ(fresh, model.state_dict()) == []
    save_weights(fresh, tmp_path / "b.pth")
    first, second = read_tensors(tmp_path / "a.pth"), read_tensors(tmp_path / "b.pth")
    assert list(first) == list(second)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_file_is_detectron2s_and_safe(model, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert "backbone.bottom_up.res2.0.conv1.norm.weight" in content["model"]
    assert "pixel_mean" not in content["model"]


def test_file_tells_what_it_holds(model, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    assert read_config(tmp_path / "a.pth") == model.config
    opened = open_detector(tmp_path / "a.pth")
    assert not opened.training
    assert differ(opened, model.state_dict()) == []


def test_foreign_file_needs_a_config(model, tmp_path):
    torch.save({"model": model.state_dict()}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="config"):
        open_detector(tmp_path / "a.pth")
    assert differ(open_detector(tmp_path / "a.pth", model.config), model.state_dict()) == []
    with pytest.raises(InputError, match=r"b\.onnx is an export, .*; give the \.pth that it came from"):
        open_detector(tmp_path / "b.onnx")


def test_one_stage_has_detectron2s_names(small_config, tmp_path):
    config = dataclasses.replace(small_config, stage_ious=(0.5,))
    model, other = CascadeMaskRCNN(config), CascadeMaskRCNN(config)
    save_weights(model, tmp_path / "a.pth")
    names = read_tensors(tmp_path / "a.pth")
    assert "roi_heads.box_head.fc1.weight" in names
    assert "roi_heads.box_predictor.cls_score.weight" in names
    load_weights(other, tmp_path / "a.pth")
    assert differ(other, model.state_dict()) == []


@pytest.mark.parametrize("network", ["student", "teacher"])
def test_mean_teacher_files_hold_two_networks(network, model, fresh, tmp_path):
    state = model.state_dict()
    both = {f"modelStudent.{name}": value for name, value in state.items()}
    both |= {f"modelTeacher.{name}": value + 1 for name, value in state.items()}
    torch.save({"model": both, "iteration": 2000, "optimizer": {"state": {}}}, tmp_path / "a.pth")
    load_weights(fresh, tmp_path / "a.pth", network=network)
    expected = {name: value + (network == "teacher") for name, value in state.items()}
    assert differ(fresh, expected) == []


def test_unknown_network(model, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    with pytest.raises(InputError, match="student"):
        load_weights(model, tmp_path / "a.pth", network="pupil")


def test_wrapped_models(model, fresh, tmp_path):
    torch.save(OrderedDict((f"module.{name}", value) for name, value in model.state_dict().items()), tmp_path / "a.pth")
    load_weights(fresh, tmp_path / "a.pth")
    assert differ(fresh, model.state_dict()) == []


@pytest.mark.parametrize("protocol", range(6))
def test_numpy_pickles(protocol, model, fresh, tmp_path):
    report = load_weights(fresh, pickled(tmp_path, arrays(model), protocol))
    assert report.missing == report.unknown == ()
    assert differ(fresh, model.state_dict()) == []


@pytest.mark.parametrize("form", ["torchvision", "detectron2", "detector"])
def test_trunk_alone(form, model, fresh, tmp_path):
    trunk = "backbone.bottom_up."
    before = {name: value.clone() for name, value in fresh.state_dict().items()}
    if form == "torchvision":  # DINO's file
        source = resnet18()
        state = {name: value for name, value in source.state_dict().items() if not name.startswith("fc")}
        torch.save(state, tmp_path / "a.pth")
        path, stem = tmp_path / "a.pth", source.conv1.weight
        block, shortcut = source.layer2[0].bn1.running_var, source.layer2[0].downsample[1].weight
    else:
        prefix = trunk if form == "detector" else ""
        state = {n.replace(trunk, prefix): v for n, v in arrays(model).items() if n.startswith(trunk)}
        path, bottom = pickled(tmp_path, state), model.backbone.bottom_up
        stem, block = bottom.stem.conv1.weight, bottom.res3[0].conv1.norm.running_var
        shortcut = bottom.res3[0].shortcut.norm.weight
    report = load_weights(fresh, path)
    bottom = fresh.backbone.bottom_up
    assert torch.equal(bottom.stem.conv1.weight, stem)
    assert torch.equal(bottom.res3[0].conv1.norm.running_var, block)
    assert torch.equal(bottom.res3[0].shortcut.norm.weight, shortcut)
    assert report.unknown == report.misshapen == ()
    assert set(report.missing) == {name for name in before if not name.startswith(trunk)}
    assert all(torch.equal(before[name], fresh.state_dict()[name]) for name in report.missing)
    with pytest.raises(InputError, match="missing"):
        open_detector(path, fresh.config)


def test_vit_trunk_under_timms_names(small_config, tmp_path):
    vit = timm.create_model("vit_tiny_patch16_224", num_classes=0)
    save_file(vit.state_dict(), tmp_path / "vit.safetensors")
    model = CascadeMaskRCNN(dataclasses.replace(small_config, backbone="vit_tiny_patch16_224"))
    load_weights(model, tmp_path / "vit.safetensors")
    assert torch.equal(model.backbone.bottom_up.net.pos_embed, vit.pos_embed)


FAULTS = {
    "missing": lambda state: state.pop("roi_heads.mask_head.deconv.bias"),
    "unknown": lambda state: state.update({"roi_heads.extra.weight": torch.zeros(1)}),
    "misshapen": lambda state: state.update({"roi_heads.mask_head.deconv.bias": torch.zeros(3)}),
}


@pytest.mark.parametrize("fault", list(FAULTS))
def test_what_does_not_fit_is_listed_and_refused_unless_allowed(fault, model, fresh, tmp_path):
    state = dict(model.state_dict())
    FAULTS[fault](state)
    torch.save({"model": state}, tmp_path / "a.pth")
    before = fresh.roi_heads.mask_head.predictor.weight.clone()
    name = "roi_heads.extra.weight" if fault == "unknown" else "roi_heads.mask_head.deconv.bias"
    with pytest.raises(InputError, match=name):
        load_weights(fresh, tmp_path / "a.pth")
    assert torch.equal(fresh.roi_heads.mask_head.predictor.weight, before)  # nothing was changed
    report = load_weights(fresh, tmp_path / "a.pth", allow=[fault])
    (listed,) = getattr(report, fault)
    assert listed.startswith(name)
    assert f"1 {fault}" in str(report)


def test_counters_may_be_missing(model, fresh, tmp_path):
    state = {name: value for name, value in model.state_dict().items() if "num_batches" not in name}
    torch.save({"model": state}, tmp_path / "a.pth")
    report = load_weights(fresh, tmp_path / "a.pth")
    assert report.missing
    assert all(name.endswith("num_batches_tracked") for name in report.missing)


def test_classifier_of_a_trunk_is_not_dropped_silently(fresh, tmp_path):
    torch.save(resnet18().state_dict(), tmp_path / "a.pth")
    with pytest.raises(InputError, match=r"fc\.weight"):
        load_weights(fresh, tmp_path / "a.pth")
    assert load_weights(fresh, tmp_path / "a.pth", allow=["unknown"]).unknown == ("fc.weight", "fc.bias")


def test_checkpoint_of_another_config(model, small_config, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    with pytest.raises(InputError, match="does not fit"):
        load_weights(CascadeMaskRCNN(dataclasses.replace(small_config, fpn_channels=8)), tmp_path / "a.pth")


def test_settings_that_a_file_names_and_there_are_not_must_be_what_is_built(model, tmp_path):
    path = tmp_path / "a.pth"
    save_weights(model, path)
    content = torch.load(path, weights_only=True)
    old = {"stride_in_1x1": False, "rpn_ious": (0.3, 0.7), "mask_pool": 14, "mask_iou_head": False}
    for name, value in (old | {"stride_in_1x1": True}).items():
        torch.save({**content, "detector_config": content["detector_config"] | old | {name: value}}, path)
        if value == old[name]:
            assert read_config(path) == model.config
        else:
            with pytest.raises(InputError, match=r"a\.pth holds a detector with stride_in_1x1 True, which cannot be"):
                read_config(path)


def test_constants_of_older_files_must_agree(model, fresh, tmp_path):
    state = dict(model.state_dict())
    state["pixel_mean"], state["pixel_std"] = model.pixel_mean, model.pixel_std
    for i in range(5):
        state[f"proposal_generator.anchor_generator.cell_anchors.{i}"] = model.proposal_generator.get_buffer(
            f"cells{i}"
        )
    torch.save({"model": state}, tmp_path / "a.pth")
    assert load_weights(fresh, tmp_path / "a.pth").unknown == ()
    state["pixel_mean"] = torch.tensor([103.53, 116.28, 123.675]).view(3, 1, 1)  # BGR
    torch.save({"model": state}, tmp_path / "a.pth")
    with pytest.raises(InputError, match="pixel_mean"):
        load_weights(fresh, tmp_path / "a.pth")


class Evil:
    def __reduce__(self):
        return open, ("/tmp/should_not_exist", "w")


@pytest.mark.parametrize("suffix", [".pkl", ".pth"])
def test_code_in_a_file_is_refused(suffix, tmp_path):
    path = tmp_path / f"evil{suffix}"
    if suffix == ".pkl":
        path.write_bytes(pickle.dumps({"model": {"a": Evil()}}))
    else:
        torch.save({"model": {"a": Evil()}}, path)
    with pytest.raises(InputError, match="open"):
        read_tensors(path)


@pytest.mark.parametrize("value", [np.array([{}], dtype=object), "text", None])
def test_what_is_no_tensor_is_refused(value, tmp_path):
    with pytest.raises(InputError, match="no tensor"):
        read_tensors(pickled(tmp_path, {"a": value}))


@pytest.mark.parametrize("name", ["a.pth", "a.pkl", "a.safetensors"])
@pytest.mark.parametrize("content", [b"", b"no checkpoint", b"\x80\x04\x95"])
def test_damaged_files_are_named(name, content, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=name):
        read_tensors(tmp_path / name)


def test_truncated_file_is_named(model, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    whole = (tmp_path / "a.pth").read_bytes()
    (tmp_path / "a.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"a\.pth"):
        read_tensors(tmp_path / "a.pth")


def test_absent_file_is_named(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        read_tensors(tmp_path / "a.pth")


def test_equal_weights_give_equal_files(model, tmp_path):
    save_weights(model, tmp_path / "a.pth")
    save_weights(model, tmp_path / "b.pth")
    assert (tmp_path / "a.pth").read_bytes() == (tmp_path / "b.pth").read_bytes()
