"""Mask2Former learns: some photographs and SOHES' labels of them by heart, from random weights, on the CPU.

Figures are of the masks against these labels. The rows arrange the same masks in several ways: by the ancestor head, by
the head where masks cover each other too, and by coverage alone. The last one is of the labels against themselves: a
mask may overlap several labels by half, so that not even they reach 100.

Example:
    python benchmarks/by_heart.py --images photos --count 20 --out /tmp/by_heart

"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks import arrangements  # noqa: E402
from benchmarks.arrangements import COVERS, ways  # noqa: E402
from hassod_ros.coco import from_coco, read_json, to_coco  # noqa: E402
from hassod_ros.commands import run, script_parser  # noqa: E402
from hassod_ros.cores import usable_cores  # noqa: E402
from hassod_ros.detection.base import Detector  # noqa: E402
from hassod_ros.detection.checkpoints import open_detector  # noqa: E402
from hassod_ros.detection.mask2former.config import Mask2FormerConfig  # noqa: E402
from hassod_ros.discovery.features import load_features, suited_options  # noqa: E402
from hassod_ros.discovery.features.base import HANDCRAFTED  # noqa: E402
from hassod_ros.discovery.method import instances_of, make_method  # noqa: E402
from hassod_ros.discovery.pseudo_label import warm_up  # noqa: E402
from hassod_ros.drawing import draw  # noqa: E402
from hassod_ros.errors import InputError  # noqa: E402
from hassod_ros.evaluation.annotations import load_annotations  # noqa: E402
from hassod_ros.evaluation.tables import format_table  # noqa: E402
from hassod_ros.files import write_json  # noqa: E402
from hassod_ros.images import list_images, read_image  # noqa: E402
from hassod_ros.instances import Instances  # noqa: E402
from hassod_ros.learning.config import DataConfig, Recipe, RunConfig, StageConfig  # noqa: E402
from hassod_ros.learning.stages import burn_in  # noqa: E402

COLUMNS = ("AR@10", "AR@100", "AP", "pair_precision", "pair_recall", "pair_F1", "pairs")
THEMSELVES = "the labels themselves"
SHOWN = 4  # pictures drawn
LEAST = 0.01  # share of a picture that a label covers: 35 a picture, so that 100 detections can reach them all


def main(arguments: list[str] | None = None) -> int:
    """Label, learn, measure; the status is that of `commands.run`."""
    parser = script_parser("by_heart", __doc__)
    parser.add_argument("--images", required=True, help="folder (or list) of photographs")
    parser.add_argument("--count", type=int, default=20, help="how many of them, evenly spread")
    parser.add_argument("--iterations", type=int, default=1200, help="steps of 2 photographs")
    parser.add_argument("--side", type=int, default=128, help="shorter side that is learned, px")
    parser.add_argument("--out", required=True, help="folder for labels, weights and pictures; a run there goes on")
    given = parser.parse_args(arguments)
    return run("by_heart", lambda: work(given))


def work(given: Any) -> None:
    """See `main`."""
    out = Path(given.out)
    paths = list_images(given.images)
    if not 1 <= given.count <= len(paths):
        raise InputError(f"{given.images} has {len(paths)} photographs; --count must lie between 1 and that")
    paths = [paths[i * len(paths) // given.count] for i in range(given.count)]
    labels = out / "labels.json"
    if not labels.is_file():
        label(paths, labels)
    recipe = make_recipe(out, given)
    with timed(out / "seconds.json"):
        weights = burn_in(recipe)
    spent = read_json(out / "seconds.json")
    wall, processor = spent["wall"], spent["processor"]
    print(
        f"learned in {wall / 60:.1f} min, {processor / 60:.1f} min of processor time, "
        f"{torch.get_num_threads()} threads on {usable_cores()} cores, load {os.getloadavg()[0]:.1f}"
    )
    rows = measure(open_detector(weights), labels, recipe, out)
    print(format_table(rows, COLUMNS))
    write_json(out / "figures.json", {"minutes": wall / 60, "processor_minutes": processor / 60, "rows": rows})


@contextmanager
def timed(path: Path) -> Iterator[None]:
    """Adds the seconds inside to those of the runs before, which were stopped."""
    before = read_json(path) if path.is_file() else {"wall": 0.0, "processor": 0.0}
    wall, processor = time.perf_counter(), time.process_time()
    try:
        yield
    finally:
        wall, processor = time.perf_counter() - wall, time.process_time() - processor
        write_json(path, {"wall": before["wall"] + wall, "processor": before["processor"] + processor})


def label(paths: list[Path], labels: Path) -> None:
    """SOHES' labels by the paper's step: enough to learn. The photographs are copied beside them."""
    features = load_features(HANDCRAFTED)
    paper = {"tiles": [], "small": 0.01, "contours": False}
    method = make_method("sohes", {**suited_options(HANDCRAFTED), **paper, "filters.min_share": LEAST})
    warm_up(method)
    content: dict[str, list[Any]] = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "object"}]}
    (labels.parent / "images").mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths, start=1):
        image = read_image(path)
        found = instances_of(image, method, features)
        name = f"{number:03}.png"
        Image.fromarray(image).save(labels.parent / "images" / name)
        content["images"].append(
            {"id": number, "file_name": name, "height": image.shape[0], "width": image.shape[1]},
        )
        content["annotations"] += to_coco(found, number, first_id=len(content["annotations"]) + 1)
        print(f"{number} of {len(paths)} photographs labelled: {len(found)} masks", flush=True)
    write_json(labels, content)


def make_recipe(out: Path, given: Any) -> Recipe:
    """A small detector, and every photograph as it is: no mirroring, no other size, nothing pasted."""
    return Recipe(
        detector="mask2former",
        mask2former=Mask2FormerConfig(
            backbone="resnet18",
            backbone_width=0.5,
            queries=80,
            width=64,
            heads=4,
            encoder_layers=1,
            decoder_layers=3,
            feedforward=256,
            points=2048,  # no less than cells: nothing is drawn
            ancestor_weight=2.0,
        ),
        data=DataConfig(
            str(out / "images"),
            str(out / "labels.json"),
            short_sides=(given.side,),
            max_side=2 * given.side,
            flip=0.0,
        ),
        burn_in=StageConfig(
            iterations=given.iterations,
            batch_size=2,
            optimizer="adamw",
            learning_rate=0.0007,
            schedule="cosine",
            warmup=50,
            weight_decay=0.0001,
            clip="global",
            clip_norm=1.0,
            precision="fp32",
            copy_paste=0.0,
            drop_loss_iou=None,
            precise_bn=10,
        ),
        run=RunConfig(str(out / "run"), device="cpu", workers=0, checkpoint_every=200, picture_every=0),
    )


def measure(detector: Detector, labels: Path, recipe: Recipe, out: Path) -> dict[str, dict[str, Any]]:
    """Figures of the detector's masks, arranged in several ways; the first pictures are drawn, labels at the left."""
    annotated = load_annotations(labels)
    entries: dict[int, list[dict[str, Any]]] = {}
    for entry in read_json(labels)["annotations"]:
        entries.setdefault(entry["image_id"], []).append(entry)
    pictures = iter(annotated.pictures)

    def find(image: np.ndarray) -> dict[str, Instances]:
        picture = next(pictures)
        own = from_coco(entries[picture.image_id], picture.size)
        found = ways(detector, image, recipe.data.short_sides[0], recipe.data.max_side)
        if picture.image_id <= SHOWN:
            best = found[f"head and coverage {COVERS[0]}"]
            best = best.select(np.flatnonzero(best.scores > 0.5))
            drawn = np.hstack([image, draw(image, own), draw(image, best)])
            Image.fromarray(drawn).save(out / f"drawn_{picture.image_id - 1}.png")
        return found | {THEMSELVES: own}

    return arrangements.measure([find], annotated, out / "images")


if __name__ == "__main__":
    raise SystemExit(main())
