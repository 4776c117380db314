import dataclasses

import pytest
import torch

from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.errors import InputError


def run(model, images, sizes=None):
    with torch.inference_mode():
        return model(images, sizes)


def assert_same(mine, other, tolerance=1e-4):
    assert len(mine) == len(other) > 0
    for name in ("boxes", "scores", "level_probabilities", "mask_probabilities"):
        torch.testing.assert_close(getattr(mine, name), getattr(other, name), rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v3_large", "vit_tiny_patch16_224"])
def test_every_backbone_detects(backbone, small_config, build):
    model = build(dataclasses.replace(small_config, backbone=backbone, fpn_norm="none"))
    pyramid = model.pyramid(torch.rand(1, 3, 64, 96) * 255, [(64, 96)])
    assert [tuple(level.shape) for level in pyramid] == [
        (1, 16, 16, 24), (1, 16, 8, 12), (1, 16, 4, 6), (1, 16, 2, 3), (1, 16, 1, 2)
    ]  # fmt: skip
    (found,) = run(model, torch.rand(1, 3, 64, 96) * 255)
    assert found.mask_probabilities.shape == (len(found), 28, 28)
    assert found.size == (64, 96)


@pytest.mark.parametrize(
    ("backbone", "named"), [("resnet51", "resnet51"), ("vit_tiny_patch14", "vit_tiny_patch14"), ("vgg11", "vgg11")]
)
def test_unknown_backbones_are_refused(backbone, named, small_config):
    with pytest.raises(InputError, match=named):
        CascadeMaskRCNN(dataclasses.replace(small_config, backbone=backbone))


def test_odd_patches_are_refused(small_config):
    with pytest.raises(InputError, match="14 pixels"):
        CascadeMaskRCNN(dataclasses.replace(small_config, backbone="vit_small_patch14_dinov2"))


def test_one_stage_is_mask_rcnn(small_config, build):
    model = build(dataclasses.replace(small_config, stage_ious=(0.5,)))
    assert len(model.roi_heads.box_head) == 1
    assert len(run(model, torch.rand(1, 3, 64, 96) * 255)[0]) > 0


def test_without_level_heads_no_levels(small_config, build):
    model = build(dataclasses.replace(small_config, level_head=False))
    (found,) = run(model, torch.rand(1, 3, 64, 96) * 255)
    assert found.level_probabilities.shape == (len(found), 0)


def test_an_image_is_the_same_alone_and_padded_in_a_batch(small_config, build):
    torch.manual_seed(1)
    model = build(small_config)
    small, large = torch.rand(3, 64, 90) * 255, torch.rand(3, 96, 128) * 255
    batch = torch.full((2, 3, 96, 128), 77.0)  # padding of any value
    batch[0, :, :64, :90], batch[1] = small, large
    together = run(model, batch, [(64, 90), (96, 128)])
    assert_same(together[1], run(model, large[None])[0])
    alone = torch.zeros(1, 3, 96, 128)
    alone[0, :, :64, :90] = small
    assert_same(together[0], run(model, alone, [(64, 90)])[0])


def test_integer_images_are_welcome(small_config, build):
    model = build(small_config)
    images = (torch.rand(1, 3, 64, 96) * 255).to(torch.uint8)
    assert_same(run(model, images)[0], run(model, images.float())[0])


def test_normalize_leaves_its_input_alone(small_config, build):
    images = torch.full((1, 3, 40, 50), 9.0)
    x = build(small_config).normalize(images, [(30, 20)])
    assert x.shape == (1, 3, 64, 64)
    assert (x[:, :, :30, :20] != 0).all()
    assert x.count_nonzero() == 3 * 30 * 20
    assert (images == 9).all()


def test_bottlenecks_stride_in_their_second_convolution(small_config):
    with torch.device("meta"):
        block = CascadeMaskRCNN(dataclasses.replace(small_config, backbone="resnet50")).backbone.bottom_up.res3[0]
    assert (block.conv1.stride[0], block.conv2.stride[0]) == (1, 2)


def test_frozen_norm_has_no_parameters_to_train(small_config):
    model = CascadeMaskRCNN(dataclasses.replace(small_config, backbone_norm="frozen"))
    names = [name for name, _ in model.backbone.bottom_up.named_parameters()]
    assert not any("norm" in name for name in names)
    assert "stem.conv1.norm.running_mean" in model.backbone.bottom_up.state_dict()


def test_same_seed_same_weights(small_config):
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(CascadeMaskRCNN(small_config).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_autocast_to_bfloat16_stays_close(small_config, build):
    model, images = build(small_config), torch.rand(1, 3, 64, 96) * 255
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        (found,) = model(images)
    assert found.boxes.dtype == found.scores.dtype == found.mask_probabilities.dtype == torch.float32
    (exact,) = run(model, images)
    torch.testing.assert_close(found.scores[:3], exact.scores[:3], rtol=0.1, atol=0.05)


@pytest.mark.parametrize("part", ["proposal_generator.rpn_head.conv.weight", "roi_heads.box_head.1.fc1.weight"])
def test_a_diverged_network_finds_nothing(part, small_config, build):
    model = build(small_config)
    model.get_parameter(part).data.fill_(float("nan"))
    assert len(run(model, torch.rand(1, 3, 64, 96) * 255)[0]) == 0


def test_synchronised_norm_works_in_one_process(small_config):
    model = CascadeMaskRCNN(dataclasses.replace(small_config, backbone_norm="sync", fpn_norm="sync")).train()
    assert isinstance(model.backbone.bottom_up.stem.conv1.norm, torch.nn.SyncBatchNorm)
    assert len(model.pyramid(torch.rand(2, 3, 64, 96) * 255, [(64, 96)] * 2)) == 5


def test_a_teacher_may_run_in_training_mode(small_config, build):
    model = build(small_config).train()
    before = model.backbone.fpn_lateral2.norm.running_mean.clone()
    with torch.no_grad():
        found = model(torch.rand(2, 3, 64, 96) * 255)
    assert [each.size for each in found] == [(64, 96)] * 2
    assert not torch.equal(model.backbone.fpn_lateral2.norm.running_mean, before)
