"""The default model from photographs: pool, features, pseudo-labels, burn-in, Mean Teacher, self-training, export."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from hassod_ros.chain.steps import Step, run_steps
from hassod_ros.discovery.features.base import TINY
from hassod_ros.discovery.hassod import HassodConfig
from hassod_ros.discovery.method import change, parse_option
from hassod_ros.errors import InputError
from hassod_ros.files import sha256
from hassod_ros.images import list_images
from hassod_ros.learning.config import MeanTeacherConfig, Recipe, RelabelConfig, StageConfig, flat
from hassod_ros.learning.pool import INDEX, shrink
from hassod_ros.learning.pretraining.config import PretrainConfig

LABELS, MODEL, INT8, SCORES = "labels.json", "model.onnx", "model_int8.onnx", "scores.json"
_FEATURES, _BURN_IN, _MEAN_TEACHER = "features.safetensors", "burn_in/model.pth", "mean_teacher/model.pth"
_AVERAGE = "model.pth"
# What steps import when they begin.
_DISCOVERY = ("ray", "numba", "scipy", "pycocotools")
_TRAINING = ("pycocotools", "tensorboard")
_EXPORT = ("onnx", "onnxscript")


@dataclass(frozen=True)
class PoolConfig:
    """The photographs.

    Attributes:
        photos: Folder, or text file with one path a line.
        max_side: Most pixels of a photograph's longer side; what training sees of it.
        quality: Of JPEG, 1 to 100.
        megabytes: Largest size of the pool.

    """

    photos: str = ""
    max_side: int = 320
    quality: int = 80
    megabytes: int = 60


@dataclass(frozen=True)
class LabelConfig:
    """The pseudo-labels.

    Attributes:
        features: tiny: pre-trained first; handcrafted: no pre-training; tiny+handcrafted; or the name of a ViT.
        weights: File of features' weights; tiny is then not pre-trained.
        set: NAME=VALUE of the method's settings, such as filters.duplicate_iou=0.9.
        cpus: CPUs to use; null: all.

    """

    features: str = TINY
    weights: str = ""
    set: tuple[str, ...] = ()
    cpus: int | None = None


@dataclass(frozen=True)
class SelfTrainingConfig:
    """Rounds after the first one: the detector labels the pool anew and learns from that.

    Attributes:
        rounds: Times that the detector labels the pool anew and learns from that.
        short_sides: Shorter side of a training view in pixels, one drawn for each picture; empty: data.short_sides.
        max_side: Most pixels of the longer side; null: data.max_side.
        average: Export the mean of these rounds' burn-ins and Mean Teachers instead of the last one.
        relabel: How a detector's findings become labels.
        burn_in: Of each round; starts from the weights of the round before.
        mean_teacher: Of each round.

    """

    rounds: int = 0
    short_sides: tuple[int, ...] = ()
    max_side: int | None = None
    average: bool = False
    relabel: RelabelConfig = field(default_factory=RelabelConfig)
    burn_in: StageConfig = field(default_factory=StageConfig)
    mean_teacher: MeanTeacherConfig = field(default_factory=MeanTeacherConfig)


@dataclass(frozen=True)
class ExportConfig:
    """The exported model.

    Attributes:
        size: Height and width of the model's input in pixels, multiples of 32.
        proposals: Regions that go through the stages.
        detections: Most detections of a picture.
        score_thresholds: Recommended least scores of wholes, parts and subparts, in [0, 1].
        rpn_nms: IoU from which proposals exclude each other; null: as trained.
        nms: IoU from which detections exclude each other; null: as trained.
        sampling_ratio: Samples along each side of a pooled cell, 0: by its size; null: as trained.
        mask_threshold: Probability from which a pixel belongs to a mask; null: as trained.
        level_source: Who tells levels: the level head, or what masks cover.
        color_weight: How far outlines follow the picture's colours; 0: not.
        cover: Share of a mask that its parent must contain, in [0, 1].
        store_half: Keep the weights of the float32 file as float16; needs an annotated set.
        int8: Write a second, faster file; needs an annotated set.
        int8_size: Height and width of that file's input in pixels (being faster, it can afford more); null: size.
        int8_proposals: Regions that go through its stages.
        int8_detections: Most detections of a picture.
        int8_score_thresholds: Its recommended least scores; null: score_thresholds.

    """

    size: tuple[int, int] = (480, 640)
    proposals: int = 300
    detections: int = 50
    score_thresholds: tuple[float, float, float] = (0.5, 0.5, 0.5)
    rpn_nms: float | None = None
    nms: float | None = None
    sampling_ratio: int | None = None
    mask_threshold: float | None = None
    level_source: Literal["head", "coverage"] = "head"
    color_weight: float = 0.0
    cover: float = 0.75
    store_half: bool = False
    int8: bool = True
    int8_size: tuple[int, int] | None = None
    int8_proposals: int = 100
    int8_detections: int = 50
    int8_score_thresholds: tuple[float, float, float] | None = None


@dataclass(frozen=True)
class DevConfig:
    """An annotated set to measure on; nothing is learned from it. Without one there is no int8 file and no report.

    Attributes:
        annotations: COCO file of the annotated set; nothing is learned from it.
        images: Folder of its pictures.
        count: Pictures of the report, evenly spread; 0: all.

    """

    annotations: str = ""
    images: str = ""
    count: int = 0


@dataclass(frozen=True)
class DefaultModelRecipe(Recipe):
    """Everything that the default model is made of.

    Attributes:
        pool: The photographs.
        features: Pre-training of the features.
        labels: The pseudo-labels.
        self_training: Rounds after the first one.
        export: The exported model.
        dev: An annotated set to measure on.
        processes: Processes that train together on this machine, as by torchrun: one for each GPU, or each core.
        until: Last step to do; empty: all.

    """

    pool: PoolConfig = field(default_factory=PoolConfig)
    features: PretrainConfig = field(default_factory=PretrainConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)
    self_training: SelfTrainingConfig = field(default_factory=SelfTrainingConfig)
    export: ExportConfig = field(default_factory=ExportConfig)
    dev: DevConfig = field(default_factory=DevConfig)
    processes: int = 1
    until: str = ""


def make_default_model(recipe: DefaultModelRecipe, say: Callable[[str], None] = print) -> dict[str, Path]:
    """Do all steps that are not done yet, in `run.output`.

    Returns:
        Folder of each step that is done, by its name.

    Raises:
        InputError: Something given is wrong (as far as it can be told, before the first step), or a step's gate is not
            passed. What was done is kept.

    """
    steps = plan(recipe)
    run_steps(steps, until=recipe.until or steps[-1].name, say=say)
    return {step.name: step.folder for step in steps if step.done}


def plan(recipe: DefaultModelRecipe) -> list[Step]:
    """The steps of a recipe in their order.

    Raises:
        InputError: See `make_default_model`.

    """
    _check(recipe)
    root = Path(recipe.run.output)
    values = flat(recipe)

    def chosen(*prefixes: str) -> dict[str, Any]:
        return {name: value for name, value in values.items() if name.startswith(prefixes)}

    pool = Step(
        "pool",
        f"photographs of {recipe.pool.photos} at {recipe.pool.max_side} pixels",
        root,
        {**chosen("pool.max_side", "pool.quality"), "photographs": _fingerprint(recipe.pool.photos)},
        (),
        (INDEX,),
        partial(_make_pool, recipe),
    )
    steps = [pool]
    config = dataclasses.replace(
        recipe.features, images=str(pool.path("images")), seed=recipe.run.seed, device=recipe.run.device
    )
    features: Step | None = None
    if TINY in recipe.labels.features.split("+") and not recipe.labels.weights:
        about = f"pre-train a ViT-Ti/{config.patch_size}, {config.iterations} steps of {config.batch_size} photographs"
        run = partial(_pretrain, config)
        features = Step("features", about, root, config.settings(), (pool,), (_FEATURES,), run, ("lightly", "timm"))
        steps.append(features)
    labels = Step(
        "labels",
        f"label the pool with {recipe.labels.features} features",
        root,
        {
            **chosen("labels.features", "labels.set"),
            "weights": sha256(recipe.labels.weights) if recipe.labels.weights else "",
        },
        (pool, features) if features else (pool,),
        (LABELS,),
        partial(_label, recipe, pool, features),
        _DISCOVERY,
    )
    steps.append(labels)
    learned = chosen("model.", "data.", "run.seed", "run.deterministic", "processes")
    settings = learned | chosen("burn_in."), learned | chosen("mean_teacher.")
    steps += _stages(recipe, root, settings, pool, labels)
    learned |= chosen("self_training.short_sides", "self_training.max_side")
    settings = learned | chosen("self_training.burn_in."), learned | chosen("self_training.mean_teacher.")
    self_trained: list[Step] = []
    for number in range(2, 2 + recipe.self_training.rounds):
        detector = steps[-1]
        relabel = Step(
            f"relabel_{number}",
            "label the pool with that detector",
            root,
            chosen("self_training.relabel."),
            (pool, detector),
            (LABELS,),
            partial(_relabel, recipe, pool, detector),
        )
        again = _next_round(recipe, number, detector)
        stages_of_round = _stages(again, root, settings, pool, relabel, detector, f"_{number}")
        self_trained += stages_of_round
        steps += [relabel, *stages_of_round]
    detector, checkpoint = steps[-1], _MEAN_TEACHER
    if recipe.self_training.average and self_trained:
        needs, checkpoint = tuple(self_trained), _AVERAGE
        about = "average the weights of these rounds' stages"
        detector = Step("average", about, root, {}, needs, (_AVERAGE,), partial(_average, needs))
        steps.append(detector)
    height, width = recipe.export.size
    exported = {name: value for name, value in chosen("export.").items() if name != "export.int8"}
    float32 = {name: value for name, value in exported.items() if not name.startswith("export.int8_")}
    export = Step(
        "export",
        f"ONNX for {width}x{height} pictures, with its gate",
        root,
        float32,
        (pool, detector),
        (MODEL,),
        partial(_export, recipe, pool, detector.path(checkpoint), "fp32"),
        _EXPORT,
    )
    steps.append(export)
    if not recipe.dev.annotations:
        return steps
    dev = {"annotations": sha256(recipe.dev.annotations)}
    report = Step(
        "report",
        f"score the model and its pseudo-labels' method on {recipe.dev.annotations}",
        root,
        {**dev, **chosen("dev.count")},
        (labels, export),
        (SCORES,),
        partial(_report, recipe, features, export),
    )
    steps.append(report)
    if recipe.export.int8:  # last: its gate is the one that a good model may fail
        int8 = Step(
            "export_int8",
            "the same in int8, with its gate; without it: --export.int8 false",
            root,
            exported | dev,
            (pool, detector),
            (INT8,),
            partial(_export, recipe, pool, detector.path(checkpoint), "int8"),
            _EXPORT,
        )
        steps.append(int8)
    return steps


def _stages(
    recipe: DefaultModelRecipe,
    root: Path,
    settings: tuple[dict[str, Any], dict[str, Any]],
    pool: Step,
    labels: Step,
    start: Step | None = None,
    suffix: str = "",
) -> list[Step]:
    """Burn-in, from the weights of `start` where there is one, and Mean Teacher."""
    burn_in = Step(
        f"burn_in{suffix}",
        f"train {recipe.model.backbone} on these labels, {recipe.burn_in.iterations} iterations",
        root,
        settings[0],
        (pool, labels, start) if start else (pool, labels),
        (_BURN_IN,),
        partial(_burn_in, recipe, pool, labels),
        _TRAINING,
    )
    mean_teacher = Step(
        f"mean_teacher{suffix}",
        f"Mean Teacher, {recipe.mean_teacher.iterations} iterations",
        root,
        settings[1],
        (pool, labels, burn_in),
        (_MEAN_TEACHER,),
        partial(_mean_teacher, recipe, pool, labels, burn_in),
        _TRAINING,
    )
    return [burn_in, mean_teacher]


def _next_round(recipe: DefaultModelRecipe, number: int, last: Step) -> DefaultModelRecipe:
    """The recipe of round `number`, 2 or more: other pictures, stages and seed, the weights of the round before."""
    data, other = recipe.data, recipe.self_training
    return dataclasses.replace(
        recipe,
        data=dataclasses.replace(
            data, short_sides=other.short_sides or data.short_sides, max_side=other.max_side or data.max_side
        ),
        burn_in=dataclasses.replace(other.burn_in, initial=str(last.path(_MEAN_TEACHER))),
        mean_teacher=other.mean_teacher,
        run=dataclasses.replace(recipe.run, seed=recipe.run.seed + number - 1),
    )


def _check(recipe: DefaultModelRecipe) -> None:
    """Everything that can be wrong before hours of work."""
    if not recipe.pool.photos:
        raise InputError("the default model needs photographs; give their folder or list with --pool.photos")
    starts = [f"{stage}.initial" for stage in ("mean_teacher", "self_training.burn_in", "self_training.mean_teacher")]
    for name in ("data.images", "data.annotations", "features.images", *starts):
        if flat(recipe)[name]:
            raise InputError(f"{name} is made by the chain itself; leave it out")
    if recipe.labels.weights and not Path(recipe.labels.weights).is_file():
        raise InputError(f"labels.weights {recipe.labels.weights} does not exist; check the path, or leave it out")
    _label_config(recipe)
    if recipe.processes < 1:
        raise InputError(f"processes must be at least 1, got {recipe.processes}")
    if recipe.dev.annotations and not Path(recipe.dev.annotations).is_file():
        raise InputError(f"dev.annotations {recipe.dev.annotations} does not exist; check the path")
    if recipe.dev.annotations and not (recipe.dev.images and Path(recipe.dev.images).is_dir()):
        raise InputError(f"dev.images {recipe.dev.images!r} is no folder; give that of dev.annotations' pictures")
    if recipe.export.store_half and not recipe.dev.annotations:
        raise InputError(
            "export.store_half needs dev.annotations, to measure what it loses; give them or set it to false"
        )
    for name in ("size", "int8_size"):
        sides = getattr(recipe.export, name)
        if sides and any(side < 32 or side % 32 for side in sides):
            raise InputError(f"export.{name} must be multiples of 32, it is {list(sides)}")


def _fingerprint(photos: str) -> str:
    """Of the files' names and contents, wherever they lie."""
    digest = hashlib.sha256()
    try:
        for path in list_images(photos):
            digest.update(f"{path.name} {sha256(path)}\n".encode())
    except OSError as error:
        raise InputError(f"{error.filename} cannot be read ({error.strerror}); correct {photos}") from error
    return digest.hexdigest()


