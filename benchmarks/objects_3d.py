"""How exact and how fast things are placed in space: tables for docs/manipulation.md.

    python benchmarks/objects_3d.py                              rendered scenes and speed
    python benchmarks/objects_3d.py --shared ../shared           real tables and a kitchen as well
    python benchmarks/objects_3d.py --node 300                   objects_3d_node over DDS at 30 Hz, so many seconds:
                                                                 recorded instances and depth in, no model in the loop

`--pictures FOLDER` draws boxes, supports and grasps over the photographs.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy, as in the node's process

import argparse
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.rendered_scenes import Rendered, random_scene, structured_light  # noqa: E402
from hassod_ros.geometry.cloud import CloudMaker  # noqa: E402
from hassod_ros.geometry.depth import to_metres  # noqa: E402
from hassod_ros.geometry.grasps import find_grasps  # noqa: E402
from hassod_ros.geometry.objects import Flag, ObjectOptions, Scene, locate  # noqa: E402
from hassod_ros.geometry.planes import make_grid  # noqa: E402
from hassod_ros.geometry.rays import Calibration, Rays, make_rays  # noqa: E402
from hassod_ros.images import read_image  # noqa: E402
from hassod_ros.instances import Instances, Level  # noqa: E402

# Lengths in mm, in any order. First the measures of Calli et al., "The YCB object and model set" (IEEE RAM 22-3, 2015),
# table of the set; then the extents of the scanned models as the authors of the pictures use them (yuxng/PoseCNN,
# data/YCB/extents.txt; gelatin box: NVlabs/Deep_Object_Pose, config/config_pose.yaml). They differ by up to 15 mm, and
# the table leaves out the mug's and the pitcher's handle and most of the drill: errors are counted against the models.
YCB: Mapping[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "tomato can": ((66, 66, 101), (68.1, 101.9, 67.7)),
    "red mug": ((80, 80, 82), (120.0, 81.4, 93.6)),
    "cleanser bottle": ((250, 98, 65), (102.6, 250.6, 68.0)),
    "spam can": ((50, 97, 82), (101.6, 83.6, 57.6)),
    "jello box": ((28, 85, 73), (89.2, 73.1, 30.0)),
    "wood block": ((85, 85, 200), (90.5, 206.0, 90.6)),
    "black marker": ((18, 18, 121), (19.3, 121.3, 21.2)),
    "power drill": ((35, 46, 184), (184.3, 188.4, 58.0)),
    "scissors": ((87, 200, 14), (201.5, 97.8, 16.0)),
    "tuna can": ((85, 85, 33), (85.6, 33.6, 86.1)),
    "pitcher": ((108, 108, 235), (188.8, 249.3, 133.4)),
    "mustard bottle": ((58, 95, 190), (96.5, 192.2, 58.6)),
}
YCB_IMAGES = ("pcp_1", "pcp_3", "pc_4")  # the others show things of unknown size
_AGREE = 0.3  # m around the middle depth, as yolo_ros' maximum_detection_threshold


class View(NamedTuple):
    """A photograph with depth."""

    name: str
    image: np.ndarray
    depth: np.ndarray
    rays: Rays
    focal: float
    annotations: list[dict[str, Any]]


def errors(scene: Rendered, located: Scene) -> tuple[list[float], list[float], list[float]]:
    """Errors of sizes (m), positions (m) and directions (degrees) of what is neither cut off nor occluded."""
    objects, visible = located.objects, scene.visible()
    sizes: list[float] = []
    places: list[float] = []
    angles: list[float] = []
    for k in np.flatnonzero((objects.flags & (Flag.CUT_OFF | Flag.OCCLUDED)) == 0).tolist():
        solid, truth = scene.solids[visible[objects.index[k]]], scene.truth(visible[objects.index[k]])
        turn = objects.rotations[k].T @ truth[:3, :3]
        swapped = abs(turn[0, 1]) > abs(turn[0, 0])
        sizes += np.abs(objects.sizes[k] - np.array(solid.size)[[1, 0, 2] if swapped else [0, 1, 2]]).tolist()
        places.append(float(np.linalg.norm(objects.centers[k] - truth[:3, 3])))
        yaw = 0.0 if solid.round else float(np.degrees(np.arccos(np.clip(abs(turn[0, int(swapped)]), 0, 1))))
        angles.append(max(yaw, float(np.degrees(np.arccos(np.clip(turn[2, 2], -1, 1))))))
    return sizes, places, angles


def rendered(count: int) -> None:
    """Table of errors on rendered scenes, without noise and with a depth camera's."""
    print(f"\n## Rendered scenes ({count} tables with boxes and cylinders)\n")
    print("| depth | things | size: median, p90 mm | position mm | direction degrees |\n|---|---|---|---|---|")
    for name, noisy in (("exact", False), ("noise of a structured-light camera", True)):
        rng = np.random.default_rng(0)
        total: tuple[list[float], list[float], list[float]] = ([], [], [])
        for seed in range(count):
            scene = random_scene(np.random.default_rng(seed))
            depth = structured_light(scene.depth, rng) if noisy else scene.depth
            for all_, new in zip(total, errors(scene, locate(scene.instances(), depth, scene.rays)), strict=True):
                all_ += new
        sizes, places, angles = (np.array(values) for values in total)
        cells = [_two(sizes * 1e3), _two(places * 1e3), _two(angles)]
        print(f"| {name} | {len(places)} | {' | '.join(cells)} |")


