"""Mask2Former as one graph without a tensor of data-dependent shape, for export to ONNX and TensorRT.

`Mask2Former` is the oracle: same weights, same answers. Deformable attention takes its samples as rows of a table
instead of by GridSample, of which TensorRT has open reports of wrong results.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from hassod_ros.detection.cascade.fpn import SIZE_DIVISOR
from hassod_ros.detection.cascade.static_graph import OUTPUTS as CASCADE_OUTPUTS
from hassod_ros.detection.cascade.static_graph import fold_norms
from hassod_ros.detection.mask2former.found import extents
from hassod_ros.detection.mask2former.model import STRIDE, Mask2Former
from hassod_ros.errors import InputError
from hassod_ros.instances import Level

OUTPUTS = (*CASCADE_OUTPUTS, "ancestors")


class StaticMask2Former(nn.Module):
    """A copy of a detector for one batch and input size.

    Args:
        model: Trained detector; it is not changed. Its config says how many detections there are.
        batch: Images per call.
        input_size: (H, W) in pixels, multiples of 32.

    Raises:
        InputError: The input size is not a multiple of 32.

    """

    outputs = OUTPUTS

    def __init__(self, model: Mask2Former, *, batch: int = 1, input_size: tuple[int, int]) -> None:
        super().__init__()
        if any(side < SIZE_DIVISOR or side % SIZE_DIVISOR for side in input_size):
            raise InputError(f"an input size of {input_size} cannot be exported; give multiples of {SIZE_DIVISOR}")
        self.batch, self.input_size = batch, input_size
        self.detections = min(model.config.detections, model.config.queries)
        model = copy.deepcopy(model).float().eval().requires_grad_(False)
        fold_norms(model.backbone)
        for layer in model.body.pixel_decoder.encoder.layers:
            layer.self_attn = GatheredAttention(layer.self_attn)
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detections of uint8 RGB images (B, H, W, 3).

        Returns:
            `OUTPUTS`: boxes (B, D, 4) around the masks in input pixels, scores (B, D) descending, level probabilities
            (B, D, 3), all wholes: the ancestors tell levels, mask probabilities (B, D, H / 4, W / 4), valid rows (B,)
            int32, converged (B,) bool, always, the features that masks are read from (B, C, H / 4, W / 4), and the
            probability (B, D, D) that the column is an ancestor of the row. Rows beyond the valid ones have score 0.

        """
        pixels = images.float().permute(0, 3, 1, 2)  # cast first: TensorRT takes uint8 as an input only
        queries, logits, features = self.model.decode(pixels, [self.input_size] * self.batch)
        scores, masks, related = self.model.read(queries[-1], logits[-1])
        scores, order = scores.topk(self.detections, dim=1)
        count = scores.shape[1]
        first = torch.arange(self.batch)[:, None] * masks.shape[1]
        rows = (order + first).flatten()
        masks = masks.flatten(0, 1).index_select(0, rows).unflatten(0, (self.batch, count))
        related = related.flatten(0, 1).index_select(0, rows).unflatten(0, (self.batch, count))
        related = torch.gather(related, 2, order[:, None, :].expand(-1, count, -1))
        valid = scores > self.model.config.score_threshold
        boxes = extents(masks > self.model.config.mask_threshold) * STRIDE
        levels = torch.eye(len(Level))[:1].expand(self.batch, count, -1).clone()
        return (
            boxes,
            torch.where(valid, scores, 0.0),
            levels,
            masks,
            valid.sum(dim=1, dtype=torch.int32),
            torch.ones(self.batch, dtype=torch.bool),
            features,
            related,
        )


class GatheredAttention(nn.Module):
    """Multi-scale deformable attention (Zhu et al., ICLR 2021) of `transformers`, its samples taken as table rows.

    Args:
        layer: The library's module, whose weights it shares.

    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.heads, self.levels, self.points = layer.n_heads, layer.n_levels, layer.n_points
        self.sampling_offsets, self.attention_weights = layer.sampling_offsets, layer.attention_weights
        self.value_proj, self.output_proj = layer.value_proj, layer.output_proj

    def forward(
        self,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor,
        position_embeddings: Tensor,
        reference_points: Tensor,
        spatial_shapes_list: list[tuple[int, int]],
        **others: Any,
    ) -> tuple[Tensor, None]:
        """(B, S, C) tokens of all levels -> what each reads, (B, S, C); without padding, all tokens count.

        Args:
            hidden_states: The tokens that ask.
            encoder_hidden_states: Those that are asked, of the levels one after the other.
            position_embeddings: Added to the former.
            reference_points: (B, S, L, 2) x and y in [0, 1].
            spatial_shapes_list: Height and width of each level.
            others: Of the library's call, without a part in this.

        """
        batch, count, width = hidden_states.shape
        asking = hidden_states + position_embeddings
        table = self.value_proj(encoder_hidden_states).reshape(batch * count * self.heads, width // self.heads)
        shape = (batch, count, self.heads, self.levels, self.points)
        offsets = self.sampling_offsets(asking).reshape(*shape, 2)
        weights = self.attention_weights(asking).reshape(*shape[:3], -1).softmax(-1).reshape(shape)
        heights, widths = (torch.tensor([float(each[i]) for each in spatial_shapes_list])[:, None] for i in (0, 1))
        starts = torch.tensor([0, *(h * w for h, w in spatial_shapes_list)])[:-1].cumsum(0)[:, None]
        # Centres of cells lie at (index + 0.5) / side.
        x = reference_points[:, :, None, :, None, 0] * widths + offsets[..., 0] - 0.5
        y = reference_points[:, :, None, :, None, 1] * heights + offsets[..., 1] - 0.5
        left, top = x.floor(), y.floor()
        first = torch.arange(batch)[:, None, None, None, None] * count
        head = torch.arange(self.heads)[:, None, None]
        read = torch.zeros(())
        for column, share_x in ((left, left + 1 - x), (left + 1, x - left)):
            for row, share_y in ((top, top + 1 - y), (top + 1, y - top)):
                inside = (column >= 0) & (column < widths) & (row >= 0) & (row < heights)
                cell = row.clamp(torch.zeros(()), heights - 1) * widths + column.clamp(torch.zeros(()), widths - 1)
                place = (first + starts + cell.long()) * self.heads + head
                samples = table.index_select(0, place.flatten()).reshape(*shape[:3], -1, width // self.heads)
                share = torch.where(inside, weights * share_x * share_y, 0.0).flatten(3)
                read = read + (share[..., None, :] @ samples)[..., 0, :]
        return self.output_proj(read.reshape(batch, count, width)), None