def _label_config(recipe: DefaultModelRecipe) -> HassodConfig:
    return change(HassodConfig(), dict(map(parse_option, recipe.labels.set)))


def _weights(recipe: DefaultModelRecipe, features: Step | None) -> Path | None:
    """File of the features' weights, where they have one."""
    if features:
        return features.path(_FEATURES)
    return Path(recipe.labels.weights) if recipe.labels.weights else None


def _device(recipe: DefaultModelRecipe) -> str | None:
    return None if recipe.run.device == "auto" else recipe.run.device


# The rooms below load torch, Ray and lightly: each when its step is due, so that a machine needs what its steps need.


def _make_pool(recipe: DefaultModelRecipe, folder: Path) -> None:
    pool = recipe.pool
    made = shrink(pool.photos, folder, max_side=pool.max_side, quality=pool.quality, megabytes=pool.megabytes)
    print(f"{made['photographs']} photographs, {made['bytes'] / 1e6:.1f} MB, {len(made['left_out'])} left out")


def _pretrain(config: PretrainConfig, folder: Path) -> None:
    from hassod_ros.learning.pretraining.run import pretrain

    pretrain(dataclasses.replace(config, output=str(folder)))


def _label(recipe: DefaultModelRecipe, pool: Step, features: Step | None, folder: Path) -> None:
    import ray

    from hassod_ros.discovery.pseudo_label import Request, pseudo_label

    device = _device(recipe)
    summary = pseudo_label(
        Request(
            images=pool.path("images"),
            out=folder / LABELS,
            options=dict(map(parse_option, recipe.labels.set)),
            features=recipe.labels.features,
            weights=_weights(recipe, features),
            device=device and device.partition(":")[0],  # Ray chooses which GPU
            cpus=recipe.labels.cpus,
        )
    )
    ray.shutdown()  # its processes hold memory that training needs
    print(summary)