def _two(values: np.ndarray) -> str:
    return f"{np.median(values):.1f}, {np.percentile(values, 90):.1f}"


def tabletop(shared: Path, pictures: Path | None) -> None:
    """Sizes, supports and levels on rgbd/tabletop dev."""
    from pycocotools import mask as rle

    from hassod_ros.coco import from_coco, to_coco
    from hassod_ros.runtime.segmenter import open_segmenter

    views = [view for view in _views(shared / "data" / "rgbd" / "tabletop") if view.annotations]
    segment = open_segmenter("default")
    given: list[np.ndarray] = []
    published: list[np.ndarray] = []
    by_camera: list[np.ndarray] = []
    cleaned: list[np.ndarray] = []
    found: list[np.ndarray] = []
    planes = wholes = matched = before = after = standing = 0
    for view in views:
        annotations = [a | {"level": int(a["part"]), "parent_id": a.get("whole_id", 0)} for a in view.annotations]
        truth = from_coco(annotations, view.depth.shape)
        scene = locate(truth, view.depth, view.rays)
        planes += _support_found(view, truth, scene)
        for k, i in enumerate(scene.objects.index.tolist()):
            standing += annotations[i]["level"] == 0 and scene.objects.supports[k] >= 0
            name = annotations[i]["name"]
            if view.name in YCB_IMAGES and name in YCB and annotations[i]["level"] == 0:
                given.append(_miss(scene.objects.sizes[k], YCB[name][1]))
                published.append(_miss(scene.objects.sizes[k], YCB[name][0]))
                by_camera.append(_miss(_along_camera(view, truth, i), YCB[name][1]))
                cleaned.append(_miss(np.ptp(scene.points(scene.pixels(k)), axis=0), YCB[name][1]))
        _draw(view, truth, scene, pictures, "given")
        guessed = segment(view.image)
        scene = locate(guessed, view.depth, view.rays)
        _draw(view, guessed, scene, pictures, "found")
        masks = [a["segmentation"] for a in to_coco(guessed, 1)]
        overlaps = np.zeros((1, len(truth)))  # of nothing found
        if masks:
            overlaps = rle.iou(masks, [a["segmentation"] for a in annotations], [0] * len(truth))
        for i, annotation in enumerate(annotations):
            if annotation["level"]:
                continue
            wholes += 1
            best = int(np.argmax(overlaps[:, i]))
            if overlaps[best, i] < 0.5 or best not in scene.objects.index:
                continue
            matched += 1
            k = int(np.flatnonzero(scene.objects.index == best)[0])
            before += guessed.levels[best] == Level.WHOLE
            after += scene.objects.levels[k] == Level.WHOLE and not scene.objects.is_support[k]
            if view.name in YCB_IMAGES and annotation["name"] in YCB:
                found.append(_miss(scene.objects.sizes[k], YCB[annotation["name"]][1]))
    print("\n## rgbd/tabletop dev: three dimensions of YCB things, error in mm\n")
    print("| box | things | median | p90 | ratio |\n|---|---|---|---|---|")
    worst = float(np.median(by_camera))
    for name, values in (
        ("along the camera's axes, as yolo_ros makes it, given masks", by_camera),
        ("along the camera's axes, of the points that are kept here, given masks", cleaned),
        ("upright on the support, given masks", given),
        ("the same against the published table", published),
        ("the same, masks of the shipped model", found),
    ):
        if not values:
            print(f"| {name} | 0 | - | - | - |")
            continue
        middle, high = float(np.median(values)), float(np.percentile(values, 90))
        print(f"| {name} | {len(values)} | {middle:.1f} | {high:.1f} | {worst / middle:.1f} |")
    print(f"\nsupports found: {planes} of {len(views)} tables; given wholes that stand on one: {standing} of {wholes}")
    print(f"wholes found by the shipped model: {matched} of {wholes}; whole by its own level: {before} of {matched}")
    print(f"whole by the mended level: {after} of {matched}")


