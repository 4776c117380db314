"""Mask2Former with an ancestor head: the whole detector.

Pixel decoder, queries and the matching come from `transformers`; trunks are those of the cascade, so that their weights
load in the same way (see `checkpoints`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hassod_ros.detection.base import DEFAULT_LOSSES, Detector, LossOptions, Targets
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.fpn import SIZE_DIVISOR, Fpn, build_backbone
from hassod_ros.detection.mask2former.ancestors import AncestorHead, ancestor_loss
from hassod_ros.detection.mask2former.comparison import cheapest, mask_losses
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.found import Found
from hassod_ros.detection.mask2former.initial import initialise
from hassod_ros.errors import InputError
from hassod_ros.instances import ancestors_of, kept_parents

STRIDE = 4  # pixels of the input along a cell of a mask
OBJECT, NOTHING = 0, 1  # classes


class Trunk(nn.Module):
    """Feature maps of strides 4, 8, 16 and 32: a convolutional trunk's own, or a simple pyramid over a ViT's."""

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        backbone = build_backbone(
            DetectorConfig(
                backbone=config.backbone,
                backbone_width=config.backbone_width if config.backbone.startswith("resnet") else 1.0,
                backbone_norm=config.backbone_norm,
                fpn_channels=config.width,
                fpn_norm="none",
            )
        )
        self.channels: tuple[int, ...] = (config.width,) * 4
        self.bottom_up: nn.Module
        self.pyramid: nn.ModuleDict | None = None
        if isinstance(backbone, Fpn):
            self.bottom_up, self.channels = backbone.bottom_up, backbone.bottom_up.channels
        else:
            self.bottom_up = backbone.bottom_up
            self.pyramid = nn.ModuleDict({f"p{i}": getattr(backbone, f"simfp_{i}") for i in (2, 3, 4, 5)})

    def forward(self, x: Tensor) -> list[Tensor]:
        """(B, 3, H, W), H and W multiples of 32 -> four maps, the finest first."""
        maps = self.bottom_up(x)
        return list(maps) if self.pyramid is None else [level(maps) for level in self.pyramid.values()]


class Mask2Former(Detector):
    """Images in, masks and their ancestors out; see `Detector`.

    Args:
        config: What to build. Weights are random, from torch's state.

    """

    pixel_mean: Tensor
    pixel_std: Tensor

    def __init__(self, config: Mask2FormerConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = Trunk(config)
        self.body, criterion = _body(config, self.backbone.channels)
        self._library = (criterion,)  # in a tuple: it is no part of the model's weights
        self.class_head = nn.Linear(config.width, 2)
        self.ancestor_head = AncestorHead(config.width)
        self.register_buffer("pixel_mean", torch.tensor(config.pixel_mean).view(3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(config.pixel_std).view(3, 1, 1), persistent=False)

    def decode(self, images: Tensor, sizes: Sequence[tuple[int, int]]) -> tuple[list[Tensor], list[Tensor], Tensor]:
        """Queries and masks after each decoder layer, the first of all before any, and what masks are read from.

        Args:
            images: (B, 3, H, W) RGB 0 ... 255; smaller images in the upper left corner.
            sizes: (height, width) of each image.

        Returns:
            Queries (B, Q, C), mask logits (B, Q, H' / 4, W' / 4), and features (B, C, H' / 4, W' / 4), H' and W' being
            padded to multiples of 32.

        """
        x = (images - self.pixel_mean) / self.pixel_std
        height, width = x.shape[2:]
        if any(tuple(size) != (height, width) for size in sizes):
            for image, (rows, columns) in zip(x, sizes, strict=True):
                image[:, rows:] = 0
                image[:, :, columns:] = 0
        x = F.pad(x, (0, -width % SIZE_DIVISOR, 0, -height % SIZE_DIVISOR))
        pixels = self.body.pixel_decoder(self.backbone(x))
        out = self.body.transformer_module(pixels.multi_scale_features, pixels.mask_features, output_hidden_states=True)
        queries = [each.transpose(0, 1) for each in out.intermediate_hidden_states]
        return queries, list(out.masks_queries_logits), pixels.mask_features

    def read(self, queries: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What the last queries (B, Q, C) and their masks say, in float32.

        Returns:
            Scores (B, Q): the probability of an object times the mean probability of its mask's pixels; mask
            probabilities (B, Q, h, w); and (B, Q, Q) probability that the column is an ancestor of the row.

        """
        masks = logits.float().sigmoid()
        inside = (masks > self.config.mask_threshold).float()
        quality = (masks * inside).sum((2, 3)) / inside.sum((2, 3)).clamp(min=1)
        scores = self.class_head(queries).float().softmax(-1)[..., OBJECT] * quality
        return scores, masks, self.ancestor_head(queries).float().sigmoid()

    def forward(self, images: Tensor, sizes: Sequence[tuple[int, int]] | None = None) -> list[Found]:
        """Detections of each image, by descending score (see `read`).

        Args:
            images: See `decode`.
            sizes: Default: no padding.

        """
        sizes = [(images.shape[2], images.shape[3])] * len(images) if sizes is None else sizes
        queries, logits, _ = self.decode(images, sizes)
        found = []
        for score, mask, pairs, size in zip(*self.read(queries[-1], logits[-1]), sizes, strict=True):
            score, order = score.topk(min(self.config.detections, len(score)))
            order = order[score > self.config.score_threshold]
            rows, columns = (-(-side // STRIDE) for side in size)
            found.append(
                Found(
                    scores=score[: len(order)],
                    masks=mask[order, :rows, :columns],
                    ancestors=pairs[order][:, order],
                    size=(size[0], size[1]),
                    cover=self.config.cover,
                )
            )
        return found

    def losses(
        self,
        images: Tensor,
        sizes: Sequence[tuple[int, int]],
        targets: Sequence[Targets],
        options: LossOptions = DEFAULT_LOSSES,
    ) -> dict[str, Tensor]:
        """All losses of a batch, weighted; every parameter gets a gradient, also where nothing is to be found.

        Arguments as in `Detector`. Of the targets of an image at most `max_targets` count, drawn at random.

        Returns:
            `loss_class`, `loss_mask` and `loss_dice`, sums over the decoder's layers, and `loss_ancestor`.

        Raises:
            InputError: Targets without masks.

        """
        queries, logits, _ = self.decode(images, sizes)
        chosen = [self._sample(each) for each in targets]
        shape = logits[-1].shape[-2] * STRIDE, logits[-1].shape[-1] * STRIDE
        truth = [_padded(each.masks, shape, logits[-1]) for each in chosen]
        cells = [F.avg_pool2d(each[:, None], STRIDE).flatten(1) for each in truth]
        everywhere = cells[0].shape[1] <= self.config.points
        # Untouched where a batch has no object: added once, so that every parameter takes part.
        nothing = sum(each.sum() for each in (*queries, *logits)) * 0.0
        losses = dict.fromkeys(("loss_class", "loss_mask", "loss_dice"), nothing)
        matched: list[tuple[Tensor, Tensor]] = []
        for layer, masks in zip(queries, logits, strict=True):
            masks = masks.float()
            classes = self.class_head(layer).float()
            matched = self._match(classes, masks, cells if everywhere else truth)
            terms = {"loss_class": self._class_loss(classes, masks, cells, matched, options.drop_loss_iou)}
            count = sum(len(found) for found, _ in matched)
            if count and everywhere:
                terms |= mask_losses([each.flatten(1) for each in masks], cells, matched)
            elif count:
                terms |= self._library[0].loss_masks(masks, truth, matched, count)
            for name, value in terms.items():
                losses[name] = losses[name] + value
        related = self.ancestor_head(queries[-1]).float()
        pairs = [each[found][:, found] for each, (found, _) in zip(related, matched, strict=True)]
        wanted = [
            torch.from_numpy(ancestors_of(_parents(each).cpu().numpy())).to(goal.device)[goal][:, goal]
            for each, (_, goal) in zip(chosen, matched, strict=True)
        ]
        config = self.config
        return {
            "loss_class": losses["loss_class"] * config.class_weight,
            "loss_mask": losses["loss_mask"] * config.mask_loss_weight * options.mask_weight,
            "loss_dice": losses["loss_dice"] * config.dice_weight * options.mask_weight,
            "loss_ancestor": (ancestor_loss(pairs, wanted, config.ancestor_limit) + related.sum() * 0.0)
            * config.ancestor_weight,
        }

    def _sample(self, target: Targets) -> Targets:
        """At most so many objects as there are queries, and no more than `max_targets`."""
        if target.masks is None:
            raise InputError(
                "Mask2Former learns from masks and was given none; set mean_teacher.teacher_mask_weight above 0"
            )
        most = min(self.config.max_targets, self.config.queries)
        if len(target.boxes) <= most:
            return target
        index = torch.randperm(len(target.boxes))[:most].sort().values
        parents = torch.from_numpy(kept_parents(_parents(target).cpu().numpy(), index.numpy()))
        index = index.to(target.boxes.device)
        return Targets(target.boxes[index], target.levels[index], target.masks[index], parents.to(index.device))

    @torch.no_grad()
    def _match(self, classes: Tensor, masks: Tensor, truth: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Queries and objects of each image that belong together, the cheapest assignment.

        Objects are (G, cells) to be compared at all cells, or (G, H, W) to be compared at random points.
        """
        config, found = self.config, []
        for each, mask, wanted in zip(classes, masks, truth, strict=True):
            if not len(wanted):
                none = torch.zeros(0, dtype=torch.int64, device=masks.device)
                found.append((none, none))
                continue
            if wanted.dim() == 2:
                weights = {
                    "class_weight": config.class_weight,
                    "mask_weight": config.mask_loss_weight,
                    "dice_weight": config.dice_weight,
                }
                found.append(cheapest(each.softmax(-1)[:, OBJECT], mask.flatten(1), wanted, **weights))
                continue
            kinds = torch.full((len(wanted),), OBJECT, device=masks.device)
            ((queries, objects),) = self._library[0].matcher(mask[None], each[None], [wanted], [kinds])
            found.append((queries.to(masks.device), objects.to(masks.device)))
        return found

    def _class_loss(
        self,
        classes: Tensor,
        masks: Tensor,
        cells: Sequence[Tensor],
        matched: Sequence[tuple[Tensor, Tensor]],
        drop_loss_iou: float | None,
    ) -> Tensor:
        wanted = torch.full(classes.shape[:2], NOTHING, device=classes.device)
        weights = torch.full(classes.shape[:2], self.config.no_object_weight, device=classes.device)
        for i, (queries, _) in enumerate(matched):
            if drop_loss_iou is not None:
                weights[i, best_overlap(masks[i], cells[i]) <= drop_loss_iou] = 0.0
            wanted[i, queries] = OBJECT
            weights[i, queries] = 1.0
        loss = F.cross_entropy(classes.flatten(0, 1), wanted.flatten(), reduction="none")
        return (loss * weights.flatten()).sum() / weights.sum().clamp(min=1e-6)


@torch.no_grad()
def best_overlap(logits: Tensor, cells: Tensor) -> Tensor:
    """(Q,) largest IoU of each mask, of logits (Q, h, w), with one of the objects (G, h * w); 0 without any."""
    if not len(cells):
        return logits.new_zeros(len(logits))
    predicted = (logits > 0).flatten(1).float()
    objects = (cells > 0.5).float()
    common = predicted @ objects.T
    union = predicted.sum(1)[:, None] + objects.sum(1) - common
    return (common / union.clamp(min=1)).amax(1)


def _padded(masks: Tensor | None, shape: tuple[int, int], like: Tensor) -> Tensor:
    """Masks (G, h, w) as float32 (G, *shape), zeros below and at the right."""
    assert masks is not None
    padded = torch.zeros((len(masks), *shape), device=like.device)
    padded[:, : masks.shape[1], : masks.shape[2]] = masks
    return padded


def _parents(target: Targets) -> Tensor:
    """Whose parents nobody has stated have none."""
    return torch.full_like(target.levels, -1) if target.parents is None else target.parents


def _body(config: Mask2FormerConfig, channels: Sequence[int]) -> tuple[Any, Any]:
    """Pixel decoder and queries, with fresh weights, and the library's matching and losses of masks."""
    try:
        from transformers import Mask2FormerConfig as LibraryConfig
        from transformers.models.mask2former import modeling_mask2former as library
    except ImportError as error:
        raise InputError("Mask2Former needs transformers; pip install 'hassod_ros[train]'") from error

    settings = LibraryConfig(
        feature_size=config.width,
        mask_feature_size=config.width,
        hidden_dim=config.width,
        num_queries=config.queries,
        num_attention_heads=config.heads,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers + 1,  # the library counts the prediction before the first layer
        encoder_feedforward_dim=config.feedforward,
        dim_feedforward=config.feedforward,
        train_num_points=config.points,
        class_weight=config.class_weight,
        mask_weight=config.mask_loss_weight,
        dice_weight=config.dice_weight,
    )
    settings.num_labels = 1
    body = nn.Module()
    body.pixel_decoder = library.Mask2FormerPixelDecoder(settings, feature_channels=list(channels))
    body.transformer_module = library.Mask2FormerTransformerModule(config.width, settings)
    initialise(body)
    return body, library.Mask2FormerLoss(settings, {})
