"""Everything a training run is made of: typed, from one YAML recipe, every value changeable on the command line."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import jsonargparse
import yaml

from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.errors import InputError
from hassod_ros.files import write_text

Kind = TypeVar("Kind")
_OTHER = {"cascade": "mask2former", "mask2former": "model"}  # section of the detector that is not built


@dataclass(frozen=True)
class DataConfig:
    """Pictures, labels and the geometry of training views.

    Attributes:
        images: Folder that the labels' file names are relative to, or the list of pictures, the recording or the video
            that they were made from.
        annotations: COCO JSON with levels, or a folder of such shards.
        unlabelled: Folder or list of pictures for the teacher's branch; empty: the labelled ones again.
        drop_faulty: Leave faulty annotations and damaged pictures out and list them, instead of stopping.
        short_sides: Shorter side of a training view in pixels; one is drawn for each picture.
        max_side: Most pixels of the longer side.
        flip: Probability of mirroring a picture, in [0, 1].

    """

    images: str = ""
    annotations: str = ""
    unlabelled: str = ""
    drop_faulty: bool = False
    short_sides: tuple[int, ...] = (240, 320, 480, 640, 672, 704, 736, 768, 800, 1024)
    max_side: int = 1333
    flip: float = 0.5


@dataclass(frozen=True)
class StageConfig:
    """Optimisation of one stage; the defaults are those of HASSOD's 40,000 burn-in iterations.

    Attributes:
        initial: Weights to start from: default (the shipped model), an export (.onnx), a checkpoint of ours, of
            Detectron2 or DINO; empty: random ones, or for mean_teacher those of burn_in in the same run.output. A
            detector of another kind gives burn_in its trunk.
        iterations: Optimiser steps.
        batch_size: Labelled pictures of an optimiser step, over all processes.
        accumulate: Parts that a batch is computed in, one after the other, to save memory.
        optimizer: SGD with a momentum of 0.9, or AdamW.
        learning_rate: Of the optimiser, after the warm-up.
        schedule: Of the learning rate: constant, or half a cosine down to 0.
        warmup: Iterations in which the learning rate rises linearly, from a thousandth.
        weight_decay: Of all weights but those of normalisation layers.
        clip_norm: Largest L2 norm of gradients; 0: no clipping.
        clip: What that norm is of: each parameter's gradient, as HASSOD's release has it, or all gradients together.
        precision: Of the forward pass; auto: what the device computes fast in.
        copy_paste: Probability that a picture receives instances of another one, in [0, 1].
        drop_loss_iou: DropLoss: boxes whose IoU with every label is smaller do not count as background; null: they do.
        mask_weight: Weight of the mask loss on labels.
        precise_bn: Batches that recompute the batch norm statistics at the end; 0: none.

    """

    initial: str = ""
    iterations: int = 40_000
    batch_size: int = 16
    accumulate: int = 1
    optimizer: Literal["sgd", "adamw"] = "sgd"
    learning_rate: float = 0.01
    schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 1000
    weight_decay: float = 5e-5
    clip_norm: float = 1.0
    clip: Literal["per_parameter", "global"] = "per_parameter"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    copy_paste: float = 1.0
    drop_loss_iou: float | None = 0.01
    mask_weight: float = 1.0
    precise_bn: int = 200


@dataclass(frozen=True)
class MeanTeacherConfig(StageConfig):
    """Mean Teacher with adaptive targets; the defaults are those of HASSOD's released 2,000 iterations.

    Attributes:
        unlabelled_batch: Pictures of a step that the teacher labels, over all processes.
        label_views: Views of the labelled pictures that the student sees: weakly, strongly augmented, or both.
        ema_decay: Share of the teacher's parameters and buffers that stays in every iteration, in [0, 1].
        score_threshold: Least score of the teacher's detections that teach, in [0, 1].
        threshold: fixed: `score_threshold` for all; dynamic: small, medium and large things have their own (SOHES).
        threshold_bounds: Lowest and highest dynamic threshold, in [0, 1].
        teacher_mode: train: batch norm of the batch and training limits of proposals; eval: as at test time.
        teacher_mask_weight: Weight of the mask loss on the teacher's masks.
        label_weights: Weight of the losses on labels, at the start and the end of half a cosine.
        teacher_weights: Weight of the losses on what the teacher finds, likewise.
        final: Which of the two networks becomes model.pth.

    """

    iterations: int = 2000
    batch_size: int = 8
    schedule: Literal["constant", "cosine"] = "cosine"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "fp32"
    copy_paste: float = 0.0
    drop_loss_iou: float | None = None
    precise_bn: int = 0
    unlabelled_batch: int = 8
    label_views: Literal["both", "weak", "strong"] = "both"
    ema_decay: float = 0.9996
    score_threshold: float = 0.7
    threshold: Literal["fixed", "dynamic"] = "fixed"
    threshold_bounds: tuple[float, float] = (0.3, 0.7)
    teacher_mode: Literal["train", "eval"] = "train"
    teacher_mask_weight: float = 0.0
    label_weights: tuple[float, float] = (1.0, 0.0)
    teacher_weights: tuple[float, float] = (2.0, 3.0)
    final: Literal["student", "teacher"] = "student"


@dataclass(frozen=True)
class RelabelConfig:
    """How a detector's findings become labels.

    Attributes:
        sides: Pixels of a picture's longer side: a view each, every second one mirrored.
        score_threshold: Least score of a label, a mean over views and so lower than a detector's, in [0, 1].
        nms: IoU from which detections are of one thing, in [0, 1].
        detections: Most labels of a picture.
        color_weight: How far outlines follow the picture's colours; 0: not.
        mask_threshold: Probability from which a pixel belongs to a mask, in [0, 1].
        min_side: Least width and height of a mask in pixels.
        cover: Share of a mask that its parent must contain, in [0, 1].

    """

    sides: tuple[int, ...] = (256, 320, 448)
    score_threshold: float = 0.3
    nms: float = 0.6
    detections: int = 100
    color_weight: float = 3.0
    mask_threshold: float = 0.3
    min_side: int = 4
    cover: float = 0.9

    def __post_init__(self) -> None:
        for name in ("score_threshold", "nms", "mask_threshold", "cover"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} must lie in [0, 1], it is {getattr(self, name)}")
        for name in ("detections", "min_side"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} must be above 0, it is {getattr(self, name)}")
        if not self.color_weight >= 0:
            raise InputError(f"color_weight must not be negative, it is {self.color_weight}")
        if not self.sides or min(self.sides) < 32:
            raise InputError(f"sides must be pixel counts from 32 on, they are {list(self.sides)}")


@dataclass(frozen=True)
class RunConfig:
    """Where and how a run goes; nothing here but `seed` changes what is learned.

    Attributes:
        output: Folder of checkpoints, weights and logs; started again with the same one, a run goes on.
        seed: Of all random numbers.
        device: auto (a GPU where there is one), cpu, or cuda:N.
        deterministic: Deterministic kernels only: slower, and bit-equal from run to run on a GPU.
        workers: Processes that prepare batches, for each training process; 0: none beside it.
        checkpoint_every: Iterations between two checkpoints.
        log_every: Iterations between two lines of progress.
        picture_every: Iterations between two TensorBoard pictures of labels and predictions; 0: none.
        evaluate_every: Iterations between two evaluations, of which the best detector is kept in best.pth; 0: none.
        evaluate_annotations: COCO JSON of a set that no training picture is in.
        evaluate_images: Folder of its pictures.

    """

    output: str = "runs/hassod"
    seed: int = 0
    device: str = "auto"
    deterministic: bool = False
    workers: int = 4
    checkpoint_every: int = 1000
    log_every: int = 20
    picture_every: int = 500
    evaluate_every: int = 0
    evaluate_annotations: str = ""
    evaluate_images: str = ""


@dataclass(frozen=True)
class Recipe:
    """A whole training run: burn-in, then Mean Teacher.

    Attributes:
        detector: cascade: what `model` says is built; mask2former: what `mask2former` says. The other one stays out.
        model: The Cascade Mask R-CNN of HASSOD.
        mask2former: The Mask2Former of SOHES.
        data: Pictures, labels and the geometry of training views.
        burn_in: Training on the labels alone.
        mean_teacher: Training that goes on with a teacher.
        run: Where and how the run goes.

    """

    detector: Literal["cascade", "mask2former"] = "cascade"
    model: DetectorConfig = field(default_factory=DetectorConfig)
    mask2former: Mask2FormerConfig = field(default_factory=Mask2FormerConfig)
    data: DataConfig = field(default_factory=DataConfig)
    burn_in: StageConfig = field(default_factory=StageConfig)
    mean_teacher: MeanTeacherConfig = field(default_factory=MeanTeacherConfig)
    run: RunConfig = field(default_factory=RunConfig)

    def __post_init__(self) -> None:
        if getattr(self, _OTHER[self.detector]) != type(getattr(self, _OTHER[self.detector]))():
            raise InputError(
                f"the detector is {self.detector}, settings of {_OTHER[self.detector]} change nothing; leave them out"
            )
        for name, stage in (("burn_in", self.burn_in), ("mean_teacher", self.mean_teacher)):
            for key in ("iterations", "batch_size", "accumulate", "learning_rate"):
                if not getattr(stage, key) > 0:
                    raise InputError(f"{name}.{key} must be above 0, it is {getattr(stage, key)}")
            for key in ("warmup", "clip_norm", "weight_decay", "mask_weight", "precise_bn"):
                if not getattr(stage, key) >= 0:
                    raise InputError(f"{name}.{key} must not be negative, it is {getattr(stage, key)}")
        shares = {
            "data.flip": self.data.flip,
            "burn_in.copy_paste": self.burn_in.copy_paste,
            "mean_teacher.copy_paste": self.mean_teacher.copy_paste,
            "mean_teacher.ema_decay": self.mean_teacher.ema_decay,
            "mean_teacher.score_threshold": self.mean_teacher.score_threshold,
        }
        for name, value in shares.items():
            if not 0 <= value <= 1:
                raise InputError(f"{name} must lie in [0, 1], it is {value}")
        low, high = self.mean_teacher.threshold_bounds
        if not 0 <= low <= high <= 1:
            raise InputError(f"mean_teacher.threshold_bounds must ascend within [0, 1], they are {low}, {high}")
        if not self.data.short_sides or min(*self.data.short_sides, self.data.max_side) < 1:
            raise InputError("data.short_sides and data.max_side must be positive pixel counts")
        if self.run.evaluate_every and not (self.run.evaluate_annotations and self.run.evaluate_images):
            raise InputError("run.evaluate_every needs run.evaluate_annotations and run.evaluate_images; give them")
        if self.run.evaluate_every < 0:
            raise InputError(f"run.evaluate_every must not be negative, it is {self.run.evaluate_every}")
        for name in ("checkpoint_every", "log_every"):
            if getattr(self.run, name) < 1:
                raise InputError(f"run.{name} must be at least 1, it is {getattr(self.run, name)}")


def read_recipe(argv: Sequence[str], *, prog: str, description: str) -> Recipe:
    """`read_settings` of a whole training run."""
    return read_settings(Recipe, argv, prog=prog, description=description)


def settings_parser(kind: type, *, prog: str, description: str) -> jsonargparse.ArgumentParser:
    """The parser of `read_settings`; help and defaults come from the dataclasses' docstrings."""
    usage = f"{prog} [--config RECIPE.yaml] [--section.key VALUE ...]"  # all the keys would fill a screen
    parser = jsonargparse.ArgumentParser(prog=prog, usage=usage, description=description, exit_on_error=False)
    parser.add_argument("--config", action="config", help="YAML recipe, such as config/recipes/small.yaml")
    parser.add_class_arguments(kind)
    return parser


