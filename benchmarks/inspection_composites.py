"""Whether an inspection tells what happened: things taken away, moved, added and recoloured in real photographs.

    python benchmarks/inspection_composites.py --data ../shared/data

Table tops with the masks of their objects, and scikit-image's coins. Each is taught by five pictures of it, moved by up
to 5 px and 2 degrees under other light, and so is each changed one. A thing is taken away by painting the background
over it. Only things that became a component are taken; how many did not is said.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from hassod_ros.images import read_image, write_image
from hassod_ros.inspection.drawing import draw_verdict
from hassod_ros.inspection.eye import Eye, open_eye
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.reference import Reference, learn
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Kind, Result

SHIFT, ANGLE, LIGHT = 5.0, 2.0, 0.06
GOOD = 5
TAUGHT = 5
SMALLEST = 600  # pixels of a thing


class Scene(NamedTuple):
    """A photograph, (H, W, 3) uint8 RGB, and masks (H, W) bool of the things in it."""

    name: str
    picture: np.ndarray
    things: list[np.ndarray]


class Case(NamedTuple):
    """A changed photograph, what was done, and where that may be found: masks (H, W) bool."""

    kind: Kind
    picture: np.ndarray
    place: np.ndarray


def scenes(data: Path) -> Iterator[Scene]:
    """Table tops and coins."""
    from pycocotools import mask as coding
    from skimage.data import coins

    folder = data / "rgbd" / "tabletop"
    record = json.loads((folder / "masks_dev.json").read_text())
    for entry in record["images"]:
        objects = [each for each in record["annotations"] if each["image_id"] == entry["id"] and not each.get("part")]
        masks = [coding.decode(each["segmentation"]).astype(bool) for each in objects]
        if masks:
            yield Scene(Path(entry["file_name"]).stem, read_image(folder / entry["file_name"]), masks)
    grey = coins()
    flat = cv2.subtract(cv2.GaussianBlur(grey, (0, 0), 2), cv2.GaussianBlur(grey, (0, 0), 40))
    _, binary = cv2.threshold(flat, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(
        cv2.morphologyEx(binary, cv2.MORPH_OPEN, np.ones((5, 5)))
    )
    filled = []
    for i in range(1, count):
        if stats[i, cv2.CC_STAT_AREA] >= SMALLEST:
            outline, _ = cv2.findContours((labels == i).view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            mask = np.zeros(grey.shape, np.uint8)
            cv2.drawContours(mask, [cv2.convexHull(np.concatenate(outline))], -1, 1, -1)
            filled.append(mask > 0)
    yield Scene("coins", np.repeat(grey[..., None], 3, axis=2), filled)


def taken(picture: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The picture as a camera takes it, and the movement (2, 3)."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-ANGLE, ANGLE), 1.0)
    matrix = np.asarray(turn, np.float64)
    matrix[:, 2] += rng.uniform(-SHIFT, SHIFT, 2)
    moved = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    across = np.linspace(-1, 1, width)[None, :, None]
    lit = moved * (1 + rng.uniform(-LIGHT, LIGHT) + rng.uniform(-LIGHT, LIGHT) * across)
    return np.clip(lit + rng.normal(0, 2, lit.shape), 0, 255).astype(np.uint8), matrix


def cases(scene: Scene, chosen: list[int], others: list[Scene], rng: np.random.Generator) -> Iterator[Case]:
    """Each chosen thing taken away, put elsewhere and recoloured, and things of other scenes added."""
    free = np.logical_or.reduce(scene.things)
    for i in chosen:
        thing = scene.things[i]
        without = _without(scene.picture, thing)
        yield Case(Kind.MISSING, without, thing)
        recoloured = scene.picture.copy()
        lab = cv2.cvtColor(scene.picture, cv2.COLOR_RGB2LAB)
        tint = np.median(lab[..., 1:][thing], axis=0) - 128.0
        away = -60 * tint / max(float(np.linalg.norm(tint)), 1e-6) if np.linalg.norm(tint) > 8 else (45, 45)
        lab[..., 1:] = np.clip(lab[..., 1:] + np.asarray(away) - tint, 0, 255)
        recoloured[thing] = cv2.cvtColor(lab, cv2.COLOR_LAB2RGB)[thing]
        yield Case(Kind.CHANGED, recoloured, thing)
        offset = _room(thing, free & ~thing, rng)
        if offset is not None:
            there = _shifted(thing, offset)
            moved = without.copy()
            moved[there] = _shifted_picture(scene.picture, offset)[there]
            yield Case(Kind.MOVED, moved, thing | there)
    for other in others:
        fitting = [each for each in other.things if SMALLEST < np.count_nonzero(each) < 0.05 * each.size]
        if fitting:
            source = fitting[int(rng.integers(len(fitting)))]
            height, width = scene.picture.shape[:2]
            patch = cv2.resize(other.picture, (width, height), interpolation=cv2.INTER_AREA)
            thing = cv2.resize(source.view(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0
            offset = _room(thing, free, rng)
            if offset is not None:
                there, picture = _shifted(thing, offset), scene.picture.copy()
                picture[there] = _shifted_picture(patch, offset)[there]
                yield Case(Kind.EXTRA, picture, there)


def _without(picture: np.ndarray, thing: np.ndarray) -> np.ndarray:
    hole = cv2.dilate(thing.view(np.uint8), np.ones((9, 9), np.uint8))
    return np.asarray(cv2.inpaint(picture, hole, 5, cv2.INPAINT_TELEA), np.uint8)


def _room(thing: np.ndarray, taken_up: np.ndarray, rng: np.random.Generator) -> tuple[int, int] | None:
    """An offset x y at which a thing lies on nothing else, and inside the picture."""
    ys, xs = np.nonzero(thing)
    height, width = thing.shape
    wide = cv2.dilate(taken_up.view(np.uint8), np.ones((7, 7), np.uint8)) > 0
    for _ in range(200):
        x = int(rng.integers(12 - xs.min(), width - 12 - xs.max()))
        y = int(rng.integers(12 - ys.min(), height - 12 - ys.max()))
        far = np.hypot(x, y) > 0.4 * np.sqrt(len(xs))
        if far and not wide[ys + y, xs + x].any():
            return x, y
    return None


def _shifted(mask: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    return _shifted_picture(mask.view(np.uint8), offset) > 0


def _shifted_picture(picture: np.ndarray, offset: tuple[int, int]) -> np.ndarray:
    matrix = np.array([[1, 0, offset[0]], [0, 1, offset[1]]], np.float64)
    size = (picture.shape[1], picture.shape[0])
    return np.asarray(cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_NEAREST), np.uint8)


def components_of(scene: Scene, reference: Reference, matrix: np.ndarray) -> list[int]:
    """Things that became a component; `matrix` (2, 3) leads from the scene to the reference."""
    size = (scene.picture.shape[1], scene.picture.shape[0])
    known = []
    for i, thing in enumerate(scene.things):
        there = cv2.warpAffine(thing.view(np.uint8), matrix, size, flags=cv2.INTER_NEAREST) > 0
        for component in reference.components:
            mask = component.full((size[1], size[0]))
            both = np.count_nonzero(mask & there)
            if both >= 0.7 * np.count_nonzero(mask | there):
                known.append(i)
                break
    return known


def measure(
    scene: Scene, others: list[Scene], eye: Eye, tally: Counter[tuple[str, str]], seed: int, draw: Path | None
) -> None:
    """Count what a scene's changes are called; what is called otherwise is drawn into a folder."""
    rng = np.random.default_rng(sum(map(ord, scene.name)) + 1000 * seed)
    shots = [taken(scene.picture, rng) for _ in range(TAUGHT)]
    settings = Settings(position=3.0)
    reference = learn(
        [each for each, _ in shots], settings, name=scene.name, observe=eye.observe, model_sha256=eye.sha256
    )
    ideal = next(matrix for picture, matrix in shots if np.array_equal(picture, reference.ideal))
    big = [i for i, each in enumerate(scene.things) if np.count_nonzero(each) >= SMALLEST]
    chosen = [i for i in components_of(scene, reference, ideal) if i in big][:4]
    tally["things", "all"] += len(big)
    tally["things", "components"] += len(chosen)
    inspector = Inspector(reference, eye.observe)
    for number in range(GOOD):
        picture = taken(scene.picture, rng)[0]
        verdict = inspector(picture)
        tally["good", verdict.result.name] += 1
        if draw is not None and verdict.result != Result.OK:
            write_image(draw / f"good_{scene.name}_{number}.png", draw_verdict(picture, verdict))
    for number, case in enumerate(cases(scene, chosen, others, rng)):
        picture, matrix = taken(case.picture, rng)
        verdict = inspector(picture)
        size = (picture.shape[1], picture.shape[0])
        place = cv2.warpAffine(case.place.view(np.uint8), matrix, size, flags=cv2.INTER_NEAREST) > 0
        there = [each for each in verdict.findings if place[each.box[1] : each.box[3], each.box[0] : each.box[2]].any()]
        said = "UNDECIDED" if verdict.result == Result.UNDECIDED else there[0].kind.name if there else "nothing"
        tally[case.kind.name, said] += 1
        if draw is not None and said != case.kind.name:
            outline, _ = cv2.findContours(place.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
            shown = cv2.drawContours(picture.copy(), outline, -1, (0, 0, 255), 1)
            write_image(draw / f"{case.kind.name}_{said}_{scene.name}_{number}.png", draw_verdict(shown, verdict))


def main(arguments: list[str] | None = None) -> int:
    """Print what each kind of change is called."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--scenes", type=int, default=99, help="how many")
    parser.add_argument("--seed", type=int, default=0, help="other places, colours, movements and light")
    parser.add_argument("--draw", type=Path, help="folder for pictures of what is called otherwise; outlined in blue")
    given = parser.parse_args(arguments)
    if given.draw is not None:
        given.draw.mkdir(parents=True, exist_ok=True)
    eye = open_eye(given.model)
    assert eye is not None
    every = list(scenes(given.data))
    tally: Counter[tuple[str, str]] = Counter()
    for scene in every[-given.scenes :]:
        others = [each for each in every if each.name not in (scene.name, "coins")][:3]
        measure(scene, others, eye, tally, given.seed, given.draw)
        print(f"{scene.name}: {len(scene.things)} things", file=sys.stderr)
    right = done = 0
    print(f"{tally['things', 'components']} of up to 4 a scene; {tally['things', 'all']} things in {len(every)} scenes")
    for kind in ("MISSING", "EXTRA", "MOVED", "CHANGED", "good"):
        said = {word: count for (done_, word), count in sorted(tally.items()) if done_ == kind}
        total = sum(said.values())
        print(f"{kind}: {total}, called " + ", ".join(f"{word} {count}" for word, count in said.items()))
        if kind != "good":
            right, done = right + said.get(kind, 0), done + total
    print(f"kind right: {right} of {done}, {right / max(1, done):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
