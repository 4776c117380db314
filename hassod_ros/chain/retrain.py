"""Last night's recordings in, a better model out: a short run of commands, each done once."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

import yaml

from hassod_ros.chain.commands import PACKAGES, command, try_words
from hassod_ros.chain.steps import Step, machine, run_steps
from hassod_ros.deploy.gate import GateConfig
from hassod_ros.deploy.registry import ACCEPTED, GATE, IMPORTED, MODEL, NAME, REFUSED, REPORT, Registry, Version
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.checkpoints import read_config
from hassod_ros.discovery.features import load_features
from hassod_ros.errors import InputError
from hassod_ros.export.to_onnx import export_options
from hassod_ros.files import make_folder, revision, sha256, write_json, write_text
from hassod_ros.footage.store import HELD_BACK, IMAGES, INDEX, SHEET, SOURCES, fingerprint
from hassod_ros.images import list_images
from hassod_ros.runtime.model_info import read_model_info
from hassod_ros.runtime.model_names import known_names, resolve_model

LABELS, VERSION, RECIPE, EVIDENCE = "labels.json", "version.json", "recipe.yaml", "evidence.json"
_TRAINED, _START = "burn_in/model.pth", "burn_in/initial.pth"
_MIXED = "model.pth"
_LABELLED_BY = {
    "vote": "the running model and discovery",
    "model": "the running model",
    "discovery": "discovery",
}
_TO_ONNX = ("model.pth", "--out", "model.onnx", "--images", "frames")  # words to try others with
_GATE = ("frames", "--running", "a", "--candidate", "b")
NEW, OLD = "new", "old"  # folders of the training pictures
JUDGED = "judged"  # folder of the old domain's pictures that are not among them
_BLOCKS, _BLOCK = 5, 8  # one of so many blocks of so many pictures, or fewer, is for the gate alone


@dataclass(frozen=True)
class Retrain:
    """What to do.

    Attributes:
        sources: Recordings, videos, folders of images.
        registry: Folder of the registry; made where there is none.
        work: Folder of the steps.
        start: Alias or number of the version to start from, or a model's name or file, which is then registered.
        weights: Checkpoint of that model; default: the one that was registered with it, or the model's own file.
        name: Of the line of models.
        labels: "vote": running model and discovery; "model": the model alone; "discovery": it alone, of a new domain.
        features: Of discovery.
        replay: Pictures of the old domain: training goes on seeing most of them, the gate judges by the others.
        recipe: Of the fine-tuning, such as config/recipes/retrain.yaml.
        changes: NAME=VALUE of the recipe's settings.
        extract: More options of `extract`.
        gate: More options of `gate`.
        keep: Share of the running model in the mean of its weights and the trained ones, in [0, 1].
        export: More options of `to_onnx`.
        nodes: Nodes to roll an accepted model out to.
        rollout: More options of `rollout`.

    """

    sources: tuple[Path, ...]
    registry: Path
    work: Path
    recipe: Path
    start: str = "stable"
    weights: Path | None = None
    name: str = NAME
    labels: Literal["vote", "model", "discovery"] = "vote"
    features: str = "handcrafted"
    replay: Path | None = None
    changes: tuple[str, ...] = ()
    keep: float = 0.7
    extract: tuple[str, ...] = ()
    gate: tuple[str, ...] = ()
    export: tuple[str, ...] = ()
    nodes: tuple[str, ...] = ()
    rollout: tuple[str, ...] = field(default=())


def retrain(task: Retrain, say: Callable[[str], None] = print) -> Version:
    """Do all steps that are not done yet; first say what they are.

    Returns:
        The registered model, accepted or refused.

    Raises:
        InputError: Something given is wrong (as far as it can be told, before the first step), or a step failed. What
            was done is kept.

    """
    for source in task.sources:
        if not source.exists():
            raise InputError(f"{source} does not exist; give a recording, a video or a folder of images")
    if not task.recipe.is_file():
        raise InputError(f"the recipe {task.recipe} does not exist; give its path with --recipe")
    if not 0 <= task.keep <= 1:
        raise InputError(f"keep is a share from 0 to 1, it is {task.keep}")
    if task.replay and not task.replay.is_dir():
        raise InputError(f"{task.replay} is no folder; give one with pictures of the old domain with --replay")
    _check_words(task)
    if task.labels != "model":
        load_features(task.features)  # says what is wrong with them
    running = _running(task)
    _check_precision(task, running)
    steps = plan(task, running)
    if not task.replay:
        say("no --replay: nothing but the gate keeps the model from forgetting its old domain")
    run_steps(steps, until=steps[-1].name, say=say)
    found = json.loads(
        next(step for step in steps if step.name == "register").path(VERSION).read_text(encoding="utf-8")
    )
    return Registry(task.registry).resolve(str(found["number"]), task.name)


def plan(task: Retrain, running: Version) -> list[Step]:
    """The steps in their order."""
    root = task.work
    content = [(path.name, fingerprint(path)) for path in task.sources]  # nights of one name are several
    pictures = fingerprint(task.replay) if task.replay else ""
    weights = task.weights or running.weights or running.model
    extract = _step(
        root,
        "extract",
        f"select frames of {', '.join(map(str, task.sources))}",
        {"sources": content, "options": task.extract},
        (),
        (INDEX, SOURCES),
        partial(_extract, task),
    )
    labels = _step(
        root,
        "labels",
        f"label them by {_LABELLED_BY[task.labels]}",
        {
            "labels": task.labels,
            "features": task.features,
            "running": running.sha256,
            "replay": pictures,
            "judged": [_BLOCKS, _BLOCK] if task.replay else [],
        },
        (extract,),
        (LABELS,),
        partial(_label, task, running, extract),
        PACKAGES["pseudo_label"],
    )
    train = _step(
        root,
        "train",
        f"fine-tune {running}",
        {"weights": sha256(weights), "recipe": sha256(task.recipe), "changes": task.changes},
        (extract, labels),
        (_TRAINED,),
        partial(_train, task, weights, labels),
        PACKAGES["detector"],
    )
    mix = _step(
        root,
        "average",
        f"average the weights: {task.keep:.0%} of {running}, the rest of the trained ones",
        {"keep": task.keep},
        (train,),
        (_MIXED,),
        partial(_average, task, weights, train),
        PACKAGES["detector"],
    )
    export = _step(
        root,
        "export",
        "write the ONNX file, with its gate of parity",
        {"like": running.sha256, "options": task.export},
        (labels, mix),
        (MODEL,),
        partial(_export, task, running, extract, mix),
        PACKAGES["to_onnx"],
    )
    gate = _step(
        root,
        "gate",
        f"judge it against {running} on held-back frames",
        {"running": running.sha256, "replay": pictures, "options": task.gate},
        (extract, labels, export),
        (GATE, REPORT),
        partial(_gate, task, running, extract, labels, export),
    )
    register = _step(
        root,
        "register",
        f"register it in {task.registry}",
        {"registry": str(task.registry.resolve()), "name": task.name},
        (gate,),
        (VERSION,),
        partial(_register, task, running, extract, train, mix, export, gate),
    )
    steps = [extract, labels, train, mix, export, gate, register]
    if task.nodes:
        about = f"roll it out to {len(task.nodes)} nodes, if it was accepted"
        settings = {"nodes": task.nodes, "options": task.rollout}
        steps.append(
            _step(root, "rollout", about, settings, (register,), ("done.txt",), partial(_roll_out, task, register))
        )
    return steps


def _step(
    root: Path,
    name: str,
    about: str,
    settings: Mapping[str, Any],
    needs: tuple[Step, ...],
    outputs: tuple[str, ...],
    run: Callable[[Path], None],
    packages: tuple[str, ...] = (),
) -> Step:
    return Step(name, about, root, settings, needs, outputs, run, packages)


def _check_words(task: Retrain) -> None:
    """Try what is handed on to later steps on their parsers: hours before these steps would say so."""
    from hassod_ros.learning.config import read_recipe

    for verb, needed, words in (
        ("extract", ("recording", "--out", "frames"), task.extract),
        ("to_onnx", _TO_ONNX, task.export),
        ("gate", _GATE, task.gate),
        ("rollout", ("--registry", "models", "--version", "1", "--nodes", "node"), task.rollout),
    ):
        found = try_words(verb, (*needed, *words))
        if verb == "to_onnx":
            export_options(found)  # says what does not go together
    read_recipe(["--config", str(task.recipe), *_settings(task)], prog="detector", description="")


def _check_precision(task: Retrain, running: Version) -> None:
    """See that the new model is not refused for the precision that it is exported in."""
    own, new = read_model_info(running.model).precision, try_words("to_onnx", (*_TO_ONNX, *task.export)).precision
    allowed = getattr(try_words("gate", (*_GATE, *task.gate)), "config.latency")
    if own != "fp32" == new and allowed <= GateConfig().latency:
        raise InputError(
            f"{running} is {own}, and the new model would be fp32, which the gate refuses as too slow; start from its "
            f"float export, or give --export='--precision {own} --annotations FILE --annotated-images FOLDER'"
        )


def _settings(task: Retrain) -> list[str]:
    """The recipe's changes as options of `detector`."""
    return [word for change in task.changes for word in (f"--{change.partition('=')[0]}", change.partition("=")[2])]


