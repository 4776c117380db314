"""Where detectron2 is installed: same weights, same images, same detections and losses."""

import dataclasses

import pytest
import torch

from hassod_ros.detection.base import Targets
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.checkpoints import load_weights, save_weights

pytest.importorskip("detectron2", reason="detectron2 is not installed; it cannot be compared with")

CONFIG = DetectorConfig(
    backbone="resnet18", fpn_channels=32, box_width=64, mask_channels=32, mask_layers=2, level_head=False, detections=50
)
SIZES = [(96, 128), (90, 110)]


def detectron2_model(config: DetectorConfig) -> torch.nn.Module:
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    cfg = get_cfg()
    cfg.merge_from_list(
        [
            *("MODEL.DEVICE", "cpu", "MODEL.MASK_ON", True, "MODEL.BACKBONE.NAME", "build_resnet_fpn_backbone"),
            *("MODEL.BACKBONE.FREEZE_AT", 0, "MODEL.RESNETS.DEPTH", 18, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64),
            *("MODEL.RESNETS.NORM", "BN", "MODEL.RESNETS.STRIDE_IN_1X1", False),
            *("MODEL.RESNETS.OUT_FEATURES", ["res2", "res3", "res4", "res5"]),
            *("MODEL.FPN.IN_FEATURES", ["res2", "res3", "res4", "res5"], "MODEL.FPN.NORM", "BN"),
            *("MODEL.FPN.OUT_CHANNELS", config.fpn_channels),
            *("MODEL.ANCHOR_GENERATOR.SIZES", [[32], [64], [128], [256], [512]]),
            *("MODEL.RPN.IN_FEATURES", ["p2", "p3", "p4", "p5", "p6"], "MODEL.RPN.NMS_THRESH", config.rpn_nms),
            *("MODEL.RPN.PRE_NMS_TOPK_TRAIN", config.rpn_pre_nms[0], "MODEL.RPN.PRE_NMS_TOPK_TEST", 1000),
            *("MODEL.RPN.POST_NMS_TOPK_TRAIN", config.rpn_post_nms[0], "MODEL.RPN.POST_NMS_TOPK_TEST", 1000),
            *("MODEL.ROI_HEADS.NAME", "CascadeROIHeads" if len(config.stage_ious) > 1 else "StandardROIHeads"),
            *("MODEL.ROI_HEADS.NUM_CLASSES", 1, "MODEL.ROI_HEADS.IN_FEATURES", ["p2", "p3", "p4", "p5"]),
            *("MODEL.ROI_HEADS.POSITIVE_FRACTION", config.box_positive, "MODEL.ROI_HEADS.SCORE_THRESH_TEST", 0.0),
            *("MODEL.ROI_BOX_HEAD.NAME", "FastRCNNConvFCHead", "MODEL.ROI_BOX_HEAD.NUM_FC", config.box_layers),
            *("MODEL.ROI_BOX_HEAD.FC_DIM", config.box_width, "MODEL.ROI_BOX_HEAD.CLS_AGNOSTIC_BBOX_REG", True),
            *("MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION", config.box_pool),
            *("MODEL.ROI_MASK_HEAD.NAME", "MaskRCNNConvUpsampleHead"),
            *("MODEL.ROI_MASK_HEAD.NUM_CONV", config.mask_layers, "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION", 14),
            *("MODEL.ROI_MASK_HEAD.CONV_DIM", config.mask_channels),
            *("MODEL.PIXEL_MEAN", list(config.pixel_mean), "MODEL.PIXEL_STD", list(config.pixel_std)),
            *("TEST.DETECTIONS_PER_IMAGE", config.detections),
        ]
    )
    return build_model(cfg)


def models(config: DetectorConfig, folder):
    """Ours and theirs with the same, lively weights, which pass through a file."""
    from detectron2.checkpoint import DetectionCheckpointer

    torch.manual_seed(0)
    ours = CascadeMaskRCNN(config)
    with torch.no_grad():
        for name, value in ours.named_parameters():
            if any(part in name for part in ("objectness_logits", "cls_score", "bbox_pred", "predictor")):
                value.normal_(std=0.1)
    save_weights(ours, folder / "ours.pth")
    theirs = detectron2_model(config)
    left = DetectionCheckpointer(theirs).load(str(folder / "ours.pth"))
    assert "model" not in left
    return ours, theirs


