"""Inspection on real photographs: what is found, what is named, what is called bad that is good, and how long it takes.

    python benchmarks/inspection.py deeppcb components tiles tact endurance --data ../shared/data

Every disturbance and every draw of good pictures is seeded. What the network sees is kept below --cache, so that a
second run, with other limits for example, takes minutes.
"""

from __future__ import annotations

import hassod_ros.nodes  # noqa: F401  # isort: skip  # sets NumPy's threads, before NumPy comes

import argparse
import hashlib
import json
import sys
import time
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import psutil

from hassod_ros.files import atomic_path
from hassod_ros.images import read_image
from hassod_ros.inspection.align import Aligner
from hassod_ros.inspection.eye import open_eye
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.reference import Reference, learn
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.verdict import Kind, Result, Verdict
from hassod_ros.inspection.view import Observe, Seen, halve
from hassod_ros.instances import Instances

SETS = ("screws", "toy_figures", "cola")
LACKING = {"screws": 2, "toy_figures": 2}  # category of what is missing


class Memory:
    """An observer that keeps what it saw in files, by the picture's bytes."""

    def __init__(self, model: str, folder: Path | None) -> None:
        eye = open_eye(model)
        assert eye is not None
        self.sha256, self._observe, self._folder = eye.sha256, eye.observe, folder

    def __call__(self, picture: np.ndarray) -> tuple[Instances, np.ndarray | None]:
        """As `Segmenter.observe`."""
        if self._folder is None:
            return self._observe(picture)
        key = hashlib.sha1(self.sha256.encode() + picture.tobytes()).hexdigest()
        file = self._folder / key[:2] / f"{key}.npz"
        if file.is_file():
            with np.load(file) as kept:
                boxes, sizes, bits = kept["boxes"], kept["sizes"], kept["bits"]
                starts = np.cumsum([0, *sizes.prod(axis=1)])
                masks = [bits[a:b].reshape(size) for a, b, size in zip(starts, starts[1:], sizes, strict=False)]
                size = (picture.shape[0], picture.shape[1])
                found = Instances(image_size=size, boxes=boxes, masks=masks, scene=kept["scene"])
                return found, kept["features"].astype(np.float32)
        instances, features = self._observe(picture)
        assert features is not None
        file.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(file) as temporary, temporary.open("wb") as stream:
            np.savez_compressed(
                stream,
                boxes=instances.boxes,
                sizes=np.array([mask.shape for mask in instances.masks], np.int64).reshape(-1, 2),
                bits=np.concatenate([np.zeros(0, np.uint8), *(mask.ravel() for mask in instances.masks)]),
                scene=instances.scene,
                features=features.astype(np.float16),
            )
        return instances, features.astype(np.float16).astype(np.float32)


class Kept:
    """An observer that looks at each picture once, and keeps what it saw in memory."""

    def __init__(self, observe: Observe) -> None:
        self._observe = observe
        self._seen: dict[bytes, Seen] = {}

    def __call__(self, picture: np.ndarray) -> Seen:
        """As `Segmenter.observe`."""
        key = hashlib.sha1(picture.tobytes()).digest()
        if key not in self._seen:
            self._seen[key] = self._observe(picture)
        return self._seen[key]


def area_under_curve(good: Sequence[float], bad: Sequence[float]) -> float:
    """Chance that a bad one scores above a good one."""
    a, b = np.asarray(good), np.asarray(bad)
    return float((b[:, None] > a).mean() + 0.5 * (b[:, None] == a).mean())


