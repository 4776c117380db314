"""Foreground methods side by side on the same features: figures, seconds an image, memory; ablations.

Each picture's features are computed once for all methods. What is learned and each picture's figures are kept in --out:
a run that was stopped goes on when the same command is given again.

Example:
    python benchmarks/foreground.py --learn PHOTOS --out runs/foreground --features vit_small_patch16_224.dino \
        --saliency ECSSD --corloc VOC2012 --segmentation VOC2012
    python benchmarks/foreground.py --learn PHOTOS --out runs/ablation --ablate --saliency ECSSD --set crf=null

"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from tqdm import tqdm

from hassod_ros import commands
from hassod_ros.coco import read_json
from hassod_ros.discovery.features.remembered import Remembered
from hassod_ros.discovery.hassod import HassodConfig, resize, working_size
from hassod_ros.discovery.lightcluster import LEVELS, nearest
from hassod_ros.discovery.method import LEARNERS, Learner, change, make_method, parse_option
from hassod_ros.discovery.regions import spread_into, vectors_of
from hassod_ros.discovery.states import State, describe, load_state, save_state
from hassod_ros.errors import InputError
from hassod_ros.evaluation.corloc import box_of_map, corloc, overlaps
from hassod_ros.evaluation.foreground_baselines import BASELINES, plain_kmeans
from hassod_ros.evaluation.foreground_methods import load, open_method
from hassod_ros.evaluation.foreground_sets import ExampleSet, load_boxes, load_classes, load_masks
from hassod_ros.evaluation.saliency import mean_scores, score_map
from hassod_ros.evaluation.segmentation import confusion, score_clusters
from hassod_ros.evaluation.tables import format_table
from hassod_ros.files import revision, sha256, write_json
from hassod_ros.images import name_images, read_image

Maps = Callable[
    [np.ndarray], tuple[np.ndarray, np.ndarray | None]
]  # image -> foreground, and classes where it knows any
TASKS: Mapping[str, Callable[..., ExampleSet]] = {
    "saliency": load_masks,
    "corloc": load_boxes,
    "segmentation": load_classes,
}
KMEANS = "k-means"
# Rows of --ablate: what differs from the method as it is.
HEAP_ABLATION: Mapping[str, Mapping[str, Any]] = {
    "heap, 4 tokens": {"head.tokens": 4},
    "heap, 16 tokens": {"head.tokens": 16},
    "heap, no intra-image": {"head.intra": 0},
    "heap, no contrast": {"head.neg": 0},
    "heap, no inter-image": {"head.inter": 0},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; the status is that of `commands.run`."""
    options = _parser().parse_args(arguments)
    return commands.run("foreground", lambda: _run(options))


def _run(options: argparse.Namespace) -> None:
    given = {task: getattr(options, task) for task in TASKS if getattr(options, task)}
    if not given:
        raise InputError("give a set with --saliency, --corloc or --segmentation")
    features = Remembered(load(options.features, options.weights))
    settings = dict(map(parse_option, options.set))
    states = dict(text.split("=", 1) for text in options.state)
    if options.learn:
        states |= _learn(options, features, settings)
    finders = _finders(states, features, settings)
    figures: dict[str, Any] = {"code": revision(), "features": describe(features), "settings": settings}
    contents = {name: sha256(path) for name, path in states.items()}
    for task, text in given.items():
        path, _, images = text.partition(":")
        examples = TASKS[task](Path(path), Path(images) if images else None)
        chosen = examples.examples
        if options.images and options.images < len(chosen):
            chosen = [chosen[i] for i in np.linspace(0, len(chosen) - 1, options.images).astype(int)]
        note = {**{key: figures[key] for key in ("features", "settings")}, "states": contents, "set": text}
        _belongs(options.out / task / "made_with.json", note)
        rows = [
            _row(options.out / task / f"{each.name}.json", task, each, finders, features, examples.classes)
            for each in tqdm(chosen, desc=task, unit="image")
        ]
        figures[task] = _scores(task, rows, [each.truth for each in chosen])
        print(f"\n{task}, {features.name}: {len(chosen)} images of {path}; CPU seconds an image")
        columns = {column: None for row in figures[task].values() for column in row}
        print(format_table(figures[task], columns))
        if task != "segmentation":
            print(_compare(task, rows, [each.truth for each in chosen]))
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")
    write_json(options.out / "figures.json", figures, indent=1)