def _views(folder: Path) -> list[View]:
    data = json.loads((folder / "masks_dev.json").read_text(encoding="utf-8"))
    return [
        _view(folder, image, image["intrinsics"], [a for a in data["annotations"] if a["image_id"] == image["id"]])
        for image in data["images"]
    ]


def _view(folder: Path, entry: Mapping[str, Any], lens: Mapping[str, float], annotations: list[dict[str, Any]]) -> View:
    picture = read_image(folder / entry["file_name"])
    pixels = cv2.imread(str(folder / entry["depth_file"]), cv2.IMREAD_UNCHANGED)
    assert pixels is not None, f"{folder / entry['depth_file']} cannot be read"
    depth = to_metres(pixels, "16UC1")
    camera = Calibration(depth.shape, (lens["fx"], lens["fy"]), (lens["cx"], lens["cy"]))
    return View(Path(entry["file_name"]).stem, picture, depth, make_rays(camera), lens["fx"], annotations)


def _miss(size: np.ndarray, true: tuple[float, float, float]) -> np.ndarray:
    """(3,) errors in mm of the lengths, in order of size."""
    return np.abs(np.sort(size * 1e3) - np.sort(true))


def _along_camera(view: View, instances: Instances, i: int) -> np.ndarray:
    """Size of the box that yolo_ros' detect_3d_node makes: its sides are the image's and the optical axis."""
    x0, y0, x1, y1 = instances.regions[i].tolist()
    depth = view.depth[y0:y1, x0:x1][instances.masks[i].view(bool)]
    depth = depth[depth > 0]
    depth = depth[np.abs(depth - np.median(depth)) <= _AGREE]
    middle = (depth.max() + depth.min()) / 2
    return np.array([(x1 - x0) * middle / view.focal, (y1 - y0) * middle / view.focal, depth.max() - depth.min()])


def _support_found(view: View, truth: Instances, scene: Scene) -> bool:
    """Whether a plane agrees with one laid through the pixels around the given things."""
    things: np.ndarray = np.any(truth.dense(), axis=0).astype(np.uint8)
    near = cv2.dilate(things, np.ones((31, 31), np.uint8)).astype(bool)
    ring = near & ~cv2.dilate(things, np.ones((9, 9), np.uint8)).astype(bool) & (view.depth > 0)
    points = scene.points(np.flatnonzero(ring)).astype(np.float64)
    rng = np.random.default_rng(0)  # RANSAC (Fischler and Bolles, 1981)
    best = np.zeros(len(points), bool)
    for _ in range(500):
        a, b, c = points[rng.choice(len(points), 3, replace=False)]
        normal = np.cross(b - a, c - a)
        near = np.abs((points - a) @ normal) < 0.006 * np.linalg.norm(normal)
        best = near if near.sum() > best.sum() else best
    middle = points[best].mean(0)
    normal = np.linalg.svd(points[best] - middle, full_matrices=False)[2][2]
    normal *= -np.sign(normal @ middle)
    return any(p.normal @ normal > 0.9986 and abs(p.heights(middle)) < 0.01 for p in scene.grid.planes)


