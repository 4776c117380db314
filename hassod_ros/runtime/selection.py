"""What a user asks for in place of what a model recommends, and what is left over of a result."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from hassod_ros.instances import Instances, Level
from hassod_ros.runtime.postprocess import PostprocessOptions

_SCENES = 20  # as many of the best may be scene without an instance too few being left over


@dataclass(frozen=True, kw_only=True)
class Selection:
    """What is wanted of a result.

    Attributes:
        score_thresholds: Least score for each level, in [0, 1]; None: the model's own.
        parent_coverage: Share of a mask that its parent must contain, in (0, 1]; None: the model's own.
        levels: Levels that are wanted.
        max_instances: The best so many are wanted.
        scene: Whether background and supports are wanted.

    """

    score_thresholds: tuple[float | None, ...] = (None,) * len(Level)
    parent_coverage: float | None = None
    levels: tuple[Level, ...] = tuple(Level)
    max_instances: int = 1000
    scene: bool = True

    def thresholds(self, own: Sequence[float] | None) -> tuple[float, ...]:
        """Least score for each level that holds for a model with thresholds of its `own`, or without any."""
        recommended = own or (0.0,) * len(Level)
        return tuple(
            least if wanted is None else wanted
            for wanted, least in zip(self.score_thresholds, recommended, strict=True)
        )

    def options(self, own: PostprocessOptions) -> PostprocessOptions:
        """A model's `own` options with what is wanted in their place.

        Masks beyond `max_instances` are not even drawn, unless the best of some levels are asked for.
        """
        most = self.max_instances if self.scene else self.max_instances + _SCENES
        return replace(
            own,
            score_thresholds=self.thresholds(own.score_thresholds),
            parent_coverage=own.parent_coverage if self.parent_coverage is None else self.parent_coverage,
            max_instances=min(own.max_instances, most) if set(self.levels) == set(Level) else own.max_instances,
        )

    def apply(self, instances: Instances) -> Instances:
        """What the thresholds, the levels and the limit leave over, best scores first."""
        wanted = np.array([level in self.levels for level in Level])
        least = np.array(self.thresholds(None), np.float32)
        keep = wanted[instances.levels] & (instances.scores >= least[instances.levels])
        if not self.scene:
            keep &= ~instances.scene
        rows = np.flatnonzero(keep)
        rows = rows[np.argsort(-instances.scores[rows], kind="stable")][: self.max_instances]
        return instances if np.array_equal(rows, np.arange(len(instances))) else instances.select(rows)