def _learn(options: argparse.Namespace, features: Remembered, settings: dict[str, Any]) -> dict[str, str]:
    """States of both methods, of their variants where asked for, and of k-means; those that exist are left alone."""
    variants: dict[str, tuple[str, Mapping[str, Any]]] = {name: (name, {}) for name in LEARNERS}
    if options.ablate:
        variants |= {name: ("heap", words) for name, words in HEAP_ABLATION.items()}
    root, names = name_images(options.learn)
    if options.learn_images < len(names):
        names = [names[i] for i in np.linspace(0, len(names) - 1, options.learn_images).astype(int)]
    files = {name: options.out / "states" / f"{name.replace(', ', '-').replace(' ', '-')}.npz" for name in variants}
    files[KMEANS] = options.out / "states" / "k-means.npz"
    made = {"features": describe(features), "settings": settings, "images": names}
    _belongs(options.out / "states" / "made_with.json", made)
    missing = [name for name, path in files.items() if not path.is_file()]
    if not missing:
        return {name: str(path) for name, path in files.items()}
    sampler = _learner("lightcluster", settings)
    start, samples = time.process_time(), []
    for name in tqdm(names, desc="features to learn from", unit="image"):
        samples += sampler.sample([sampler.prepare(read_image(root / name), features.patch_size)], features)
    print(f"features to learn from: {(time.process_time() - start) / len(names):.3f} CPU seconds an image", flush=True)
    for name in missing:
        start = time.process_time()
        if name == KMEANS:
            count = 1 + sampler.config.classes  # as many as LightCluster has with background
            centres = plain_kmeans(samples, count)
            state = State(KMEANS, {}, describe(features), {"centres": centres})
        else:
            method, words = variants[name]
            state = _learner(method, {**settings, **words}).learn(iter(samples), describe(features))
        save_state(files[name], state)
        seconds = time.process_time() - start
        print(f"{name}: learned from {len(names)} images in {seconds:.0f} CPU seconds", flush=True)
    return {name: str(path) for name, path in files.items()}


def _learner(name: str, settings: Mapping[str, Any]) -> Learner:
    config = make_method(name).config
    return cast(Learner, make_method(name, {key: value for key, value in settings.items() if _known(config, key)}))


def _known(config: Any, option: str) -> bool:
    return hasattr(config, option.partition(".")[0])


def _finders(states: Mapping[str, str], features: Remembered, settings: Mapping[str, Any]) -> dict[str, Maps]:
    plain = {key: value for key, value in settings.items() if key in ("size", "keep_aspect", "crf")}
    finders = {name: _maps(name, features, None, plain) for name in BASELINES}
    for label, path in states.items():
        name = label.partition(",")[0]
        if name == KMEANS:
            finders[label] = _kmeans(features, path, plain)
            continue
        config = make_method(name).config
        own = {key: value for key, value in settings.items() if _known(config, key)}
        finders[label] = _maps(name, features, path, own)
        if name == "lightcluster":
            for level in LEVELS:
                finders[f"{label}, {level} alone"] = _maps(name, features, path, {**own, "levels": [level]})
    return finders


