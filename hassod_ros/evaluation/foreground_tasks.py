"""The four foreground tasks: a set, a method or its maps, and the figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from tqdm import tqdm

from hassod_ros.errors import InputError
from hassod_ros.evaluation.corloc import box_of_map, corloc
from hassod_ros.evaluation.foreground_methods import Finder, Found, read_maps
from hassod_ros.evaluation.foreground_sets import Example, ExampleSet, load_boxes, load_classes, load_masks, read_labels
from hassod_ros.evaluation.retrieval import Described, retrieve
from hassod_ros.evaluation.saliency import score_maps
from hassod_ros.evaluation.segmentation import confusion, score_classes, score_clusters
from hassod_ros.images import read_image, read_size

TASKS = ("saliency", "corloc", "retrieval", "segmentation")
_LOAD: Mapping[str, Callable[..., ExampleSet]] = {
    "saliency": load_masks,
    "corloc": load_boxes,
    "retrieval": load_classes,
    "segmentation": load_classes,
}


def load_set(task: str, path: Path, images: Path | None = None, **options: str) -> ExampleSet:
    """The annotated pictures of a task; see `foreground_sets`."""
    return _LOAD[task](path, images, **options)


def score_maps_of(task: str, examples: ExampleSet, folder: Path) -> dict[str, float]:
    """Figures of maps that were written before: grey for saliency and CorLoc, label PNGs for segmentation.

    Raises:
        InputError: A map is missing or of another size, or the task is retrieval, which needs a method.

    """
    if task == "retrieval":
        raise InputError("retrieval compares embeddings, which maps do not hold; give --method")
    if task == "segmentation":
        found = {each.name: read_labels(folder / f"{each.name}.png") for each in examples.examples}
        clusters = 1 + max(int(labels.max()) for labels in found.values())
        return score_clusters(
            confusion(found[each.name], each.truth(), clusters, examples.classes) for each in examples.examples
        )
    maps = ((each, read_maps(folder, each.name, read_size(each.image))) for each in examples.examples)
    return _score_foreground(task, maps)


def score_method(
    task: str,
    examples: ExampleSet,
    find: Finder,
    *,
    classes: int = 0,
    bank: ExampleSet | None = None,
    label: str = "pictures",
) -> dict[str, float]:
    """Figures of a method.

    Args:
        task: One of `TASKS`.
        examples: The pictures.
        find: See `foreground_methods.open_method`.
        classes: How many the method knows, with background; segmentation needs them.
        bank: Annotated pictures for retrieval; default: those of `examples`, each without itself.
        label: Before the progress bar.

    Raises:
        InputError: Segmentation by a method without classes, or a picture that does not fit its annotation.

    """
    if task == "segmentation" and not classes:
        raise InputError("segmentation needs a method with classes, such as heap or lightcluster")
    if task in ("saliency", "corloc"):
        found = ((each, result.foreground) for each, result in _apply(find, examples, label))
        return _score_foreground(task, found)
    if task == "segmentation":
        tables = []
        for each, result in _apply(find, examples, label):
            assert result.classes is not None
            tables.append(confusion(result.classes, each.truth(), classes, examples.classes))
        return score_clusters(tables)
    queries = _described(find, examples, label)
    truths = [each.truth() for each in examples.examples]
    if bank is None:
        return score_classes(retrieve(queries, truths, examples.classes))
    known = _described(find, bank, f"{label}, bank")
    bank_truths = [each.truth() for each in bank.examples]
    return score_classes(retrieve(queries, truths, examples.classes, known, bank_truths))


def _score_foreground(task: str, maps: Iterator[tuple[Example, np.ndarray]]) -> dict[str, float]:
    if task == "saliency":
        return score_maps((found, each.truth()) for each, found in maps)
    pairs = [(box_of_map(found), each.truth()) for each, found in maps]
    return corloc([box for box, _ in pairs], [truth for _, truth in pairs])


def _described(find: Finder, examples: ExampleSet, label: str) -> list[Described]:
    return [result.described for _, result in _apply(find, examples, label)]


def _apply(find: Finder, examples: ExampleSet, label: str) -> Iterator[tuple[Example, Found]]:
    for each in tqdm(examples.examples, desc=label, unit="image", leave=False):
        yield each, find(read_image(each.image))
