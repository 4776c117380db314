"""The detector as one graph without a tensor of data-dependent shape, for export to ONNX and TensorRT.

`CascadeMaskRCNN` is the oracle: same weights, same answers. What differs is only how they are computed:

* non-maximum suppression is a fixed number of fixpoint steps on the IoU matrix, with a flag that says whether they
  sufficed;
* RoIAlign runs once for all pyramid levels, on an atlas that holds them side by side;
* the mask head's transposed convolution becomes a 1x1 convolution, and sub-pixels are interleaved last, on one channel.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d, roi_align

from hassod_ros.detection.boxes import clip_boxes, decode_boxes
from hassod_ros.detection.cascade.anchors import grid_anchors
from hassod_ros.detection.cascade.fpn import SIZE_DIVISOR, STRIDES
from hassod_ros.detection.cascade.layers import Conv
from hassod_ros.detection.cascade.mask_head import MaskHead
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.roi_heads import OBJECT
from hassod_ros.detection.cascade.rpn import RPN_BOX_WEIGHTS
from hassod_ros.errors import InputError
from hassod_ros.instances import Level

OUTPUTS = ("boxes", "scores", "level_probabilities", "masks", "count", "converged", "features")
NMS_STEPS = 12  # real sets of boxes needed at most 7; a chain of n boxes, each overlapping the next, needs n - 1
_NONE = -1e30  # score of what does not count; finite, because inf - inf is not a number
_LEVEL_SIDES = (0.5, 1.0, 2.0)  # side, in canonical boxes, from which a box moves on to p3, p4, p5
_NORMS = (nn.BatchNorm2d, nn.SyncBatchNorm, FrozenBatchNorm2d)
_GUTTER = 1  # replicated cells around each level: samples lie at most half a cell outside


def with_limits(model: CascadeMaskRCNN, *, proposals: int, detections: int) -> CascadeMaskRCNN:
    """A copy with the same weights that pools fewer regions: cut detections first, then proposals.

    Args:
        model: The detector.
        proposals: K, regions that go through the stages; as many anchors of each level enter suppression, whose
            work grows with their square (twice as many gained no recall, measured with the default model).
        detections: D, most detections of an image; their masks cost most.

    Raises:
        InputError: More detections than proposals are wanted.

    """
    if not 1 <= detections <= proposals:
        raise InputError(f"{detections} detections cannot come from {proposals} proposals; lower the former")
    config = model.config
    pre_nms = min(config.rpn_pre_nms[1], proposals)
    limited = CascadeMaskRCNN(
        dataclasses.replace(
            config,
            rpn_pre_nms=(config.rpn_pre_nms[0], pre_nms),
            rpn_post_nms=(config.rpn_post_nms[0], proposals),
            detections=detections,
        )
    )
    limited.load_state_dict(model.state_dict())
    return limited.eval()


class StaticDetector(nn.Module):
    """A copy of a detector for one batch and input size.

    Args:
        model: Trained detector; it is not changed. Its config says how many proposals and detections there are, see
            `with_limits`.
        batch: Images per call.
        input_size: (H, W) in pixels, multiples of 32.
        nms_steps: Steps of each suppression.
        half: Run convolutions and fully connected layers in float16. Pixels, RoIAlign, decoding, TopK and suppression
            stay in float32.

    Raises:
        InputError: The input size is not a multiple of 32.

    """

    outputs = OUTPUTS
    pixel_mean: Tensor
    pixel_std: Tensor
    limits: Tensor
    strides: Tensor
    origins: Tensor

    def __init__(
        self,
        model: CascadeMaskRCNN,
        *,
        batch: int = 1,
        input_size: tuple[int, int],
        nms_steps: int = NMS_STEPS,
        half: bool = False,
    ) -> None:
        super().__init__()
        config = model.config
        self.batch, self.input_size, self.nms_steps = batch, input_size, nms_steps
        self.proposals, self.pre_nms = config.rpn_post_nms[1], config.rpn_pre_nms[1]
        self.detections = min(config.detections, self.proposals)
        if any(side < SIZE_DIVISOR or side % SIZE_DIVISOR for side in input_size):
            raise InputError(f"an input size of {input_size} cannot be exported; give multiples of {SIZE_DIVISOR}")
        self.config = config
        model = copy.deepcopy(model).float().eval().requires_grad_(False)
        fold_norms(model)
        self.mask_head: nn.Module = SubpixelMaskHead(model.roi_heads.mask_head)
        self.box_head, self.box_predictor = model.roi_heads.box_head, model.roi_heads.box_predictor
        self.backbone, self.rpn_head = model.backbone, model.proposal_generator.rpn_head
        self.dtype = torch.float16 if half else torch.float32
        if half:
            self.half()
        for name in ("pixel_mean", "pixel_std"):
            self.register_buffer(name, getattr(model, name).float())

        shapes = [_level_shape(input_size, stride) for stride in STRIDES]
        cells = [getattr(model.proposal_generator, f"cells{i}").float() for i in range(len(STRIDES))]
        anchors = [grid_anchors(*args) for args in zip(shapes, STRIDES, cells, strict=True)]
        self.anchor_counts = [len(each) for each in anchors]
        for i, each in enumerate(anchors):
            self.register_buffer(f"anchors{i}", each)
        height, width = input_size
        self.register_buffer("limits", torch.tensor([width, height, width, height], dtype=torch.float32))
        self.register_buffer("strides", torch.tensor(STRIDES[:4], dtype=torch.float32))
        self.register_buffer("origins", torch.tensor(_atlas_origins(shapes), dtype=torch.float32))

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Detections of uint8 RGB images (B, H, W, 3).

        Returns:
            `OUTPUTS`: boxes (B, D, 4) in input pixels, scores (B, D) descending, level probabilities (B, D, 3), mask
            probabilities (B, D, 28, 28), all float32; valid rows (B,) int32; suppression converged (B,) bool; the
            finest pyramid level (B, C, H / 4, W / 4) float32. Rows beyond the valid ones have score 0.

        """
        pixels = images.float().permute(0, 3, 1, 2)  # cast first: TensorRT takes uint8 as an input only
        pyramid = self.backbone(((pixels - self.pixel_mean) / self.pixel_std).to(self.dtype))
        boxes, valid, converged = self._propose(pyramid)
        atlas = _pack(pyramid[:4])
        boxes, scores, levels = self._run_stages(atlas, boxes)
        scores = torch.where(valid & (scores > self.config.score_threshold), scores, _NONE)

        scores, order = scores.topk(self.proposals, dim=1)
        boxes, levels = _take(boxes, order), _take(levels, order)
        keep, settled = suppress(boxes, scores > _NONE, self.config.nms, self.nms_steps)
        scores, order = torch.where(keep, scores, _NONE).topk(self.detections, dim=1)
        boxes, levels = _take(boxes, order), _take(levels, order)

        pooled = self._pool(atlas, boxes, self.config.mask_pool, self.config.mask_scale)
        logits = self.mask_head(pooled)  # (B D, S, S)
        masks = logits.float().sigmoid().unflatten(0, (self.batch, self.detections))
        valid = scores > _NONE
        count = valid.sum(dim=1, dtype=torch.int32)
        found = boxes, torch.where(valid, scores, 0.0), levels, masks, count, converged & settled
        return *found, pyramid[0].float()

    def _propose(self, pyramid: Sequence[Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, K, 4), which of them count (B, K), and whether suppression converged (B,).

        The best anchors of all levels are padded to one number, so that suppression, which is within a level, runs on
        one (B, 5, P, P) matrix.
        """
        most = min(self.pre_nms, max(self.anchor_counts))
        boxes, logits = [], []
        for i, level in enumerate(pyramid):
            objectness, delta = self.rpn_head(level)
            objectness = objectness.permute(0, 2, 3, 1).flatten(1).float()  # (B, A)
            delta = delta.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
            count = min(most, self.anchor_counts[i])
            best, index = objectness.topk(count, dim=1)
            box = decode_boxes(getattr(self, f"anchors{i}")[index], _take(delta, index), RPN_BOX_WEIGHTS)
            boxes.append(F.pad(clip_boxes(box, self.limits), (0, 0, 0, most - count)))
            logits.append(F.pad(best, (0, most - count), value=_NONE))
        box, logit = torch.stack(boxes, 1), torch.stack(logits, 1)  # (B, 5, P, 4), (B, 5, P)
        valid = (logit > _NONE) & (box[..., 2] > box[..., 0]) & (box[..., 3] > box[..., 1])
        keep, settled = suppress(box, valid, self.config.rpn_nms, self.nms_steps)
        logit, box = torch.where(keep, logit, _NONE).flatten(1), box.flatten(1, 2)
        wanted = min(self.proposals, logit.shape[1])
        logit, index = logit.topk(wanted, dim=1)
        missing = self.proposals - wanted  # a small input has fewer anchors than proposals are wanted
        box, logit = F.pad(_take(box, index), (0, 0, 0, missing)), F.pad(logit, (0, missing), value=_NONE)
        return box, logit > _NONE, settled.all(dim=1)

    def _run_stages(self, atlas: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (B, K, 4), scores (B, K), level probabilities (B, K, 3) after all stages."""
        scores, levels = [], []
        for head, predictor, weights in zip(
            self.box_head, self.box_predictor, self.config.stage_box_weights, strict=False
        ):
            found = predictor(head(self._pool(atlas, boxes, self.config.box_pool, self.config.canonical_box)))
            deltas = found.deltas.unflatten(0, (self.batch, self.proposals))
            boxes = clip_boxes(decode_boxes(boxes, deltas, weights), self.limits)
            scores.append(found.class_logits.float().softmax(1)[:, OBJECT])
            if found.level_logits is None:  # a detector without level heads finds wholes only
                levels.append(torch.eye(len(Level))[:1].expand(self.batch * self.proposals, -1))
            else:
                levels.append(found.level_logits.float().softmax(1))
        score = torch.stack(scores).mean(0).unflatten(0, (self.batch, self.proposals))
        return boxes, score, torch.stack(levels).mean(0).unflatten(0, (self.batch, self.proposals))

    def _pool(self, atlas: Tensor, boxes: Tensor, side: int, canonical: float) -> Tensor:
        """RoIAlign of (B, N, 4) boxes, each in its level's part of the atlas: (B N, C, side, side)."""
        size = boxes[..., 2:] - boxes[..., :2]
        area = size[..., 0] * size[..., 1]
        level = sum((area >= (each * canonical) ** 2).long() for each in _LEVEL_SIDES)  # (B, N)
        origin = self.origins[level]  # (B, N, 2)
        boxes = boxes / self.strides[level][..., None] + torch.cat([origin, origin], dim=-1)
        image = torch.arange(self.batch, dtype=torch.float32).repeat_interleave(boxes.shape[1])
        rois = torch.cat([image[:, None], boxes.flatten(0, 1)], dim=1)
        return roi_align(atlas, rois, side, 1.0, self.config.sampling_ratio, aligned=True).to(self.dtype)


class SubpixelMaskHead(nn.Module):
    """A mask head whose transposed 2x2 convolution is a 1x1 convolution to four groups of channels.

    A 1x1 predictor commutes with interleaving the sub-pixels, so it runs first, and only its one channel is
    interleaved. It is a dense convolution with a group's weights in each row and zeros elsewhere: a grouped one would
    make ONNX Runtime copy its large input into another memory layout.
    """

    def __init__(self, head: MaskHead) -> None:
        super().__init__()
        self.convs = nn.ModuleList(getattr(head, f"mask_fcn{i + 1}") for i in range(head.layers))
        inputs, outputs = head.deconv.weight.shape[:2]
        self.expand = nn.Conv2d(inputs, 4 * outputs, 1)
        self.predictor = nn.Conv2d(4 * outputs, 4, 1)
        # (inputs, outputs, dy, dx) -> channel (dy, dx, output)
        weight = head.deconv.weight.permute(2, 3, 1, 0).reshape(4 * outputs, inputs, 1, 1)
        self.expand.load_state_dict({"weight": weight, "bias": _bias(head.deconv).repeat(4)})
        weight = torch.block_diag(*[head.predictor.weight.reshape(1, outputs)] * 4)[..., None, None]
        self.predictor.load_state_dict({"weight": weight, "bias": _bias(head.predictor).expand(4)})
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        """(M, C, S, S) -> (M, 2 S, 2 S) logits."""
        for conv in self.convs:
            x = F.relu(conv(x))
        return F.pixel_shuffle(self.predictor(F.relu(self.expand(x))), 2)[:, 0]


def suppress(boxes: Tensor, valid: Tensor, threshold: float, steps: int) -> tuple[Tensor, Tensor]:
    """Non-maximum suppression of sorted boxes in a fixed number of steps.

    A box stays if no staying box before it overlaps it by more than `threshold`. Starting from "all stay", each step
    applies this rule to all boxes at once; after i steps the first i links of every chain of overlaps are right.

    Args:
        boxes: (..., N, 4) xyxy, best first.
        valid: (..., N) bool; the others neither stay nor suppress.
        threshold: IoU.
        steps: How often the rule is applied.

    Returns:
        Which boxes stay (..., N) bool, and whether the last step changed nothing (...) bool: then the result is that of
        greedy suppression.

    """
    x0, y0, x1, y1 = boxes.unbind(-1)  # each alone: ONNX Runtime is slow where the last axis is a pair
    area = (x1 - x0) * (y1 - y0)
    width = torch.minimum(x1[..., :, None], x1[..., None, :]) - torch.maximum(x0[..., :, None], x0[..., None, :])
    height = torch.minimum(y1[..., :, None], y1[..., None, :]) - torch.maximum(y0[..., :, None], y0[..., None, :])
    intersection = width.clamp(min=0) * height.clamp(min=0)
    union = area[..., :, None] + area[..., None, :] - intersection
    # Row i, column j: box j < i suppresses box i. Written without a division: the union may be 0.
    earlier = torch.ones(boxes.shape[-2], boxes.shape[-2]).tril(-1)
    beats = (intersection > threshold * union).float() * earlier  # (..., N, N)
    before = keep = valid.float()[..., None]
    for _ in range(steps):
        before, keep = keep, valid.float()[..., None] * (beats @ keep < 0.5).float()
    return keep[..., 0] > 0.5, ((keep - before).abs().amax(dim=(-2, -1))) < 0.5


@torch.no_grad()
def fold_norms(model: nn.Module) -> None:
    """Work every batch normalisation into the convolution before it, in place."""
    for module in model.modules():
        if isinstance(module, Conv) and module.norm is not None:
            _fold(module, module.norm)
            module.norm = None
        elif isinstance(module, nn.Sequential):
            for i, (conv, norm) in enumerate(itertools.pairwise(list(module))):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, _NORMS):
                    _fold(conv, norm)
                    module[i + 1] = nn.Identity()