def cue(shared: Path, names: Sequence[str] = ("handcrafted",)) -> None:
    """Table of recalls of discovery on rgbd/tabletop dev, with depth joined to the features and without."""
    from pycocotools import mask as rle

    from hassod_ros.coco import to_coco
    from hassod_ros.discovery.features import load_features, suited_options
    from hassod_ros.discovery.features.geometry import with_depth
    from hassod_ros.discovery.hassod import HassodConfig, discover

    views = [view for view in _views(shared / "data" / "rgbd" / "tabletop") if view.annotations]
    print("\n## rgbd/tabletop dev: recall of things and parts by discovery, mean of IoU 0.5 to 0.95\n")
    print("| features | masks of an image | AR@10 | AR@100 |\n|---|---|---|---|")
    for name in names:
        features, config = load_features(name), HassodConfig(**suited_options(name))
        for joined in (False, True):
            best: list[np.ndarray] = []  # overlap of each annotation with the first 10 and 100
            number = 0
            for view in views:
                used = with_depth(features, view.depth, view.rays) if joined else features
                found = discover(view.image, used, config)
                found = found.select(np.argsort(-found.scores, kind="stable"))
                number += len(found)
                masks = [a["segmentation"] for a in to_coco(found, 1)]
                truth = [a["segmentation"] for a in view.annotations]
                ious = np.array(rle.iou(masks, truth, [0] * len(truth))).reshape(len(masks), len(truth))
                best.append(np.array([ious[:most].max(0, initial=0) for most in (10, 100)]))
            hit = np.concatenate(best, axis=1)[..., None] >= np.arange(0.5, 0.96, 0.05)
            few, many = 100 * hit.mean((1, 2))
            title = f"{name} with depth" if joined else name
            print(f"| {title} | {number / len(views):.0f} | {few:.1f} | {many:.1f} |")


def kitchen(shared: Path) -> None:
    """Normals of the same planes seen from different places: how far they differ in the world."""
    folder = shared / "data" / "rgbd" / "kitchen"
    data = json.loads((folder / "frames.json").read_text(encoding="utf-8"))
    seen: list[tuple[int, np.ndarray, np.ndarray, int]] = []
    for i, frame in enumerate(data["frames"]):
        view = _view(folder, frame, data["intrinsics"], [])
        pose = np.array(frame["pose_cam2world"])
        grid = make_grid(view.depth, view.rays, 4.0)
        for k, plane in enumerate(grid.planes):
            middle = grid.points[grid.labels == k].mean(0)
            seen.append((i, pose[:3, :3] @ plane.normal, pose[:3, :3] @ middle + pose[:3, 3], plane.cells))
    angles = []
    for i, normal, middle, cells in seen:
        for j, other, place, more in seen:
            # The same plane: it passes through the other's middle, and both are large.
            if i < j and abs((place - middle) @ normal) < 0.05 and normal @ other > 0.9 and min(cells, more) > 1000:
                angles.append(float(np.degrees(np.arccos(np.clip(normal @ other, -1, 1)))))
    print("\n## rgbd/kitchen: normals of one plane in the world, from two of 24 places\n")
    print(f"pairs: {len(angles)}; median {np.median(angles):.1f} degrees, p90 {np.percentile(angles, 90):.1f}")


