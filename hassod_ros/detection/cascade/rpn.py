"""Region proposal network (Ren et al., "Faster R-CNN"), on a feature pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.ops import batched_nms

from hassod_ros.detection.boxes import box_limits, clip_boxes, decode_boxes, has_area
from hassod_ros.detection.cascade.anchors import cell_anchors, grid_anchors
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.fpn import STRIDES
from hassod_ros.detection.cascade.layers import Conv, init_normal

RPN_BOX_WEIGHTS = (1.0, 1.0, 1.0, 1.0)


@dataclass(frozen=True, eq=False)
class AnchorPredictions:
    """What the network says about all anchors of B images of one padded size.

    Attributes:
        anchors: (A, 4) float32, levels p2 ... p6 one after the other.
        logits: (B, A) objectness.
        deltas: (B, A, 4) from anchor to object, see `decode_boxes`.
        counts: Anchors of each level.

    """

    anchors: Tensor
    logits: Tensor
    deltas: Tensor
    counts: tuple[int, ...]


class RpnHead(nn.Module):
    """One 3x3 convolution, then objectness and box of each anchor; shared by all levels."""

    def __init__(self, channels: int, anchors: int) -> None:
        super().__init__()
        self.conv = Conv(channels, channels, 3)
        self.objectness_logits = Conv(channels, anchors, 1)
        self.anchor_deltas = Conv(channels, anchors * 4, 1)
        for layer in (self.conv, self.objectness_logits, self.anchor_deltas):
            init_normal(layer, 0.01)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """(B, C, H, W) -> logits (B, A, H, W), deltas (B, 4 A, H, W)."""
        x = F.relu_(self.conv(x))
        return self.objectness_logits(x), self.anchor_deltas(x)


class Rpn(nn.Module):
    """Anchors and their predictions; `propose` turns these into proposals."""

    def __init__(self, config: DetectorConfig) -> None:
        super().__init__()
        self.config = config
        self.rpn_head = RpnHead(config.fpn_channels, len(config.anchor_ratios))
        for i, size in enumerate(config.anchor_sizes):
            self.register_buffer(f"cells{i}", cell_anchors(size, config.anchor_ratios), persistent=False)

    def forward(self, pyramid: Sequence[Tensor]) -> AnchorPredictions:
        """p2 ... p6 -> predictions in the order of the anchors."""
        anchors, logits, deltas = [], [], []
        for i, (level, stride) in enumerate(zip(pyramid, STRIDES, strict=True)):
            anchors.append(grid_anchors((level.shape[2], level.shape[3]), stride, getattr(self, f"cells{i}")))
            objectness, delta = self.rpn_head(level)
            logits.append(objectness.permute(0, 2, 3, 1).flatten(1))
            deltas.append(delta.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3))
        counts = tuple(len(each) for each in anchors)
        return AnchorPredictions(torch.cat(anchors), torch.cat(logits, 1), torch.cat(deltas, 1), counts)

    def propose(self, found: AnchorPredictions, sizes: Sequence[tuple[int, int]]) -> list[Proposals]:
        """Proposals of each image; the limits of `DetectorConfig` follow `self.training`."""
        mode = 0 if self.training else 1
        return propose(
            found,
            sizes,
            pre_nms=self.config.rpn_pre_nms[mode],
            post_nms=self.config.rpn_post_nms[mode],
            nms=self.config.rpn_nms,
        )


@dataclass(frozen=True, eq=False)
class Proposals:
    """R proposals of one image, best first: boxes (R, 4) inside the image, objectness logits (R,). No gradients."""

    boxes: Tensor
    logits: Tensor


@torch.no_grad()
def propose(
    found: AnchorPredictions, sizes: Sequence[tuple[int, int]], *, pre_nms: int, post_nms: int, nms: float
) -> list[Proposals]:
    """The best anchors of each level, decoded, clipped to the image and suppressed within their level.

    Args:
        found: Predictions for B images.
        sizes: (height, width) of each image without padding.
        pre_nms: Most anchors of a level.
        post_nms: Most proposals of an image.
        nms: IoU above which the lower one goes.

    Returns:
        Proposals of each image. What is not finite is left out: in training, the loss tells of it.

    """
    logits, boxes, levels = [], [], []
    start = 0
    for i, count in enumerate(found.counts):
        best, index = found.logits[:, start : start + count].topk(min(count, pre_nms), dim=1)  # (B, K)
        deltas = torch.gather(found.deltas[:, start : start + count], 1, index[..., None].expand(-1, -1, 4))
        boxes.append(decode_boxes(found.anchors[start : start + count][index], deltas, RPN_BOX_WEIGHTS))
        logits.append(best.float())
        levels.append(torch.full_like(index[0], i))
        start += count
    all_logits, all_boxes, level = torch.cat(logits, 1), torch.cat(boxes, 1), torch.cat(levels)
    finite = torch.isfinite(all_boxes).all(dim=2) & torch.isfinite(all_logits)
    all_boxes = clip_boxes(all_boxes, box_limits(sizes, all_boxes)[:, None])
    valid = finite & has_area(all_boxes)
    # The others go last, as empty boxes that suppress nothing: leaving them out before would make a GPU wait twice.
    all_boxes, ranks = all_boxes.where(valid[..., None], 0), all_logits.where(valid, -torch.inf)
    kept = [batched_nms(box, rank, level, nms)[:post_nms] for box, rank in zip(all_boxes, ranks, strict=True)]
    counts = torch.stack([each[keep].sum() for each, keep in zip(valid, kept, strict=True)]).tolist()
    chosen = [keep[:count] for keep, count in zip(kept, counts, strict=True)]
    return [Proposals(box[i], logit[i]) for box, logit, i in zip(all_boxes, all_logits, chosen, strict=True)]
