"""Figures of the way from last night's recordings to a better model. Needs hassod_ros[train].

python benchmarks/retrain.py reading
python benchmarks/retrain.py selection --footage clip.mp4 FOLDER...
python benchmarks/retrain.py gate --frames FOLDER... --annotations dev.json --images dev [--models old.onnx ...]
python benchmarks/retrain.py labels --annotations new.json --images new
python benchmarks/retrain.py gain --annotations new.json --images new --old old.json --old-images old --replay photos

reading writes recordings of 640x480 images and reads them again. selection seeds motion blur and defocus into footage.
gate orders models by their recall on an annotated set and asks how often the gate, without labels, says the same; the
shipped files and the shipped weights with noise of 10, 20 and 40 % are always among them. labels scores what retraining
would learn from, beside what the shipped model finds by itself: no better labels, no gain. gain retrains the shipped
model on the first two thirds of a set's pictures, without their annotations, and scores both models on the last third
and on the old domain; without --replay it only says how well the shipped model does on the set.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import shlex
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hassod_ros.evaluation.tables import format_table


def main() -> None:
    """Run one part."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=("reading", "selection", "gate", "labels", "gain"))
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the recordings at 30 Hz (reading)")
    parser.add_argument("--footage", type=Path, nargs="+", default=[], help="videos and folders (selection)")
    parser.add_argument("--frames", type=Path, nargs="+", default=[], help="folders of images in their order (gate)")
    parser.add_argument("--count", type=int, default=20, help="frames of each folder (gate)")
    parser.add_argument("--annotations", type=Path, help="COCO file that tells the truth (gate, labels, gain)")
    parser.add_argument("--images", type=Path, help="folder of its pictures (gate, labels, gain)")
    parser.add_argument("--pictures", type=int, default=60, help="of the annotated or old set (gate, labels, gain)")
    parser.add_argument("--discovery", action="store_true", help="its labels, and the vote with it, too (labels)")
    parser.add_argument("--models", type=Path, nargs="*", default=[], help="more model files (gate)")
    parser.add_argument("--old", type=Path, help="COCO file of the old domain (gain)")
    parser.add_argument("--old-images", type=Path, help="folder of its pictures (gain)")
    parser.add_argument("--replay", type=Path, help="photographs of the old domain to train on (gain)")
    parser.add_argument("--photos", type=int, default=300, help="of them (gain)")
    parser.add_argument("--work", type=Path, default=Path("runs", "gain"), help="folder of the run (gain)")
    parser.add_argument("--retrain", default="", help="more options of retrain, in one word (gain)")
    options = parser.parse_args()
    parts = {"reading": _reading, "selection": _selection, "gate": _gate, "labels": _labels, "gain": _gain}
    parts[options.part](options)


# Reading


def _reading(options: argparse.Namespace) -> None:
    from hassod_ros.footage.bags import camera_messages, frames

    rows: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, path in _recordings(Path(folder), round(30 * options.seconds)):
            megabytes = path.stat().st_size / 1e6
            row: dict[str, Any] = {"MB": round(megabytes)}
            for what, read in (("messages", camera_messages), ("pictures", frames)):
                start = time.process_time()
                count = sum(1 for _ in read(path))
                seconds = time.process_time() - start
                row |= {"count": count, f"{what} MB/s": round(count * 0.9216 / seconds)}
            rows[name] = row
            path.unlink()
    columns = ("MB", "count", "messages MB/s", "pictures MB/s")
    print(format_table(rows, columns, corner="MB of pixels per CPU second"))
    print(f"largest memory of this process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3:.0f} MB")


