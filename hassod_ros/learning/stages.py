"""The two stages of HASSOD's learning, from a recipe to `model.pth`."""

from __future__ import annotations

import dataclasses
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import update_bn

from hassod_ros.default_model import DEFAULT, default_model
from hassod_ros.detection.base import Detector
from hassod_ros.detection.cascade.onnx_weights import recover_norms
from hassod_ros.detection.checkpoints import MASK2FORMER, build_detector, load_weights, save_weights
from hassod_ros.errors import InputError
from hassod_ros.files import alone, sha256
from hassod_ros.footage.store import labelled_images
from hassod_ros.learning.annotations import Annotations, describe, load_annotations, unlabelled
from hassod_ros.learning.burn_in import BurnIn
from hassod_ros.learning.config import Recipe, StageConfig, flat, save_recipe
from hassod_ros.learning.dataset import TrainingBatches, iterate, seed_of
from hassod_ros.learning.distributed import World, join_world, share_buffers
from hassod_ros.learning.loop import CHECKPOINT, LossNetwork, Score, autocast, fit, share_of
from hassod_ros.learning.mean_teacher import MeanTeacher
from hassod_ros.precision import training_precision

WEIGHTS, INITIAL, RECIPE = "model.pth", "initial.pth", "recipe.yaml"
_RECOVERY_PICTURES = 64
_BURN_IN, _MEAN_TEACHER, _PRECISE_BN = range(3)  # keys of the stages' random numbers
_LABELLED, _UNLABELLED = range(2)  # keys of the streams'


def burn_in(recipe: Recipe, score: Score | None = None) -> Path:
    """Train on the labels alone.

    Args:
        recipe: What to train.
        score: See `loop.fit`.

    Returns:
        `<run.output>/burn_in/model.pth`; beside it lie the recipe, the checkpoint and TensorBoard's files.

    """
    stage, run = recipe.burn_in, recipe.run
    folder = Path(run.output) / "burn_in"
    with join_world(run.device) as world, ExitStack() as held:
        if world.speaks:
            held.enter_context(alone(folder))  # before labels are read, which takes minutes where there are many
        stage = dataclasses.replace(stage, precision=training_precision(world.device, stage.precision))
        batch_size = share_of(stage.batch_size, "burn_in.batch_size", stage.accumulate, world)
        annotations = _labels(recipe, world)
        initial = _weights_of(stage.initial)
        detector = new_detector(recipe, initial, world, trunk_of_others=True)
        stream = TrainingBatches(
            annotations,
            recipe.data,
            batch_size=batch_size,
            copy_paste_rate=stage.copy_paste,
            seed=run.seed,
            stream=_LABELLED,
            rank=world.rank,
            world=world.size,
        )
        _recover(detector, initial, stream)
        _begin(recipe, folder, world, detector, initial)
        fit(
            BurnIn(detector, stage),
            [stream],
            stage,
            run,
            stage_key=_BURN_IN,
            settings=_settings(recipe, "burn_in", annotations, initial),
            world=world,
            folder=folder,
            score=score,
        )
        return _finish(detector, stream, stage, recipe, folder, world)


def mean_teacher(recipe: Recipe, score: Score | None = None) -> Path:
    """Go on from burn-in with a teacher.

    Starts from `mean_teacher.initial`, or from what `burn_in` left in the same `run.output`.

    Args:
        recipe: What to train.
        score: See `loop.fit`.

    Returns:
        `<run.output>/mean_teacher/model.pth`, the student or the teacher as `mean_teacher.final` says.

    Raises:
        InputError: There are no weights to start from.

    """
    stage, run, data = recipe.mean_teacher, recipe.run, recipe.data
    folder = Path(run.output) / "mean_teacher"
    initial = _weights_of(stage.initial) or str(Path(run.output) / "burn_in" / WEIGHTS)
    if recipe.detector == MASK2FORMER and not stage.teacher_mask_weight > 0:
        raise InputError("Mask2Former learns from masks; set mean_teacher.teacher_mask_weight above 0")
    if not Path(initial).is_file():
        raise InputError(
            f"{initial} does not exist: the teacher needs a trained detector; run train/detector.py with the same "
            "run.output first, or set mean_teacher.initial"
        )
    with join_world(run.device) as world, ExitStack() as held:
        if world.speaks:
            held.enter_context(alone(folder))
        stage = dataclasses.replace(stage, precision=training_precision(world.device, stage.precision))
        labelled_size = share_of(stage.batch_size, "mean_teacher.batch_size", stage.accumulate, world)
        unlabelled_size = share_of(stage.unlabelled_batch, "mean_teacher.unlabelled_batch", stage.accumulate, world)
        annotations = _labels(recipe, world)
        detector = new_detector(recipe, initial, world)
        stream = partial(TrainingBatches, config=data, strong=True, seed=run.seed, rank=world.rank, world=world.size)
        labelled_stream = stream(
            annotations,
            batch_size=labelled_size,
            copy_paste_rate=stage.copy_paste,
            stream=_LABELLED,
        )
        _recover(detector, initial, labelled_stream)
        learner = MeanTeacher(detector, stage, world)
        unlabelled_stream = stream(
            unlabelled(data.unlabelled) if data.unlabelled else annotations,
            batch_size=unlabelled_size,
            stream=_UNLABELLED,
        )
        _begin(recipe, folder, world, detector, initial)
        fit(
            learner,
            [labelled_stream, unlabelled_stream],
            stage,
            run,
            stage_key=_MEAN_TEACHER,
            settings=_settings(recipe, "mean_teacher", annotations, initial),
            world=world,
            folder=folder,
            score=score,
        )
        final = learner.student if stage.final == "student" else learner.average()
        return _finish(final, labelled_stream, stage, recipe, folder, world)