def _running(task: Retrain) -> Version:
    """The version to start from, which can be trained; a model file, or the shipped model, is registered first."""
    if task.start in known_names() or Path(task.start).is_file():
        file = resolve_model(task.start)
        read_model_info(file)
        _check_weights(task, Path(file), task.start)
        registry = Registry(task.registry, create=True)
        version = registry.register(file, name=task.name, status=IMPORTED, weights=task.weights)
        if not registry.aliases(task.name):
            registry.set_alias("stable", version, why="first model")
        return version
    version = Registry(task.registry).resolve(task.start, task.name)
    version.check()
    _check_weights(task, version.weights or version.model, str(version))
    return version


def _check_weights(task: Retrain, own: Path, name: str) -> None:
    """See that training can start from `--weights`, or from the model's own."""
    try:
        _network(task, task.weights or own)
    except InputError as error:
        raise InputError(
            f"{name} cannot be trained further without its checkpoint ({error}); give that with --weights"
        ) from error


def _extract(task: Retrain, folder: Path) -> None:
    command("extract", *task.sources, "--out", folder, "--hold-back", 0.2, *task.extract)
    for place, lacks in ((IMAGES, "no frame"), (HELD_BACK, "no pair of frames that differs from those to train on")):
        if not any((folder / place).glob("*/*")):
            raise InputError(
                f"extract left {lacks} in {place}, see {folder / SHEET}; give more recordings, or let it keep more, "
                "such as --extract='--bright 1 --dark 1 --novelty 0'"
            )


