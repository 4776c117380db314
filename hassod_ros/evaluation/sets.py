"""Annotated sets on a command line: where their images lie, and which pictures are taken."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.evaluation.annotations import AnnotatedSet, load_annotations


def add_sets(parser: argparse.ArgumentParser, every: int) -> None:
    """Options `--data` and `--every`, the latter with this default."""
    parser.add_argument("--data", action="append", required=True, metavar="JSON[:IMAGES]", help="may be given again")
    parser.add_argument("--every", type=int, default=every, help="use every so manieth image")


def chosen_sets(options: argparse.Namespace) -> Iterator[tuple[str, AnnotatedSet, Path]]:
    """Each set of `add_sets`' options as it was written, thinned out, and the folder of its images.

    Raises:
        InputError: A set that cannot be read or whose images are not found, or `--every` below 1.

    """
    if options.every < 1:
        raise InputError(f"--every must be at least 1, got {options.every}")
    for text in options.data:
        path, folder = find_set(text)
        annotated = load_annotations(path)
        yield text, replace(annotated, pictures=annotated.pictures[:: options.every]), folder


def find_set(text: str) -> tuple[Path, Path]:
    """Annotations and image folder of `JSON[:IMAGES]`; without IMAGES it is looked for near the annotations.

    Raises:
        InputError: The images are not there.

    """
    path, _, folder = text.partition(":")
    annotations = Path(path)
    if folder:
        return annotations, Path(folder)
    first = load_annotations(annotations).pictures[0].file_name
    near = (annotations.parent / "images", annotations.parent.parent / "images", annotations.parent)
    for candidate in near:
        if (candidate / first).is_file():
            return annotations, candidate
    raise InputError(f"the images of {annotations} are not beside it; write {annotations}:FOLDER")