def disturb(picture: np.ndarray, rng: np.random.Generator, shift: float, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """A picture as it might be taken: moved, under uneven light, with noise, as JPEG; and the movement (2, 3)."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), rng.uniform(-angle, angle), 1.0)
    matrix = np.asarray(turn, np.float64)
    matrix[:, 2] += rng.uniform(-shift, shift, 2)
    moved = cv2.warpAffine(picture, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101).astype(np.float32)
    v, u = np.mgrid[-0.5 : 0.5 : height * 1j, -0.5 : 0.5 : width * 1j]
    slope = rng.uniform(-0.15, 0.15, 2)
    lit = moved * (rng.uniform(0.85, 1.1) + slope[0] * u + slope[1] * v)[..., None] + rng.uniform(-10, 10)
    noisy = np.clip(lit + rng.normal(0, 4, lit.shape), 0, 255).astype(np.uint8)
    code = cv2.imencode(".jpg", noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(70, 95))])[1]
    return read_image(code.tobytes()), matrix


def touches(box: Sequence[float], other: Sequence[float]) -> bool:
    """Whether two boxes x0 y0 x1 y1 share a pixel."""
    return box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3]


def deeppcb(data: Path, given: argparse.Namespace) -> None:
    """Recall of defects and false findings on disturbed boards."""
    folder = data / "inspection" / "deeppcb"
    record = json.loads((folder / "boxes_dev.json").read_text())
    found = defects = false = alarms = undecided = 0
    good_scores, bad_scores = [], []
    for i, entry in enumerate(record["images"][: given.limit]):
        rng = np.random.default_rng(i + 1000 * given.first)
        template, tested = (read_image(folder / "images" / entry[name]) for name in ("template_file", "file_name"))
        height, width = tested.shape[:2]
        good = [disturb(template, rng, 40, 5)[0] for _ in range(5)]
        inspector = Inspector(learn(good, Settings(), name="board"), None)
        fine = inspector(disturb(template, rng, 40, 5)[0])
        picture, movement = disturb(tested, rng, 40, 5)
        verdict = inspector(picture)
        back = cv2.invertAffineTransform(movement)
        boxes = [
            moved_box(annotation["bbox"], movement)
            for annotation in record["annotations"]
            if annotation["image_id"] == entry["id"]
        ]
        whole = [box for box in boxes if min(box) >= 0 and box[2] <= width and box[3] <= height]
        defects += len(whole)
        found += sum(any(touches(box, finding.box) for finding in verdict.findings) for box in whole)
        for finding in verdict.findings:  # beyond the board's edge lies its mirror image
            x, y = back @ ((finding.box[0] + finding.box[2]) / 2, (finding.box[1] + finding.box[3]) / 2, 1)
            on_board = 0 <= x < width and 0 <= y < height
            false += on_board and not any(touches(box, finding.box) for box in boxes)
        alarms += fine.result == Result.NG
        undecided += (fine.result == Result.UNDECIDED) + (verdict.result == Result.UNDECIDED)
        good_scores.append(fine.score)
        bad_scores.append(verdict.score)
    n = len(bad_scores)
    print(
        f"deeppcb: {n} boards, 5 good pictures, moved by up to 40 px and 5 degrees: recall {found / defects:.3f} "
        f"of {defects} defects, {false / n:.2f} false findings a bad picture, {alarms} alarms on {n} good ones, "
        f"{undecided} undecided, AUROC {area_under_curve(good_scores, bad_scores):.3f}"
    )


def moved_box(bbox: Sequence[float], matrix: np.ndarray) -> tuple[float, float, float, float]:
    """The box around a COCO box after a movement."""
    x, y, w, h = bbox
    corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)]) @ matrix[:, :2].T + matrix[:, 2]
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())


def components(data: Path, given: argparse.Namespace) -> None:
    """Real parts with missing components, over draws of the good pictures."""
    observe = Memory(given.model, given.cache)
    for name in given.sets:
        folder = data / "components" / name
        record = json.loads((folder / "annotations_dev.json").read_text())
        pictures = {entry["id"]: read_image(folder / entry["file_name"]) for entry in record["images"]}
        for shots in given.shots:
            draws = [
                draw(record, pictures, name, shots, seed, observe)
                for seed in range(given.first, given.first + given.draws)
            ]
            print(f"{name}: {summary(draws)}")


def draw(
    record: dict[str, Any], pictures: dict[int, np.ndarray], name: str, shots: int, seed: int, observe: Memory
) -> dict[str, Any]:
    """Learn from a draw of good pictures and judge all others."""
    good = [entry["id"] for entry in record["images"] if entry["label"] == "good"]
    taught = [int(i) for i in np.random.default_rng(seed).choice(good, shots, replace=False)]
    started = time.process_time()
    reference = learn(
        [pictures[i] for i in taught], Settings(angle=45), name=name, observe=observe, model_sha256=observe.sha256
    )
    seconds = time.process_time() - started
    inspector = Inspector(reference, observe)
    verdicts: dict[int, Verdict] = {i: inspector(picture) for i, picture in pictures.items() if i not in taught}
    places = hits = named = 0
    for annotation in record["annotations"]:
        if annotation["image_id"] not in verdicts or annotation["category_id"] != LACKING.get(name):
            continue
        x, y, w, h = annotation["bbox"]
        there = [f for f in verdicts[annotation["image_id"]].findings if touches(f.box, (x, y, x + w, y + h))]
        places += 1
        hits += bool(there)
        named += any(finding.kind == Kind.MISSING for finding in there)
    label = {entry["id"]: entry["label"] for entry in record["images"]}
    results = Counter((label[i], verdict.result) for i, verdict in verdicts.items())
    judged = {i: v.score if v.result != Result.UNDECIDED else 1.0 for i, v in verdicts.items()}
    scores = {
        word: [score for i, score in judged.items() if (label[i] == "good") == (word == "good")]
        for word in ("good", "bad")
    }
    return {
        "shots": shots,
        "seconds": seconds,
        "auroc": area_under_curve(scores["good"], scores["bad"]),
        "results": results,
        "places": places,
        "hits": hits,
        "named": named,
        "components": len(reference.components),
    }


def summary(draws: Sequence[dict[str, Any]]) -> str:
    """One line about the draws of a set."""
    results: Counter[tuple[str, Result]] = sum((each["results"] for each in draws), Counter())
    total = sum(results.values())
    good = sum(count for (label, _), count in results.items() if label == "good")
    aurocs = [each["auroc"] for each in draws]
    places = sum(each["places"] for each in draws)
    text = (
        f"{draws[0]['shots']} good, {len(draws)} draws: AUROC {np.mean(aurocs):.3f} (least {min(aurocs):.3f}), "
        f"undecided {(results['good', Result.UNDECIDED] + results['bad', Result.UNDECIDED]) / total:.1%}, "
        f"OK on bad {results['bad', Result.OK] / (total - good):.1%}, "
        f"NG on good {results['good', Result.NG] / good:.1%}, "
        f"taught in {np.mean([each['seconds'] for each in draws]):.1f} s of CPU"
    )
    if places:
        text += f", missing ones found {sum(e['hits'] for e in draws) / places:.1%}, "
        text += f"named MISSING {sum(e['named'] for e in draws) / places:.1%} of {places}"
    return text


def tiles(data: Path, given: argparse.Namespace) -> None:
    """Texture mode on magnetic tiles: ten clean pictures, each judged by the other nine."""
    from pycocotools import mask as coding
    from skimage.metrics import structural_similarity

    observe = Memory(given.model, given.cache)
    folder = data / "inspection" / "magnetic_tile"
    record = json.loads((folder / "defects_dev.json").read_text())
    truths: dict[int, np.ndarray] = {}
    for annotation in record["annotations"]:
        mask = coding.decode(annotation["segmentation"]).astype(bool)
        truths[annotation["image_id"]] = truths.get(annotation["image_id"], mask) | mask
    pictures = {entry["id"]: read_image(folder / "images" / entry["file_name"]) for entry in record["images"]}
    clean = [i for i in pictures if i not in truths]
    heats: dict[str, dict[int, np.ndarray]] = {
        "ours": {},
        "absolute difference to the mean": {},
        "SSIM to the mean": {},
        **patchcore(pictures, clean, observe),
    }
    inspectors: dict[int, Inspector] = {}
    called: Counter[str] = Counter()

    def judged(i: int) -> Inspector:
        key = i if i in clean else -1
        if key not in inspectors:
            taught = [pictures[j] for j in clean if j != key]
            settings = Settings(method="texture")
            reference = learn(taught, settings, name="tile", observe=observe, model_sha256=observe.sha256)
            inspectors[key] = Inspector(reference, observe)
        return inspectors[key]

    for i, picture in pictures.items():
        size = (picture.shape[0], picture.shape[1])
        inspector = judged(i)
        limit = inspector.reference.limits(inspector.settings.margin)["texture"]
        verdict = inspector(picture)
        called["good" if i in clean else "bad"] += verdict.result == Result.NG
        heats["ours"][i] = verdict.heatmap(size) * limit  # distances, as the others give them
        others = [cv2.resize(pictures[j], size[::-1]) for j in clean if j != i]
        mean = np.mean(others, axis=0).astype(np.float32)
        off = np.abs(picture.astype(np.float32) - mean).max(axis=2)
        heats["absolute difference to the mean"][i] = cv2.GaussianBlur(off, (0, 0), 2)
        grey, known = (cv2.cvtColor(each.astype(np.uint8), cv2.COLOR_RGB2GRAY) for each in (picture, mean))
        _, alike = structural_similarity(grey, known, full=True, gaussian_weights=True)
        heats["SSIM to the mean"][i] = cv2.GaussianBlur(1 - alike.astype(np.float32), (0, 0), 2)
    for name, maps in heats.items():
        image = area_under_curve([maps[i].max() for i in clean], [maps[i].max() for i in truths])
        inside = np.concatenate([maps[i][truths[i]][::3] for i in truths])
        outside = np.sort(np.concatenate([maps[i][~truths.get(i, np.zeros(maps[i].shape, bool))][::17] for i in maps]))
        pixel = float(np.searchsorted(outside, inside).mean() / len(outside))
        print(f"tiles, {name}: image AUROC {image:.3f}, pixel AUROC {pixel:.3f}")
    print(
        f"tiles, ours: NG {called['bad'] / len(truths):.1%} of {len(truths)} bad ones and "
        f"{called['good'] / len(clean):.1%} of {len(clean)} good ones"
    )


def patchcore(pictures: dict[int, np.ndarray], clean: list[int], observe: Memory) -> dict[str, dict[int, np.ndarray]]:
    """Maps of anomalib's PatchCore on the same features, where anomalib is installed (pip install anomalib)."""
    try:
        import torch
        from anomalib.models.image.patchcore.torch_model import PatchcoreModel
    except ImportError as error:
        print(f"tiles, PatchCore of anomalib: left out, {error}")
        return {}
    cells = {i: torch.from_numpy(halve(seen))[None] for i, p in pictures.items() if (seen := observe(p)[1]) is not None}

    def memory(taught: list[int]) -> Any:
        torch.manual_seed(0)
        model = PatchcoreModel(layers=["layer1"], backbone="resnet18", pre_trained=False)
        model.embedding_store = [model.reshape_embedding(model.feature_pooler(cells[j])) for j in taught]
        model.subsample_embedding(0.1)
        return model.eval()

    whole, heats = memory(clean), {}
    for i, picture in pictures.items():
        model = memory([j for j in clean if j != i]) if i in clean else whole
        embedding = model.feature_pooler(cells[i])
        distances, _ = model.nearest_neighbors(model.reshape_embedding(embedding), 1)
        shape = (1, 1, *embedding.shape[2:])
        heats[i] = model.anomaly_map_generator(distances.reshape(shape), picture.shape[:2])[0, 0].numpy()
    return {"PatchCore of anomalib": heats}


def endurance(data: Path, given: argparse.Namespace) -> None:
    """Memory and handles over many parts; the network sees each of the pictures once, its answers are kept."""
    eye = open_eye(given.model)
    folder = data / "components" / "screws"
    record = json.loads((folder / "annotations_dev.json").read_text())
    pictures = [cv2.resize(read_image(folder / entry["file_name"]), (240, 320)) for entry in record["images"]]
    good = [p for p, entry in zip(pictures, record["images"], strict=True) if entry["label"] == "good"][:5]
    look, sha256 = (None, "") if eye is None else (Kept(eye.observe), eye.sha256)
    inspector = Inspector(learn(good, Settings(angle=45), name="s", observe=look, model_sha256=sha256), look)
    process, results = psutil.Process(), Counter[str]()
    for i in range(1, given.parts + 1):
        results[inspector(pictures[i % len(pictures)]).result.name] += 1
        if i in (given.parts // 20, given.parts) or i % max(1, given.parts // 5) == 0:
            memory, handles = process.memory_info().rss / 2**20, process.num_fds()
            print(
                f"endurance, model {given.model}: after {i} parts {memory:.1f} MB, {handles} handles, "
                f"{process.num_threads()} threads, {dict(results)}",
                flush=True,
            )


def tact(data: Path, given: argparse.Namespace) -> None:
    """Time of a verdict at 640 x 480 with the model, on good and bad parts by turns."""
    eye = open_eye(given.model)
    assert eye is not None
    folder = data / "components" / "screws"
    record = json.loads((folder / "annotations_dev.json").read_text())
    pictures = [cv2.resize(read_image(folder / entry["file_name"]), (480, 640)) for entry in record["images"]]
    good = [p for p, entry in zip(pictures, record["images"], strict=True) if entry["label"] == "good"][:5]
    started = time.perf_counter()
    reference = learn(good, Settings(angle=45), name="s", observe=eye.observe, model_sha256=eye.sha256)
    taught = time.perf_counter() - started
    rng = np.random.default_rng(given.first)
    size = (good[0].shape[1], good[0].shape[0])
    lay = Aligner(reference.ideal, reference.mask)
    fixed = [cv2.warpAffine(p, lay(p).matrix, size, borderMode=cv2.BORDER_REPLICATE) for p in pictures[:30]]
    fixed = [disturb(picture, rng, 8, 1)[0] for picture in fixed]
    for how, parts in (("held by hand", pictures[:30]), ("in a fixture, off by up to 8 px and a degree", fixed)):
        print(f"tact, {how}: {timed(reference, eye.observe, parts)}; taught from 5 pictures in {taught:.1f} s")


def timed(reference: Reference, observe: Observe, pictures: Sequence[np.ndarray]) -> str:
    """What a verdict on each of the pictures takes."""
    inspector, around = Inspector(reference, observe), Inspector(reference, Kept(observe))
    walls, cpus, alone, beside = [], [], [], []
    for picture in pictures:
        wall, cpu = time.perf_counter(), time.process_time()
        inspector(picture)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        cpu = time.process_time()
        observe(picture)
        alone.append(time.process_time() - cpu)
        around(picture)
        cpu = time.process_time()
        around(picture)  # what the network sees is known now
        beside.append(time.process_time() - cpu)
    p50, p95 = (1e3 * float(np.percentile(walls, percent)) for percent in (50, 95))
    own, model, rest = (1e3 * float(np.median(each)) for each in (cpus, alone, beside))
    return (
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, {own:.0f} ms of CPU, the model alone {model:.0f}, all around it "
        f"{rest:.0f} (p95 {1e3 * np.percentile(beside, 95):.0f})"
    )


BENCHMARKS: dict[str, Callable[[Path, argparse.Namespace], None]] = {
    "deeppcb": deeppcb,
    "components": components,
    "tiles": tiles,
    "tact": tact,
    "endurance": endurance,
}


def main(arguments: list[str] | None = None) -> int:
    """Run the benchmarks that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", choices=[*BENCHMARKS, []], default=list(BENCHMARKS))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--model", default="default")
    parser.add_argument("--cache", type=Path, help="folder for what the network saw")
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--draws", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="seed of the first draw")
    parser.add_argument("--parts", type=int, default=10_000, help="of endurance")
    parser.add_argument("--shots", type=int, nargs="+", default=[5], help="good pictures; several for a learning curve")
    parser.add_argument("--limit", type=int, help="boards of deeppcb")
    given = parser.parse_args(arguments)
    cv2.setNumThreads(1)  # as in the node's process
    for name in given.what or BENCHMARKS:
        BENCHMARKS[name](given.data, given)
        sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main())