def read_settings(kind: type[Kind], argv: Sequence[str], *, prog: str, description: str) -> Kind:
    """Settings of `--config FILE.yaml` and any `--section.key value` after it; `--help` lists all keys.

    Args:
        kind: Frozen dataclass with defaults; its fields may be such dataclasses again.
        argv: The options. Where several set a key, the last one counts.
        prog: Name of the script.
        description: What it does.

    Raises:
        InputError: An unknown key (the nearest valid name is given), a value of the wrong type or out of range.

    """
    parser = settings_parser(kind, prog=prog, description=description)
    _check_keys(argv, set(flat(kind())))
    try:
        namespace = parser.parse_args(list(argv))
        return _build(kind, {key: value for key, value in namespace.as_dict().items() if key != "config"})
    except jsonargparse.ArgumentError as error:
        raise InputError(f"{' '.join(str(error).split())}; see {prog} --help") from error


def save_recipe(recipe: Any, path: Path) -> None:
    """Write the recipe with every value of its detector spelled out, as YAML that `--config` reads."""
    tree = _plain(dataclasses.asdict(recipe))
    if isinstance(recipe, Recipe):
        del tree[_OTHER[recipe.detector]]
    write_text(path, yaml.safe_dump(tree, sort_keys=False))


def flat(recipe: Any) -> dict[str, Any]:
    """Every value by its dotted name, lists instead of tuples."""
    return dict(_leaves(_plain(dataclasses.asdict(recipe))))


