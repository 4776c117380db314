"""Fresh weights of pixel decoder and queries, as published (Cheng et al., CVPR 2022; Zhu et al., ICLR 2021).

`transformers` gives them to its own models alone: in a model that is put together from its parts it passes over every
module without parameters of its own, and nothing says so. All points of the deformable attention then look at one
place, and masks of fresh queries are as good as equal: such a detector learns next to nothing.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def initialise(body: nn.Module) -> None:
    """Draw all weights from torch's state, and put what is not random at its place.

    Linear maps: Xavier. Convolutions: variance 1 / inputs. Deformable attention: each head looks into a direction of
    its own, its points at distances 1, 2, ... cells, all counting alike. Queries and levels: normal. What turns
    queries into masks keeps torch's own initial weights.

    Args:
        body: Holds `transformers`' `pixel_decoder` and `transformer_module`.

    """
    pixels: Any = body.pixel_decoder
    queries: Any = body.transformer_module
    nn.init.normal_(pixels.level_embed)
    for module in pixels.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_uniform_(module.weight, a=1)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for part in (pixels.encoder, queries.decoder.layers):
        for name, parameter in part.named_parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)
    for layer in pixels.encoder.layers:
        attention = layer.self_attn
        nn.init.zeros_(attention.sampling_offsets.weight)
        nn.init.zeros_(attention.attention_weights.weight)
        attention.sampling_offsets.bias.copy_(_directions(attention.n_heads, attention.n_levels, attention.n_points))


def _directions(heads: int, levels: int, points: int) -> torch.Tensor:
    """(heads * levels * points * 2,) offsets x y in cells, the larger of both being the point's number from 1."""
    angle = torch.arange(heads) * (2 * math.pi / heads)
    direction = torch.stack([angle.cos(), angle.sin()], dim=-1)
    direction = direction / direction.abs().amax(-1, keepdim=True)
    distance = torch.arange(1, points + 1.0)
    return (direction[:, None, None] * distance[:, None]).expand(-1, levels, -1, -1).flatten()