def new_detector(recipe: Recipe, initial: str, world: World, *, trunk_of_others: bool = False) -> Detector:
    """The recipe's detector on this process's device, with the weights of `initial` where it is given.

    Batch norm over all processes needs GPUs: on CPUs every process keeps its own statistics.
    """
    config: Any = recipe.mask2former if recipe.detector == MASK2FORMER else recipe.model
    if world.device.type == "cpu":
        norms = {name: getattr(config, name) for name in ("backbone_norm", "fpn_norm") if hasattr(config, name)}
        config = config.changed(**{name: norm.replace("sync", "batch") for name, norm in norms.items()})
    torch.manual_seed(seed_of(recipe.run.seed))
    detector = build_detector(config)
    if initial:
        load_weights(detector, initial, trunk_of_others=trunk_of_others)
    # Channels side by side suit convolutions in half precision on GPUs, and all on CPUs (measured there: 1.2 to 1.5x).
    return detector.to(world.device).to(memory_format=torch.channels_last)


def _weights_of(initial: str) -> str:
    """The file behind `default`, always the one of fp32; anything else as it is."""
    return str(default_model()) if initial == DEFAULT else initial


def _recover(detector: Detector, initial: str, stream: TrainingBatches) -> None:
    """An export has no batch norm statistics: they are measured on the first pictures, before training changes them."""
    if Path(initial).suffix == ".onnx":
        device = next(detector.parameters()).device
        count = max(1, _RECOVERY_PICTURES // stream.batch_size)
        recover_norms(detector, (stream[k].images.to(device) for k in range(count)))


def _labels(recipe: Recipe, world: World) -> Annotations:
    data = recipe.data
    images = labelled_images(data.images, data.annotations) if data.images else data.images
    annotations = load_annotations(data.annotations, images, drop_faulty=data.drop_faulty)
    if world.speaks:
        queries = recipe.mask2former.queries if recipe.detector == MASK2FORMER else None
        print(describe(annotations, queries), flush=True)
    return annotations


def _begin(recipe: Recipe, folder: Path, world: World, detector: Detector, initial: str) -> None:
    """Keep what a run begins with: its recipe, and the weights where those of `initial` were recovered."""
    if world.speaks and not (folder / CHECKPOINT).exists():
        save_recipe(recipe, folder / RECIPE)
        if Path(initial).suffix == ".onnx":
            save_weights(detector, folder / INITIAL)


def _settings(recipe: Recipe, stage: str, annotations: Annotations, initial: str) -> dict[str, object]:
    """Values that decide what is learned in a stage.

    Not the folders, which may have moved, nor how long the stage is, which may be lengthened, nor how many processes
    share it. Labels and initial weights are told by their contents: others make another run.
    """
    network = "mask2former." if recipe.detector == MASK2FORMER else "model."
    ours = (network, "data.", f"{stage}.", "run.seed", "run.deterministic")
    free = {"data.images", "data.annotations", "data.unlabelled", f"{stage}.iterations", f"{stage}.accumulate"}
    values = {name: value for name, value in flat(recipe).items() if name.startswith(ours) and name not in free}
    values[f"{stage}.initial"] = sha256(initial) if initial else ""
    values |= {"data.pictures": len(annotations), "data.masks": len(annotations.levels)}
    return {**values, "data.labels": annotations.contents}


def _finish(
    detector: Detector, stream: TrainingBatches, stage: StageConfig, recipe: Recipe, folder: Path, world: World
) -> Path:
    """PreciseBN on pictures as they are, without copy-paste; then the weights, unless they are there already.

    They are not written anew: the next stage tells its initial weights by their bytes.
    """
    path = folder / WEIGHTS
    if path.exists() and path.stat().st_mtime_ns >= (folder / CHECKPOINT).stat().st_mtime_ns:
        return path
    if stage.precise_bn:
        torch.manual_seed(seed_of(recipe.run.seed, _PRECISE_BN, world.rank))
        first = stage.iterations * stage.accumulate
        stream.copy_paste_rate = 0.0
        numbers = range(first, first + stage.precise_bn)
        learner, network = BurnIn(detector, stage), LossNetwork(detector)
        batches = iterate(stream, numbers, workers=recipe.run.workers, pin=world.device.type == "cuda")
        supervised = (learner.supervise([batch.to(world.device)], stage.iterations)[0] for batch in batches)
        with autocast(world.device, stage.precision):
            update_bn(([each] for each in supervised), network)  # of each entry it takes the first element
        share_buffers(detector, world)
    if world.speaks:
        save_weights(detector.eval(), path)
    return path
