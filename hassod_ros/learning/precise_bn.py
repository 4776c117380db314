"""Batch norm statistics over many training batches instead of a running mean of the last few."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import nn


@torch.no_grad()
def precise_bn(model: nn.Module, batches: Iterable, forward: Callable) -> None:
    """Replace running mean and variance of every batch norm by their average over `batches` (PreciseBN).

    The weights stay; `model` is left in training mode.

    Args:
        model: Network with batch norm layers that learn statistics; without any, nothing happens.
        batches: What `forward` takes; each counts the same.
        forward: Runs the network on one batch in training mode; the result is not used.

    """
    layers = [
        layer
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.track_running_stats
    ]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    model.train()
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's sign for an average that counts every batch the same
    try:
        for batch in batches:
            forward(batch)
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