def _detector_recipe(recipe: DefaultModelRecipe, pool: Step, labels: Step, folder: Path) -> Recipe:
    return Recipe(
        model=recipe.model,
        data=dataclasses.replace(recipe.data, images=str(pool.path("images")), annotations=str(labels.path(LABELS))),
        burn_in=recipe.burn_in,
        mean_teacher=recipe.mean_teacher,
        run=dataclasses.replace(recipe.run, output=str(folder)),
    )


def _relabel(recipe: DefaultModelRecipe, pool: Step, detector: Step, folder: Path) -> None:
    from hassod_ros.learning.relabel import relabel

    summary = relabel(
        pool.path("images"),
        detector.path(_MEAN_TEACHER),
        folder / LABELS,
        recipe.self_training.relabel,
        processes=max(recipe.processes, recipe.run.workers),  # one GPU serves many; outlines are the CPU's work
        device=recipe.run.device,
    )
    print(summary)


def _burn_in(recipe: DefaultModelRecipe, pool: Step, labels: Step, folder: Path) -> None:
    from hassod_ros.learning.stages import burn_in
    from hassod_ros.learning.together import train_together

    train_together(burn_in, _detector_recipe(recipe, pool, labels, folder), recipe.processes)


def _mean_teacher(recipe: DefaultModelRecipe, pool: Step, labels: Step, burn_in: Step, folder: Path) -> None:
    from hassod_ros.learning.stages import mean_teacher
    from hassod_ros.learning.together import train_together

    whole = _detector_recipe(recipe, pool, labels, folder)
    stage = dataclasses.replace(recipe.mean_teacher, initial=str(burn_in.path(_BURN_IN)))
    train_together(mean_teacher, dataclasses.replace(whole, mean_teacher=stage), recipe.processes)