def _label(task: Retrain, running: Version, extract: Step, folder: Path) -> None:
    pool = folder / "pool"
    _link(pool / NEW, extract.path(IMAGES))
    if task.replay:
        pictures = list_images(task.replay)
        judged = judged_pictures(pictures)
        for each in pictures:
            _link((folder / JUDGED if each in judged else pool / OLD) / each.relative_to(task.replay), each)
    discovered = folder / "discovered.json" if task.labels != "model" else None
    if discovered and not discovered.is_file():
        command("pseudo_label", "--images", pool / NEW, "--features", task.features, "--out", discovered)
    from hassod_ros.chain.voted_labels import label  # the packages were looked for

    print(label(pool, running.model, discovered, folder / LABELS, new=NEW, alone=task.labels == "discovery"))


def judged_pictures(pictures: Sequence[Path]) -> set[Path]:
    """Pictures of the old domain that the gate judges by, as no model is judged by what it has learned from.

    One block of neighbours in five, as pictures in a row may show the same; none where there are fewer than five.
    """
    blocks = max(_BLOCKS, len(pictures) // _BLOCK)
    if len(pictures) < _BLOCKS:
        return set()
    return {each for i, each in enumerate(pictures) if i * blocks // len(pictures) % _BLOCKS == _BLOCKS // 2}


def _link(place: Path, source: Path) -> None:
    if place.exists():
        return
    make_folder(place.parent)
    try:
        place.unlink(missing_ok=True)  # to where the source was before
        place.symlink_to(source.resolve())
    except OSError as error:
        raise InputError(f"{place} cannot be written ({error.strerror}); free some space, or unlock it") from error


def _network(task: Retrain, weights: Path) -> DetectorConfig:
    """The network of a checkpoint; an exported file names the recipe that its network is in.

    Raises:
        InputError: The file cannot be read, does not say, or holds no cascade.

    """
    if weights.suffix != ".onnx":
        config = read_config(weights)
        if not isinstance(config, DetectorConfig):
            raise InputError(f"{weights} holds no cascade, which is all that is retrained; give the weights of one")
        return config
    info = read_model_info(weights)
    if info.precision == "int8":
        raise InputError(f"{weights} is int8, start from its float export, such as default-fp32")
    named = task.recipe.parent / f"{info.recipe}.yaml"
    if not named.is_file():
        raise InputError(f"{weights} does not say which network it holds")
    return DetectorConfig(**yaml.safe_load(named.read_text(encoding="utf-8")).get("model", {}))


def _train(task: Retrain, weights: Path, labels: Step, folder: Path) -> None:
    recipe = yaml.safe_load(task.recipe.read_text(encoding="utf-8")) or {}
    # The network is the running model's, whatever the recipe says; what is only a habit of training stays.
    recipe["model"] = json.loads(json.dumps(dataclasses.asdict(_network(task, weights))))
    write_text(folder / RECIPE, yaml.safe_dump(recipe))
    command(
        "detector",
        *("--config", folder / RECIPE),
        *("--data.images", labels.path("pool"), "--data.annotations", labels.path(LABELS)),
        *("--burn_in.initial", weights, "--run.output", folder),
        *_settings(task),
    )


def _average(task: Retrain, weights: Path, train: Step, folder: Path) -> None:
    start = train.path(_START) if weights.suffix == ".onnx" else weights
    shares = ("--shares", task.keep, 1 - task.keep)
    command("average", "--checkpoints", start, train.path(_TRAINED), *shares, "--out", folder / _MIXED)


def _export(task: Retrain, running: Version, extract: Step, mix: Step, folder: Path) -> None:
    from hassod_ros.detection.cascade.onnx_weights import sampling_ratio_of

    info = read_model_info(running.model)
    evidence: tuple[str | Path, ...] = ()
    if info.evidence is not None:
        write_json(folder / EVIDENCE, dataclasses.asdict(info.evidence))
        evidence = ("--evidence", folder / EVIDENCE)
    command(
        "to_onnx",
        *(mix.path(_MIXED), "--out", folder / MODEL, "--images", extract.path(IMAGES)),
        *("--size", "x".join(map(str, info.input_size)), "--score-thresholds", *info.score_thresholds),
        *("--proposals", info.proposals, "--detections", info.detections, "--nms", info.nms_threshold),
        *("--mask-threshold", info.mask_threshold, "--sampling-ratio", sampling_ratio_of(running.model)),
        *("--levels", info.level_source),
        *("--parent-coverage", info.parent_coverage, "--color-weight", info.color_weight),
        *(("--rpn-nms", info.rpn_nms) if info.rpn_nms else ()),  # else as trained
        *evidence,
        *("--recipe", task.recipe.stem),
        *task.export,
    )


def _gate(task: Retrain, running: Version, extract: Step, labels: Step, export: Step, folder: Path) -> None:
    judged = labels.path(JUDGED)
    pictures = ("--pictures", judged) if judged.is_dir() else ()
    models = ("--running", running.model, "--candidate", export.path(MODEL))
    command("gate", extract.path(HELD_BACK), *models, *pictures, "--out", folder, *task.gate, accept=(0, 1))


def _register(
    task: Retrain, running: Version, extract: Step, train: Step, mix: Step, export: Step, gate: Step, folder: Path
) -> None:
    verdict = json.loads(gate.path(GATE).read_text(encoding="utf-8"))
    sources = json.loads(extract.path(SOURCES).read_text(encoding="utf-8"))
    provenance = {
        **sources,
        "labels": task.labels,
        "features": task.features,
        "replay": str(task.replay or ""),
        "recipe": (train.folder / RECIPE).read_text(encoding="utf-8"),
        "changes": task.changes,
        "keep": task.keep,
        "revision": revision(),
        "machine": machine(),
    }
    version = Registry(task.registry).register(
        export.path(MODEL),
        name=task.name,
        status=ACCEPTED if verdict["accepted"] else REFUSED,
        reason=verdict["reason"],
        parent=running,
        provenance=provenance,
        gate=verdict,
        report=gate.path(REPORT),
        weights=mix.path(_MIXED),
    )
    print(f"{version} is {version.status}" + (f": {version.record['reason']}" if version.record["reason"] else ""))
    write_json(folder / VERSION, {"number": version.number})


def _roll_out(task: Retrain, register: Step, folder: Path) -> None:
    number = json.loads(register.path(VERSION).read_text(encoding="utf-8"))["number"]
    if Registry(task.registry).resolve(str(number), task.name).status == REFUSED:
        print("it was refused, so the nodes keep what they run")
    else:
        where = ("--registry", task.registry, "--name", task.name, "--version", number)
        command("rollout", *where, "--nodes", *task.nodes, *task.rollout)
    write_text(folder / "done.txt", f"{number}\n")