def twenty() -> tuple[Instances, np.ndarray, Rays]:
    """20 instances at 640x480, parts and their table among them, 16UC1 depth of a structured-light camera, and rays."""
    scene = random_scene(np.random.default_rng(4), count=10)
    whole = scene.instances(table=True)
    masks = list(whole.dense())
    for mask in masks[1:10]:
        rows = np.flatnonzero(mask.any(1))
        part = mask.copy()
        part[(rows[0] + rows[-1]) // 2 :] = False
        masks.append(part)
    n = len(masks)
    instances = Instances.from_dense(
        np.array(masks),
        image_size=scene.ids.shape,
        levels=np.array([0] + [1] * len(whole.masks[1:]) + [2] * (n - len(whole))),
        parents=np.array([-1] + [0] * (len(whole) - 1) + list(range(1, n - len(whole) + 1))),
        ids=np.arange(1, n + 1),
    )
    depth = structured_light(scene.depth, np.random.default_rng(0))
    return instances, np.round(depth * 1000).astype(np.uint16), scene.rays


def speed(repeat: int) -> None:
    """CPU time of 20 instances at 640x480, one thread."""
    instances, raw, rays = twenty()
    depth, colors = to_metres(raw, "16UC1"), np.zeros((480, 640, 3), np.uint8)
    located = locate(instances, depth, rays)
    make, labels = CloudMaker(), np.zeros((480, 640), np.uint32)
    stages: dict[str, Callable[[], object]] = {
        "depth to metres": lambda: to_metres(raw, "16UC1"),
        "planes": lambda: make_grid(depth, rays, 2.0),
        "planes, supports, boxes, levels": lambda: locate(instances, depth, rays, ObjectOptions()),
        "grasps of all": lambda: [find_grasps(located, i) for i in range(len(located.objects))],
        "organised cloud": lambda: make(depth, rays, colors, labels),
    }
    print(f"\n## CPU time, {len(instances)} instances at 640x480, one thread, {repeat} repetitions\n")
    print("| stage | least ms | median ms |\n|---|---|---|")
    for name, work in stages.items():
        work()
        times = []
        for _ in range(repeat):
            start = time.process_time()
            work()
            times.append((time.process_time() - start) * 1e3)
        print(f"| {name} | {min(times):.1f} | {np.median(times):.1f} |")


def node(seconds: float, rate: float = 30.0) -> None:
    """Latency and losses of objects_3d_node over DDS, from a process of its own."""
    import rclpy
    from rclpy.qos import QoSProfile, qos_profile_sensor_data
    from sensor_msgs.msg import CameraInfo, Image
    from std_msgs.msg import Header

    from hassod_msgs.msg import InstanceArray, Object3DArray
    from hassod_ros.nodes.convert import array_to_image
    from hassod_ros.nodes.messages import instance_array

    instances, depth, _ = twenty()
    arguments = ["--ros-args", "-p", "autostart:=true"]
    child = subprocess.Popen([sys.executable, "-m", "hassod_ros.nodes.objects_3d_node", *arguments], cwd=ROOT)
    rclpy.init()
    client = rclpy.create_node("benchmark")
    received: dict[int, float] = {}

    def take(message: Object3DArray) -> None:
        received[message.header.stamp.sec * 1000 + message.header.stamp.nanosec // 1_000_000] = time.perf_counter()

    client.create_subscription(Object3DArray, "/objects_3d_node/objects", take, QoSProfile(depth=50))
    send = {
        name: client.create_publisher(kind, name, qos_profile_sensor_data)
        for name, kind in (("instances", InstanceArray), ("depth", Image), ("camera_info", CameraInfo))
    }
    info = CameraInfo(height=480, width=640, distortion_model="plumb_bob")
    info.k = [600.0, 0.0, 319.5, 0.0, 600.0, 239.5, 0.0, 0.0, 1.0]
    # Made once, as a recording holds them: only stamps change.
    picture = array_to_image(depth, "16UC1", Header())
    message = instance_array(instances, Header(), model_name="benchmark", model_sha256="")
    sent: dict[int, float] = {}

    def publish(number: int) -> None:
        header = Header(frame_id="color")
        header.stamp.sec, header.stamp.nanosec = divmod(number * round(1e9 / rate), 1_000_000_000)
        info.header = picture.header = message.header = header
        send["camera_info"].publish(info)
        sent[header.stamp.sec * 1000 + header.stamp.nanosec // 1_000_000] = time.perf_counter()
        send["depth"].publish(picture)
        send["instances"].publish(message)

    try:
        number, end = 0, time.monotonic() + 60
        while not received:
            assert time.monotonic() < end, "objects_3d_node does not answer"
            number += 1
            publish(number)
            _spin_until(client, time.perf_counter() + 0.2)
        _spin_until(client, time.perf_counter() + 1.0)
        sent.clear()
        received.clear()
        used, start = _cpu_seconds(child.pid), time.perf_counter()
        for k in range(int(seconds * rate)):
            publish(number + 1 + k)
            _spin_until(client, start + (k + 1) / rate)
        _spin_until(client, time.perf_counter() + 2.0)
        used = _cpu_seconds(child.pid) - used
    finally:
        child.send_signal(2)
        child.wait(20)
        client.destroy_node()
        rclpy.try_shutdown()
    latency = np.array([received[stamp] - sent[stamp] for stamp in sent if stamp in received]) * 1e3
    load = os.getloadavg()[0]
    print(f"\n## objects_3d_node over DDS: {len(instances)} instances at 640x480, {rate:g} Hz, load {load:.1f}\n")
    print(f"sent {len(sent)}, lost {len(sent) - len(latency)}; masks and depth to objects: ", end="")
    print(", ".join(f"p{p} {np.percentile(latency, p):.1f} ms" for p in (50, 95, 99)))
    print(f"CPU time of the node: {1e3 * used / len(sent):.1f} ms for each image")


def _cpu_seconds(process: int) -> float:
    """CPU time that a process and its threads have taken so far (Linux)."""
    user, system = Path(f"/proc/{process}/stat").read_text(encoding="ascii").rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _spin_until(client: Any, end: float) -> None:
    import rclpy

    while (left := end - time.perf_counter()) > 0:
        rclpy.spin_once(client, timeout_sec=left)


def _draw(view: View, instances: Instances, scene: Scene, folder: Path | None, kind: str) -> None:
    """Supports grey, boxes of wholes with their axes, the best grasp red (wholes) or green (parts)."""
    if folder is None:
        return
    picture = cv2.cvtColor(view.image, cv2.COLOR_RGB2BGR)
    objects, center = scene.objects, (view.rays.x, view.rays.y)
    labels = cv2.resize(scene.grid.labels, picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    carrying = np.isin(labels, np.unique(objects.supports[objects.supports >= 0]))
    picture[carrying] = (0.7 * picture[carrying] + 0.3 * np.array([200, 160, 120])).astype(np.uint8)
    across = float(center[0][0, 1] - center[0][0, 0])
    down = float(center[1][1, 0] - center[1][0, 0])

    def pixel(point: np.ndarray) -> tuple[int, int]:
        x, y = point[0] / point[2] - center[0][0, 0], point[1] / point[2] - center[1][0, 0]
        return round(float(x / across)), round(float(y / down))

    def line(first: np.ndarray, second: np.ndarray, color: tuple[int, int, int], width: int = 1) -> None:
        if min(first[2], second[2]) > 0.05:
            cv2.line(picture, pixel(first), pixel(second), color, width, cv2.LINE_AA)

    for k in range(len(objects)):
        if objects.is_support[k] or objects.flags[k] & Flag.MIXED or objects.levels[k] == Level.SUBPART:
            continue
        is_whole = objects.levels[k] == Level.WHOLE
        middle, turn, half = objects.centers[k], objects.rotations[k], objects.sizes[k] / 2
        corners = [middle + turn @ (half * [a, b, c]) for a in (-1, 1) for b in (-1, 1) for c in (-1, 1)]
        for a in range(8):
            for b in range(a + 1, 8):
                if bin(a ^ b).count("1") == 1:
                    line(corners[a], corners[b], (255, 200, 0) if is_whole else (200, 100, 255))
        if is_whole:
            for axis, color in enumerate(((0, 0, 255), (0, 255, 0), (255, 0, 0))):
                line(middle, middle + 0.04 * turn[:, axis], color, 2)
        for grasp in find_grasps(scene, k, most=1):
            color = (0, 0, 255) if is_whole else (0, 220, 0)
            y, z, origin = grasp.pose[:3, 1], grasp.pose[:3, 2], grasp.pose[:3, 3]
            ends = [origin + s * grasp.width / 2 * y for s in (-1, 1)]
            for end in ends:
                line(end + grasp.reach * z, end + (grasp.reach - 0.06) * z, color, 2)
            line(ends[0] + (grasp.reach - 0.06) * z, ends[1] + (grasp.reach - 0.06) * z, color, 2)
    folder.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(folder / f"{view.name}_{kind}.png"), picture)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shared", type=Path, help="folder with data/rgbd")
    parser.add_argument("--pictures", type=Path, help="folder to draw into")
    parser.add_argument(
        "--node", type=float, default=0.0, metavar="S", help="run only objects_3d_node, so many seconds"
    )
    parser.add_argument("--scenes", type=int, default=25, help="rendered scenes")
    parser.add_argument("--repeat", type=int, default=50, help="repetitions of what is timed")
    options = parser.parse_args()
    if options.node:
        node(options.node)
        return 0
    cv2.setNumThreads(1)
    with contextlib.suppress(ImportError):  # as in the node's process, where ROS is installed
        from hassod_ros.nodes.process import keep_memory

        keep_memory()
    rendered(options.scenes)
    if options.shared:
        tabletop(options.shared, options.pictures)
        kitchen(options.shared)
        cue(options.shared)
    speed(options.repeat)
    return 0


if __name__ == "__main__":
    sys.exit(main())