def _average(stages: Sequence[Step], folder: Path) -> None:
    from hassod_ros.detection.checkpoints import save_weights
    from hassod_ros.learning.averaging import average

    save_weights(average([stage.path(stage.outputs[0]) for stage in stages]), folder / _AVERAGE)


def _export(recipe: DefaultModelRecipe, pool: Step, checkpoint: Path, precision: str, folder: Path) -> None:
    from hassod_ros.deploy.onnx_export import ExportOptions, export_onnx
    from hassod_ros.detection.checkpoints import open_detector, read_config

    wanted, full = recipe.export, precision == "fp32"
    options = ExportOptions(
        input_size=wanted.size if full else wanted.int8_size or wanted.size,
        images=pool.path("images"),
        proposals=wanted.proposals if full else wanted.int8_proposals,
        detections=wanted.detections if full else wanted.int8_detections,
        precision=precision,
        store_half=wanted.store_half and full,
        annotations=recipe.dev.annotations or None,
        annotated_images=recipe.dev.images or None,
        recipe="default_model",
        score_thresholds=wanted.score_thresholds if full else wanted.int8_score_thresholds or wanted.score_thresholds,
        level_source=wanted.level_source,
        cover=wanted.cover,
        color_weight=wanted.color_weight,
    )
    config = read_config(checkpoint).changed(
        rpn_nms=wanted.rpn_nms,
        nms=wanted.nms,
        mask_threshold=wanted.mask_threshold,
        sampling_ratio=wanted.sampling_ratio,
    )
    name = MODEL if full else INT8
    export_onnx(open_detector(checkpoint, config), folder / name, options, weights_sha256=sha256(checkpoint))