def _build(cls: type[Kind], tree: Mapping[str, Any]) -> Kind:
    types = typing.get_type_hints(cls)
    values: dict[str, Any] = {}
    for key, value in tree.items():
        if dataclasses.is_dataclass(types[key]):
            values[key] = _build(types[key], value)
        else:
            values[key] = tuple(value) if isinstance(value, list) else value
    return cls(**values)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _check_keys(argv: Sequence[str], valid: set[str]) -> None:
    """Unknown keys of the recipe files and options, before the parser meets them: it knows no nearest name."""
    sections = {name.rpartition(".")[0] for name in valid}
    for place, option in enumerate(argv):
        name, equals, value = option.removeprefix("--").partition("=")
        if not option.startswith("--") or name in ("help", "print_config", "print_shtab"):
            continue
        if name != "config":
            _require_known(name, valid | sections, "the command line")
            continue
        path = Path(value if equals else (argv[place + 1] if place + 1 < len(argv) else ""))
        try:
            tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
        except OSError as error:
            raise InputError(f"cannot read the recipe {path} ({error.strerror}); see config/recipes") from error
        except yaml.YAMLError as error:
            raise InputError(f"{path} is not YAML ({' '.join(str(error).split())}); correct it") from error
        if not isinstance(tree, Mapping):
            raise InputError(f"{path} holds no sections; see config/recipes for an example")
        for key, _ in _leaves(tree):
            _require_known(key, valid, str(path))


def _require_known(name: str, valid: set[str], place: str) -> None:
    if name in valid:
        return
    leaf = name.rpartition(".")[2]
    same_leaf = sorted(key for key in valid if key.rpartition(".")[2] == leaf)
    nearest = same_leaf or difflib.get_close_matches(name, sorted(valid), n=1, cutoff=0)
    raise InputError(f"{place} sets {name}, which does not exist; the nearest name is {nearest[0]}")