def _maps(name: str, features: Remembered, state: str | None, options: Mapping[str, Any]) -> Maps:
    find, _ = open_method(name, features, state, options)

    def maps(image: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
        found = find(image)
        return found.foreground, found.classes

    return maps


def _kmeans(features: Remembered, path: str, options: Mapping[str, Any]) -> Maps:
    """Classes of patches by the nearest centre, without a notion of foreground."""
    state = load_state(path, KMEANS)
    state.require(describe(features))
    working = change(HassodConfig(), options)

    def maps(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = features(resize(image, working_size(image.shape[:2], working, features.patch_size))[None])[0]
        labels, _ = nearest(vectors_of(values), state.arrays["centres"])
        size = (image.shape[0], image.shape[1])
        return np.ones(size, np.float32), spread_into(labels.reshape(values.shape[1:]), size)

    return maps


def _belongs(path: Path, note: Mapping[str, Any]) -> None:
    """Refuse a folder of other settings; a new one notes its own."""
    if not path.is_file():
        write_json(path, note, indent=1)
    elif read_json(path) != note:
        raise InputError(f"{path.parent} holds figures of other settings; remove it, or choose another --out")


def _row(
    path: Path, task: str, each: Any, finders: Mapping[str, Maps], features: Remembered, classes: int
) -> dict[str, Any]:
    """What is kept of one picture: of each method a figure and its seconds."""
    if path.is_file():
        return read_json(path)
    image, truth = read_image(each.image), each.truth()
    row: dict[str, Any] = {}
    features.seconds = 0.0
    for name, find in finders.items():
        start, before = time.process_time(), features.seconds
        found, labels = find(image)
        seconds = time.process_time() - start - (features.seconds - before)
        value: Any = None
        if task == "saliency" and name != KMEANS:
            value = score_map((found * 255).round().astype(np.uint8).astype(np.float32) / 255, truth)
            value["F"] = value["F"].round(5).tolist()
        elif task == "corloc" and name != KMEANS:
            value = box_of_map(found).tolist()
        elif task == "segmentation" and labels is not None and " alone" not in name:
            value = confusion(labels, truth, int(labels.max()) + 1, classes).tolist()
        if value is not None:
            row[name] = {"value": value, "seconds": seconds}
    row["features alone"] = {"seconds": features.seconds}
    write_json(path, row)
    return row


def _scores(
    task: str, rows: Sequence[Mapping[str, Any]], truths: Sequence[Callable[[], np.ndarray]]
) -> dict[str, dict[str, Any]]:
    result: dict[str, dict[str, Any]] = {}
    for name in rows[0]:
        entries = [row[name] for row in rows]
        values = [entry.get("value") for entry in entries]
        scores: dict[str, Any] = {}
        if values[0] is None:
            pass
        elif task == "saliency":
            scores = mean_scores(values)
        elif task == "corloc":
            scores = corloc([np.array(value) for value in values], [truth() for truth in truths])
        else:
            clusters = max(len(value) for value in values)
            tables = [np.array(value) for value in values]
            scores = score_clusters(np.pad(table, ((0, clusters - len(table)), (0, 0))) for table in tables)
            scores["clusters"] = clusters
        seconds = float(np.mean([entry["seconds"] for entry in entries]))
        result[name] = {**scores, "s/image": f"{seconds:.3f}"}
    return result


def _compare(task: str, rows: Sequence[Mapping[str, Any]], truths: Sequence[Callable[[], np.ndarray]]) -> str:
    """What a method has more than each other on the same pictures, in per cent, with the standard error."""

    def values(name: str) -> np.ndarray:
        if task == "saliency":
            return np.array([row[name]["value"]["IoU"] for row in rows])
        boxes = [np.array(row[name]["value"]) for row in rows]
        return np.array(
            [(overlaps(box, truth()) >= 0.5).any() for box, truth in zip(boxes, truths, strict=True)], float
        )

    methods = [name for name in rows[0] if "value" in rows[0][name]]
    lines = []
    for name in (each for each in methods if each in LEARNERS):
        for other in methods:
            ahead = 100 * (values(name) - values(other))
            if other != name:
                error = ahead.std() / len(ahead) ** 0.5
                lines.append(f"{name} has {ahead.mean():+.1f} +- {error:.1f} over {other}")
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Compare foreground methods on the same features.")
    parser.add_argument("--saliency", metavar="SET[:IMAGES]", help="masks, see evaluate --task saliency")
    parser.add_argument("--corloc", metavar="SET[:IMAGES]", help="boxes, see evaluate --task corloc")
    parser.add_argument("--segmentation", metavar="SET[:IMAGES]", help="classes, see evaluate --task segmentation")
    parser.add_argument("--out", type=Path, required=True, help="folder for states, figures of each picture and of all")
    parser.add_argument("--features", default="handcrafted", help="as in pseudo_label.py (default: handcrafted)")
    parser.add_argument("--weights", help="file of their weights")
    parser.add_argument("--images", type=int, help="pictures of each set, spread evenly (default: all)")
    parser.add_argument("--learn", type=Path, metavar="PHOTOS", help="learn lightcluster, heap and k-means from these")
    parser.add_argument("--learn-images", type=int, default=300, help="of them, spread evenly (default: 300)")
    parser.add_argument("--ablate", action="store_true", help="learn and score heap with each part changed as well")
    parser.add_argument(
        "--state", action="append", default=[], metavar="METHOD=FILE", help="learned before; repeatable"
    )
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="such as size=320 or crf=null")
    return parser


if __name__ == "__main__":
    sys.exit(main())