def _report(recipe: DefaultModelRecipe, features: Step | None, export: Step, folder: Path) -> None:
    from hassod_ros.discovery.features import load_features
    from hassod_ros.discovery.hassod import discover
    from hassod_ros.evaluation.annotations import AnnotatedSet, load_annotations, parse_predictions
    from hassod_ros.evaluation.evaluate import evaluate
    from hassod_ros.evaluation.predict import Finder, open_exported, predict
    from hassod_ros.evaluation.report import clean, write_report
    from hassod_ros.evaluation.tables import format_table
    from hassod_ros.files import write_json

    annotated = load_annotations(recipe.dev.annotations)
    pictures = annotated.pictures
    if recipe.dev.count:
        annotated = AnnotatedSet(
            pictures[:: max(1, len(pictures) // recipe.dev.count)][: recipe.dev.count], annotated.has_masks
        )
    patches = load_features(recipe.labels.features, _weights(recipe, features), _device(recipe))
    finders: dict[str, Finder] = {
        "labels": partial(discover, features=patches, config=_label_config(recipe)),
        "model": open_exported(export.path(MODEL)),
    }
    scores = {}
    for name, find in finders.items():
        predictions = parse_predictions(predict(find, annotated, recipe.dev.images, label=name), annotated)
        scores[name] = evaluate(annotated, predictions)
        page = write_report(
            folder / name,
            scores[name],
            annotated,
            predictions,
            images=recipe.dev.images,
            title=f"default model: {name}",
        )
        print(f"{name}: {page}")
    kind = "mask" if annotated.has_masks else "box"
    rows = {name: {**found[kind], "nested": found[kind]["parents"]["accuracy"]} for name, found in scores.items()}
    print(format_table(rows, ("AR@10", "AR@100", "AP", "best_iou@100", "nested"), corner=f"{kind}, per cent"))
    first, last = (rows[name]["AR@100"] for name in ("labels", "model"))
    if first > 0:
        print(f"AR@100 of the model is {last / first:.2f} times that of the method of its first labels")
    write_json(folder / SCORES, clean(scores), indent=1)