def batch():
    images = torch.rand(2, 3, 96, 128) * 255
    images[1, :, 90:] = 0
    images[1, :, :, 110:] = 0
    masks = torch.zeros(3, 96, 128, dtype=torch.bool)
    masks[0, 10:60, 20:90] = True
    masks[1, 30:50, 30:60] = True
    masks[2, 40:80, 60:100] = True
    boxes = torch.tensor([[20, 10, 90, 60], [30, 30, 60, 50], [60, 40, 100, 80]], dtype=torch.float32)
    levels = torch.tensor([0, 1, 0])
    return images, [Targets(boxes, levels, masks), Targets(boxes[2:], levels[2:], masks[2:])]


@pytest.mark.parametrize("stage_ious", [(0.5, 0.6, 0.7), (0.5,)])
def test_losses_equal_detectron2s(stage_ious, tmp_path):
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    ours, theirs = models(dataclasses.replace(CONFIG, stage_ious=stage_ious), tmp_path)
    images, targets = batch()
    inputs = []
    for image, (height, width), target in zip(images, SIZES, targets, strict=True):
        instances = Instances((height, width))
        instances.gt_boxes = Boxes(target.boxes)
        instances.gt_classes = torch.zeros(len(target.boxes), dtype=torch.int64)
        instances.gt_masks = BitMasks(target.masks[:, :height, :width])
        inputs.append({"image": image[:, :height, :width], "instances": instances})

    torch.manual_seed(7)
    with EventStorage():
        expected = theirs.train()(inputs)
    sum(expected.values()).backward()
    torch.manual_seed(7)
    found = ours.train().losses(images, SIZES, targets)
    sum(found.values()).backward()

    if len(stage_ious) == 1:
        expected = {f"{k}_stage0" if k in ("loss_cls", "loss_box_reg") else k: v for k, v in expected.items()}
    assert found.keys() == expected.keys()
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-6, msg=name)
    gradients = {_one_stage(name): parameter.grad for name, parameter in theirs.named_parameters()}
    for name, parameter in ours.named_parameters():
        other = gradients[_one_stage(name)]
        tolerance = 1e-4 * float(other.abs().max()) + 1e-9
        torch.testing.assert_close(parameter.grad, other, rtol=1e-2, atol=tolerance, msg=name)


def _one_stage(name: str) -> str:
    """A name that both have: theirs has no number for a single stage."""
    return name.replace("box_head.0", "box_head").replace("box_predictor.0", "box_predictor")


@pytest.mark.parametrize("stage_ious", [(0.5, 0.6, 0.7), (0.5,)])
def test_detections_equal_detectron2s(stage_ious, tmp_path):
    ours, theirs = models(dataclasses.replace(CONFIG, stage_ious=stage_ious), tmp_path)
    images, _ = batch()
    with torch.inference_mode():
        found = ours.eval()(images, SIZES)
        inputs = [{"image": image[:, :h, :w]} for image, (h, w) in zip(images, SIZES, strict=True)]
        expected = theirs.eval().inference(inputs, do_postprocess=False)
    for mine, other in zip(found, expected, strict=True):
        assert len(mine) == len(other) == 50
        torch.testing.assert_close(mine.boxes, other.pred_boxes.tensor, rtol=1e-4, atol=1e-3)
        torch.testing.assert_close(mine.scores, other.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(mine.mask_probabilities, other.pred_masks[:, 0], rtol=1e-3, atol=1e-4)


def test_detectron2s_file_loads(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    _, theirs = models(CONFIG, tmp_path)
    DetectionCheckpointer(theirs, str(tmp_path)).save("theirs", iteration=12)
    ours = CascadeMaskRCNN(CONFIG)
    report = load_weights(ours, tmp_path / "theirs.pth")
    assert report.missing == report.unknown == report.misshapen == ()
    for name, value in theirs.state_dict().items():
        assert torch.equal(ours.state_dict()[name], value), name