def _fold(conv: nn.Conv2d, norm: Any) -> None:
    scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
    bias = norm.bias + (_bias(conv) - norm.running_mean) * scale
    conv.weight.copy_(conv.weight * scale[:, None, None, None])
    conv.bias = nn.Parameter(bias, requires_grad=False)


def _bias(layer: nn.Conv2d | nn.ConvTranspose2d) -> Tensor:
    return layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias


def _take(values: Tensor, index: Tensor) -> Tensor:
    """Rows `index` (B, M) of values (B, N, ...)."""
    tail = values.shape[2:]
    index = index.reshape(*index.shape, *[1] * len(tail)).expand(-1, -1, *tail)
    return torch.gather(values, 1, index)


def _level_shape(input_size: tuple[int, int], stride: int) -> tuple[int, int]:
    """(rows, columns) of a pyramid level; p6 takes every second cell of p5, the first one included."""
    return -(-input_size[0] // stride), -(-input_size[1] // stride)


def _atlas_origins(shapes: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """(x, y) of the first cell of p2 ... p5 in the atlas of `_pack`."""
    below = shapes[0][0] + 2 * _GUTTER
    origins, x = [(_GUTTER, _GUTTER)], 0
    for _, columns in shapes[1:4]:
        origins.append((x + _GUTTER, below + _GUTTER))
        x += columns + 2 * _GUTTER
    return origins


def _pack(maps: Sequence[Tensor]) -> Tensor:
    """p2 ... p5 in one float32 map: p2 above, the others side by side below it, each with its replicated border."""
    first, *others = (F.pad(each.float(), [_GUTTER] * 4, mode="replicate") for each in maps)
    height = others[0].shape[2]
    below = torch.cat([F.pad(each, (0, 0, 0, height - each.shape[2])) for each in others], dim=3)
    width = max(first.shape[3], below.shape[3])
    parts = [F.pad(each, (0, width - each.shape[3])) for each in (first, below)]
    return torch.cat(parts, dim=2)
