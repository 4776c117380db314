"""A stage of learning in several processes of this machine, without torchrun's command line."""

from __future__ import annotations

import os
from collections.abc import Callable

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, record
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from hassod_ros.errors import InputError
from hassod_ros.learning.config import Recipe

Stage = Callable[[Recipe], object]


def train_together(stage: Stage, recipe: Recipe, processes: int) -> None:
    """Run a stage, such as `stages.burn_in`, in this process or in several that share its batches.

    Processes on CPUs get their share of the cores as threads, unless OMP_NUM_THREADS says otherwise.

    Args:
        stage: Function of a module, so that it can be found from another process.
        recipe: What to train.
        processes: How many; on GPUs one for each.

    Raises:
        InputError: The recipe is wrong, or one of several processes failed; with what it said.

    """
    if processes == 1:
        stage(recipe)
        return
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=processes,
        run_id=stage.__name__,
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        monitor_interval=1,
    )
    try:
        elastic_launch(config, _run)(stage, recipe)
    except ChildFailedError as error:
        message = error.get_first_failure()[1].message
        said = message.get("message") if isinstance(message, dict) else message
        raise InputError(f"one of {processes} processes that train together failed: {said}") from error


@record  # writes down what went wrong, for the process that waits
def _run(stage: Stage, recipe: Recipe) -> None:
    stage(recipe)