def _recordings(folder: Path, count: int) -> Iterator[tuple[str, Path]]:
    """Name and file of one recording after the other."""
    import lz4.frame
    from mcap.writer import CompressionType, Writer
    from rosbags.rosbag1 import Writer as Ros1Writer
    from rosbags.typesys import Stores, get_typestore

    kind = "sensor_msgs/msg/Image"
    pixels = cv2.resize(np.random.default_rng(0).integers(0, 256, (60, 80, 3), np.uint8), (640, 480))
    stores = {name: get_typestore(store) for name, store in (("2", Stores.ROS2_HUMBLE), ("1", Stores.ROS1_NOETIC))}

    def serialised(store: str, number: int) -> bytes:
        types = stores[store].types
        stamp = types["builtin_interfaces/msg/Time"](sec=1 + number // 30, nanosec=number % 30 * 33_000_000)
        extra: dict[str, Any] = {"seq": number} if store == "1" else {}
        header = types["std_msgs/msg/Header"](stamp=stamp, frame_id="camera", **extra)
        values: dict[str, Any] = {"height": 480, "width": 640, "encoding": "rgb8", "is_bigendian": 0, "step": 1920}
        message = types[kind](header=header, data=np.roll(pixels, number, 1).ravel(), **values)
        pack = stores[store].serialize_ros1 if store == "1" else stores[store].serialize_cdr
        return bytes(pack(message, kind))

    for compression in ("NONE", "LZ4", "ZSTD"):
        path = folder / f"{compression}.mcap"
        with open(path, "wb") as file:
            writer = Writer(file, chunk_size=4_000_000, compression=CompressionType[compression])
            writer.start("ros2")
            channel = writer.register_channel("/image", "cdr", writer.register_schema(kind, "ros2msg", b""))
            for number in range(count):
                writer.add_message(channel, number, serialised("2", number), number)
            writer.finish()
        yield f"MCAP {compression.lower()}", path
    path = folder / "bag.db3"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE topics(id INTEGER PRIMARY KEY, name, type, serialization_format)")
    connection.execute("CREATE TABLE messages(id INTEGER PRIMARY KEY, topic_id, timestamp, data BLOB)")
    connection.execute("INSERT INTO topics VALUES (1, '/image', ?, 'cdr')", (kind,))
    for number in range(count):
        row = (number, serialised("2", number))
        connection.execute("INSERT INTO messages(topic_id, timestamp, data) VALUES (1, ?, ?)", row)
    connection.commit()
    connection.close()
    yield "sqlite3", path
    for compression in ("none", "lz4"):
        path = folder / f"{compression}.bag"
        bag = Ros1Writer(path)
        if compression == "lz4":
            bag.set_compression(Ros1Writer.CompressionFormat.LZ4)
            bag.compressor = lambda data: lz4.frame.compress(data, content_checksum=True)
        with bag:
            topic = bag.add_connection("/image", kind, typestore=stores["1"])
            for number in range(count):
                bag.write(topic, number, serialised("1", number))
        yield f"ROS 1 {compression}", path


# Selection


def _selection(options: argparse.Namespace) -> None:
    from hassod_ros.footage.select import KEPT, SelectConfig, choose, flaws, measure
    from hassod_ros.footage.sources import open_footage

    cv2.setNumThreads(1)  # as extract
    rows: dict[str, dict[str, Any]] = {}
    totals = dict.fromkeys(("motion", "defocus", "sharp"), np.zeros(2))
    for path in options.footage:
        rng, seconds = np.random.default_rng(0), 0.0
        kinds, seeded, plain = [], [], []
        for frame in open_footage(path):
            kind = str(rng.choice(["sharp", "motion", "defocus"], p=[0.8, 0.1, 0.1]))
            pixels = _blurred(frame.pixels, kind, rng)
            start = time.thread_time()
            seeded.append(measure(pixels))
            seconds += time.thread_time() - start
            plain.append(measure(frame.pixels))
            kinds.append(kind)
        signatures, sharpness, dark, bright = (np.array(column) for column in zip(*seeded, strict=True))
        cameras = ["camera"] * len(kinds)
        start = time.thread_time()
        found = np.array(flaws(cameras, signatures, sharpness, dark, bright, SelectConfig()), object) == "blurred"
        signatures = np.array([each.signature for each in plain])
        kept = choose(cameras, signatures, SelectConfig(count=10**6)).count(KEPT)
        seconds += time.thread_time() - start
        row: dict[str, Any] = {"frames": len(kinds), "kept": kept, "times fewer": f"{len(kinds) / kept:.1f}"}
        for kind in totals:
            chosen = found[np.array(kinds) == kind]
            totals[kind] = totals[kind] + (chosen.sum(), len(chosen))
            row[f"{kind} dropped"] = f"{chosen.sum()} of {len(chosen)}"
        rows[path.stem] = row | {"CPU ms": f"{1e3 * seconds / len(kinds):.2f}"}
    rows["all"] = {f"{kind} dropped": f"{100 * a / max(1, b):.1f} %" for kind, (a, b) in totals.items()}
    print(format_table(rows, list(next(iter(rows.values()))), corner="seeded blur"))


def _blurred(pixels: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Motion of 9 to 25 or a defocus of 2 to 4 pixels of a picture of 640."""
    scale = pixels.shape[1] / 640
    if kind == "defocus":
        return cv2.GaussianBlur(pixels, (0, 0), rng.uniform(2, 4) * scale)
    if kind == "sharp":
        return pixels
    length, angle = int(rng.integers(9, 26) * scale) | 1, rng.uniform(0, np.pi)
    kernel, middle = np.zeros((length, length), np.float32), (length - 1) / 2
    x, y = middle * np.cos(angle), middle * np.sin(angle)
    cv2.line(kernel, (round(middle - x), round(middle - y)), (round(middle + x), round(middle + y)), 1)
    return cv2.filter2D(pixels, -1, kernel / kernel.sum())


# Gate


def _gate(options: argparse.Namespace) -> None:
    from hassod_ros.deploy.gate import GateConfig, compare, evenly, look
    from hassod_ros.evaluation.annotations import AnnotatedSet, load_annotations
    from hassod_ros.images import list_images
    from hassod_ros.runtime.segmenter import open_segmenter

    if not (options.frames and options.annotations and options.images):
        sys.exit("gate needs --frames, --annotations and --images")
    annotated = load_annotations(options.annotations)
    step = max(1, len(annotated.pictures) // options.pictures)
    annotated = AnnotatedSet(annotated.pictures[::step][: options.pictures], annotated.has_masks)
    old = [options.images / picture.file_name for picture in annotated.pictures][::2]
    paths = [path for folder in options.frames for path in list_images(folder)[: options.count]]
    with tempfile.TemporaryDirectory() as folder:
        files = _models(options.models, Path(folder))
        recalls = {}
        for name, file in files.items():
            recalls[name] = _recall(file, annotated, options.images)
        models = {name: open_segmenter(file) for name, file in files.items()}
        frames, pairs = look(paths, models)
        again, _ = look(evenly(old, 30), models)
    config = GateConfig(latency=np.inf)  # whether a model is good does not depend on how busy this machine is
    rows: dict[str, dict[str, Any]] = {}
    for name in files:
        checks = compare(frames["default"], frames[name], again["default"], again[name], config)
        figures = {check.name: check.candidate for check in checks}
        rows[name] = {
            "AR@100": recalls[name],
            **{key: figures[key] for key in list(figures)[:5]},
            "against default": "accepted" if all(check.passed for check in checks) else "refused",
        }
    for name, row in rows.items():
        print(
            f"{name:32}", "  ".join(f"{key} {v if isinstance(v, str) else format(v, '.3f')}" for key, v in row.items())
        )
    print(f"{len(paths)} frames, {pairs} pairs of neighbours, {len(annotated.pictures)} annotated pictures")
    right = {"temporal": [0, 0], "mirrored": [0, 0], "both": [0, 0], "verdict": [0, 0]}
    for a, b in combinations(files, 2):
        if abs(recalls[a] - recalls[b]) < 0.01:
            continue
        worse, better = sorted((a, b), key=recalls.__getitem__)
        gain = {
            "temporal": rows[better]["temporal consistency"] - rows[worse]["temporal consistency"],
            "mirrored": rows[better]["mirrored consistency"] - rows[worse]["mirrored consistency"],
        }
        gain["both"] = sum(gain.values())
        refused = not all(c.passed for c in compare(frames[better], frames[worse], again[better], again[worse], config))
        for name, is_right in (*((name, value > 0) for name, value in gain.items()), ("verdict", refused)):
            right[name][0] += is_right
            right[name][1] += 1
    print("pairs a point of AR@100 or more apart that are ordered right:")
    print(", ".join(f"{name} {hits} of {total}" for name, (hits, total) in right.items()))
    print("verdict: the worse one of a pair is refused where the better one runs")


# Labels


def _labels(options: argparse.Namespace) -> None:
    from hassod_ros.chain.commands import command
    from hassod_ros.chain.voted_labels import label
    from hassod_ros.default_model import default_model
    from hassod_ros.deploy.gate import evenly
    from hassod_ros.evaluation.annotations import AnnotatedSet, load_annotations
    from hassod_ros.evaluation.predict import open_exported, predict

    new = load_annotations(options.annotations)
    seen, _ = _split(new)
    seen = AnnotatedSet(evenly([each for each in seen.pictures if len(each.truth)], options.pictures), new.has_masks)
    paths = [options.images / picture.file_name for picture in seen.pictures]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _link(paths, folder / "pool" / "new")
        found = {"the model": list(predict(open_exported(default_model()), seen, options.images))}
        discovered = folder / "discovered.json"
        ways: dict[str, tuple[Path | None, bool]] = {"labels: model": (None, False)}
        if options.discovery:
            features = ("--features", "handcrafted")  # as retrain
            command("pseudo_label", "--images", folder / "pool" / "new", *features, "--out", discovered)
            ways |= {"labels: vote": (discovered, False), "labels: discovery": (discovered, True)}
        for row, (source, alone) in ways.items():
            out = folder / f"{len(found)}.json"
            label(folder / "pool", default_model(), source, out, new="new", alone=alone)
            content = json.loads(out.read_text(encoding="utf-8"))
            ids = {
                image["id"]: seen.pictures[int(Path(image["file_name"]).stem)].image_id for image in content["images"]
            }
            found[row] = [entry | {"image_id": ids[entry["image_id"]]} for entry in content["annotations"]]
    rows = {name: _quality(results, seen) for name, results in found.items()}
    print(format_table(rows, list(rows["the model"]), corner=f"{options.annotations.parent.name}, masks"))
    things = sum(len(each.truth) for each in seen.pictures)
    print(f"{len(seen.pictures)} of the pictures that gain trains on, {things} things")


def _quality(results: list[dict[str, Any]], annotated: Any) -> dict[str, Any]:
    """Figures of masks against annotations; "right" are those that have an IoU of 0.5 with some annotation."""
    from hassod_ros.evaluation.annotations import parse_predictions
    from hassod_ros.evaluation.evaluate import evaluate
    from hassod_ros.evaluation.matching import overlaps

    predictions = parse_predictions(results, annotated)
    scores = evaluate(annotated, predictions)["mask"]
    hits = total = 0
    for picture in annotated.pictures:
        if picture.image_id in predictions:
            shared = overlaps(predictions[picture.image_id], picture.truth, "mask")
            hits, total = hits + int((shared.max(axis=1) >= 0.5).sum()), total + len(shared)
    figures = {name: scores[name] for name in ("AR@10", "AR@100", "AP50")}
    return figures | {"right": hits / max(1, total), "a picture": f"{total / len(annotated.pictures):.1f}"}


# Gain


def _split(annotated: Any) -> tuple[Any, Any]:
    """The first two thirds of a set by their names, and the rest, which is held back."""
    from hassod_ros.evaluation.annotations import AnnotatedSet

    pictures = sorted(annotated.pictures, key=lambda picture: picture.file_name)
    cut = 2 * len(pictures) // 3
    return AnnotatedSet(pictures[:cut], annotated.has_masks), AnnotatedSet(pictures[cut:], annotated.has_masks)


def _gain(options: argparse.Namespace) -> None:
    from hassod_ros.default_model import default_model
    from hassod_ros.deploy.gate import evenly
    from hassod_ros.evaluation.annotations import AnnotatedSet, load_annotations
    from hassod_ros.images import list_images
    from hassod_ros.train.retrain import main as retrain

    new = load_annotations(options.annotations)
    first, held_back = _split(new)
    models = {"shipped": default_model()}
    if not options.replay:
        print(f"shipped: {_recall(models['shipped'], new, options.images):.3f} AR@100 on {len(new.pictures)} pictures")
        return
    seen = [options.images / picture.file_name for picture in first.pictures]
    _link(seen, options.work / "seen")
    _link(evenly(list_images(options.replay), options.photos), options.work / "replay")
    start = time.monotonic(), time.process_time()
    words = [options.work / "seen", "--registry", options.work / "models", "--from", "default-fp32"]
    words += ["--replay", options.work / "replay", "--work", options.work / "steps", *shlex.split(options.retrain)]
    status = retrain([str(word) for word in words])
    wall, cpu = time.monotonic() - start[0], time.process_time() - start[1]
    if status not in (0, 1):
        sys.exit(status)
    number = max(int(path.name) for path in (options.work / "models" / "perception").iterdir() if path.name.isdigit())
    models["retrained"] = options.work / "models" / "perception" / str(number) / "model.onnx"
    old = load_annotations(options.old)
    step = max(1, len(old.pictures) // options.pictures)
    old = AnnotatedSet(old.pictures[::step][: options.pictures], old.has_masks)
    found = {name: _recalls(model, held_back, options.images) for name, model in models.items()}
    rows = {
        name: {
            "new domain": f"{100 * np.average(found[name][0], weights=found[name][1]):.1f}",
            "old domain": f"{100 * _recall(model, old, options.old_images):.1f}",
        }
        for name, model in models.items()
    }
    print(format_table(rows, ("new domain", "old domain"), corner="AR@100 of masks"))
    print("held back of the new domain, and where 95 % of draws of its pictures put retrained less shipped:")
    measured = {"AR@100 of masks": (found["shipped"][0], found["retrained"][0], found["shipped"][1])}
    measured |= _consistency(models, [options.images / picture.file_name for picture in held_back.pictures])
    for name, (before, after, counts) in measured.items():
        shares = [100 * np.average(values, weights=counts) for values in (before, after)]
        low, high = _spread(after - before, counts)
        print(f"  {name}: {shares[0]:.1f} shipped, {shares[1]:.1f} retrained, {low:+.1f} to {high:+.1f}")
    print(f"{len(seen)} pictures seen, {len(held_back.pictures)} held back, {len(old.pictures)} of the old domain")
    print(f"{'refused' if status else 'accepted'}; {wall / 60:.1f} minutes, {cpu / 60:.1f} of this process's processor")


def _link(paths: list[Path], folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number, path in enumerate(paths):
        place = folder / f"{number:05}{path.suffix}"
        if not place.is_symlink():
            place.symlink_to(path.resolve())


def _recall(model: Path, annotated: Any, images: Path) -> float:
    """AR@100 of masks."""
    recalls, counts = _recalls(model, annotated, images)
    return float(np.average(recalls, weights=counts))


def _recalls(model: Path, annotated: Any, images: Path) -> tuple[np.ndarray, np.ndarray]:
    """AR@100 of masks of each picture that has annotations, and how many it has."""
    from hassod_ros.evaluation.annotations import AnnotatedSet, parse_predictions
    from hassod_ros.evaluation.evaluate import evaluate
    from hassod_ros.evaluation.predict import open_exported, predict

    results = list(predict(open_exported(model), annotated, images, label=model.name))
    recalls, counts = [], []
    for picture in annotated.pictures:
        alone = AnnotatedSet([picture], annotated.has_masks)
        found = [result for result in results if result["image_id"] == picture.image_id]
        recall = evaluate(alone, parse_predictions(found, alone))["mask"]["AR@100"]
        if not np.isnan(recall):
            recalls.append(recall)
            counts.append(int(np.count_nonzero(~picture.truth.crowd)))
    return np.array(recalls), np.array(counts)


def _consistency(models: dict[str, Path], paths: list[Path]) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Consistencies of the gate by picture or pair, shipped and retrained; temporal where pictures follow others."""
    from hassod_ros.deploy.gate import look
    from hassod_ros.runtime.segmenter import open_segmenter

    found, pairs = look(paths, {name: open_segmenter(model) for name, model in models.items()})
    values = {"mirrored consistency": [np.array(found[name].mirrored) for name in ("shipped", "retrained")]}
    if pairs:
        values["temporal consistency"] = [
            np.array(list(found[name].temporal.values())) for name in ("shipped", "retrained")
        ]
    return {name: (before, after, np.ones(len(before))) for name, (before, after) in values.items()}


def _spread(differences: np.ndarray, counts: np.ndarray) -> tuple[float, float]:
    """Percentiles 2.5 and 97.5 of the mean difference in per cent, of pictures drawn anew."""
    drawn = np.random.default_rng(0).integers(0, len(counts), (2000, len(counts)))
    means = (differences * counts)[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
    low, high = np.percentile(100 * means, [2.5, 97.5])
    return float(low), float(high)


def _models(more: list[Path], folder: Path) -> dict[str, Path]:
    import onnx
    from onnx import numpy_helper

    from hassod_ros.default_model import default_model

    files = {"default": default_model(), "default-int8": default_model("int8")}
    files |= {f"{path.stem} {hashlib.sha256(path.read_bytes()).hexdigest()[:6]}": path for path in more}
    for share in (0.1, 0.2, 0.4):
        rng, model = np.random.default_rng(0), onnx.load(files["default"])
        for tensor in model.graph.initializer:
            values = numpy_helper.to_array(tensor)
            if values.dtype.kind == "f" and values.ndim >= 2 and values.size > 100:
                noise = rng.normal(0, share * values.astype(np.float32).std(), values.shape)
                tensor.CopyFrom(numpy_helper.from_array((values + noise).astype(values.dtype), tensor.name))
        path = folder / f"noise {round(100 * share)} %.onnx"
        onnx.save(model, path)
        files[path.stem] = path
    return files


if __name__ == "__main__":
    main()
