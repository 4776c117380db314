"""HEAP's head: learnable group tokens gather the patches of an image into regions; each gets a foreground score.

After Zhang, Xie, Yuan, Mi, Tan, "HEAP: Unsupervised Object Discovery and Localization with Contrastive Grouping" (AAAI
2024). What its abstract and figures say: a light cross-attention head on frozen features, group tokens that cluster
patches by the similarity of embeddings, regions gathered into a foreground and a background embedding of the image.
Sizes, temperature and the form of the foreground score are not public: those here are chosen by us. So are the rounds
in which the means of the groups replace the tokens, as in slot attention (Locatello et al., NeurIPS 2020): tokens alone
group by what they know of the set, and cut the image at hand less well than k-means does.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6
NEAR, FLAT = 8, 1e-4  # as `regions.unlike_border` has them
CUES = 2  # what a region's place tells: see `Head.cues`
START = (0.0, 4.0)  # weights of the cues before training: what is unlike the border is foreground


@dataclass(frozen=True)
class Grouped:
    """What the head makes of B images of N patches.

    Attributes:
        assignment: (B, N, K), share of each patch in each group; adds up to 1 over K.
        groups: (B, K, C) of length 1, mean feature of each group.
        scores: (B, K) in (0, 1), how much each group is foreground.
        odds: (B, N), log-odds of each patch: those of its groups as far as these are to be believed, for the rest how
            unlike the border it is itself. Where the scores of several groups are nearly 1, these still tell which is
            more.
        sizes: (B, K) in [0, 1], share of the patches in each group; adds up to 1.

    """

    assignment: Tensor
    groups: Tensor
    scores: Tensor
    odds: Tensor
    sizes: Tensor

    @property
    def foreground(self) -> Tensor:
        """(B, N) in (0, 1), foreground of each patch."""
        return (self.assignment @ self.scores[..., None])[..., 0]

    def embeddings(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Foreground and background embedding (B, C) of each image, of length 1; features (B, N, C)."""
        inside = self.foreground[:, None]  # (B, 1, N)
        return F.normalize((inside @ features)[:, 0], dim=1), F.normalize(((1 - inside) @ features)[:, 0], dim=1)


class Head(nn.Module):
    """Group tokens, blocks of cross-attention, and a linear foreground score.

    Args:
        dim: Channels C of the features.
        tokens: Groups K.
        blocks: Of cross-attention.
        temperature: Of the assignment by cosine.
        rounds: In which the means of the groups replace the tokens.

    """

    def __init__(self, dim: int, tokens: int = 8, blocks: int = 2, temperature: float = 0.1, rounds: int = 4) -> None:
        super().__init__()
        self.temperature, self.rounds = temperature, rounds
        self.tokens = nn.Parameter(torch.randn(tokens, dim) * dim**-0.5)
        self.blocks = nn.ModuleList(Block(dim) for _ in range(blocks))
        self.norm = nn.LayerNorm(dim)
        self.look = nn.Parameter(torch.zeros(dim))  # of the score: how a region looks ...
        self.place = nn.Parameter(torch.tensor(START))  # ... and where it lies
        self.bias = nn.Parameter(torch.zeros(()))

    def forward(self, features: Tensor, border: Tensor, *, hard: bool = False) -> Grouped:
        """Group patches.

        Args:
            features: (B, N, C) of length 1.
            border: (N,) bool, the patches on the image's border, or their numbers (n,).
            hard: Each patch belongs to one group; gradients pass as if it were soft (straight through).

        """
        queries = self.tokens.expand(len(features), -1, -1)
        for block in self.blocks:
            queries = block(queries, features)
        centres = F.normalize(self.norm(queries), dim=2)
        assignment = torch.softmax(features @ centres.transpose(1, 2) / self.temperature, dim=2)  # (B, N, K)
        for _ in range(self.rounds):
            centres = F.normalize(assignment.transpose(1, 2) @ features, dim=2)
            assignment = torch.softmax(features @ centres.transpose(1, 2) / self.temperature, dim=2)
        if hard:
            chosen = F.one_hot(assignment.argmax(dim=2), assignment.shape[2]).to(assignment.dtype)
            assignment = chosen + assignment - assignment.detach()
        sums = assignment.transpose(1, 2) @ features  # (B, K, C)
        groups = F.normalize(sums, dim=2)
        sizes = assignment.mean(dim=1)
        unlike = self.unlike(features, border)
        logits = groups @ self.look + self.cues(unlike, border, assignment) @ self.place + self.bias  # (B, K)
        trust = self.explained(unlike, assignment)
        odds = trust * (assignment @ logits[..., None])[..., 0] + (1 - trust) * unlike
        return Grouped(assignment, groups, torch.sigmoid(logits), odds, sizes)

    @staticmethod
    def cues(unlike: Tensor, border: Tensor, assignment: Tensor) -> Tensor:
        """(B, K, 2) of each group, above 0 for foreground.

        How much rarer it is on the border than elsewhere (0.5 - its share of the border / (that + its share of all)),
        and how unlike the border its patches are, against the mean of the image.
        """
        sizes = assignment.mean(dim=1)  # (B, K)
        there = assignment[:, border].mean(dim=1)
        rare = 0.5 - there / (there + sizes + _EPS)
        of_group = (unlike[:, None] @ assignment)[:, 0] / (assignment.sum(dim=1) + _EPS)  # (B, K)
        return torch.stack([rare, of_group / 2], dim=2).detach()

    @staticmethod
    def explained(unlike: Tensor, assignment: Tensor) -> Tensor:
        """(B, 1) in [0, 1], how far the groups are to be believed; see `reliability.explained`."""
        means = (unlike[:, None] @ assignment)[:, 0] / assignment.sum(dim=1).clamp_min(_EPS)  # (B, K)
        between = (assignment @ means[..., None])[..., 0].var(dim=1, keepdim=True, unbiased=False)
        return (between / unlike.var(dim=1, keepdim=True, unbiased=False).clamp_min(_EPS)).clamp_max(1)

    @staticmethod
    def unlike(features: Tensor, border: Tensor) -> Tensor:
        """(B, N), how unlike the border each patch is; see `regions.unlike_border`."""
        edge = features[:, border]  # (B, n, C)
        near = min(NEAR, edge.shape[1])
        alike = (features @ edge.transpose(1, 2)).topk(near, dim=2).values.mean(dim=2)  # (B, N)
        spread = alike.std(dim=1, keepdim=True, unbiased=False)
        return torch.where(spread < FLAT, 0.0, (alike.mean(dim=1, keepdim=True) - alike) / spread.clamp_min(FLAT))


class Block(nn.Module):
    """Tokens look at patches: cross-attention and a small MLP, each added to the tokens."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.heads = next(heads for heads in (6, 4, 3, 2, 1) if dim % heads == 0)
        self.before = nn.LayerNorm(dim)
        self.query, self.key, self.value, self.out = (nn.Linear(dim, dim) for _ in range(4))
        self.between = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """(B, K, C) tokens and (B, N, C) patches -> (B, K, C)."""
        parts = (self.query(self.before(tokens)), self.key(patches), self.value(patches))
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        tokens = tokens + self.out(seen)
        return tokens + self.mlp(self.between(tokens))
