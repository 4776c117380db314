"""demo: a camera of photographs or a video, the perception node and a recorder as three processes over ROS 2."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray
from rclpy.executors import SingleThreadedExecutor
from rclpy.time import Time
from sensor_msgs.msg import Image

from hassod_msgs.msg import InstanceArray
from hassod_ros.children import end, start
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, write_json, write_text
from hassod_ros.footage.kinds import is_bag, is_video
from hassod_ros.images import list_images
from hassod_ros.nodes.convert import image_to_array, to_rgb
from hassod_ros.photographs import bundled_photographs

SIZE = (480, 640)  # H, W of the camera's frames
RATE = 30.0  # Hz
VIDEO_RATE = 10.0  # Hz
PICTURES = 8
LEAST_STILL = 0.5  # s that a photograph is shown at least
START_LIMIT = 600.0  # s; the first run compiles


class Recorder:
    """Subscribes to the perception node as any user would.

    Attributes:
        latencies: Seconds from an image's stamp to the arrival of its instances.
        overlays: (seconds since the first one by stamp, JPEG bytes).
        figures: Newest diagnostics by node name.

    """

    def __init__(self, domain: int) -> None:
        self.latencies: list[float] = []
        self.overlays: list[tuple[float, bytes]] = []
        self.figures: dict[str, dict[str, str]] = {}
        self.instances = 0
        self._first: Time | None = None
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self._node = rclpy.create_node("recorder", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(InstanceArray, "/perception_node/instances", self._on_instances, 10)
        self._node.create_subscription(Image, "/perception_node/overlay", self._on_overlay, 10)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_instances(self, message: InstanceArray) -> None:
        age = self._node.get_clock().now() - Time.from_msg(message.header.stamp)
        self.latencies.append(age.nanoseconds * 1e-9)
        self.instances += len(message.instances)

    def _on_overlay(self, message: Image) -> None:
        stamp = Time.from_msg(message.header.stamp)
        self._first = self._first or stamp
        bgr = cv2.cvtColor(to_rgb(*image_to_array(message)), cv2.COLOR_RGB2BGR)
        jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        self.overlays.append(((stamp - self._first).nanoseconds * 1e-9, jpeg))

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        for status in message.status:
            node = status.name.partition(":")[0].strip("/")
            self.figures[node] = {value.key: value.value for value in status.values} | {"message": status.message}

    def figure(self, node: str, key: str) -> int:
        """A count of the newest diagnostics; 0 before there are any."""
        return int(self.figures.get(node, {}).get(key, 0))

    def listeners(self) -> int:
        """Nodes that wait for camera images."""
        return self._node.count_subscribers("/image")

    def spin_until(self, done: Callable[[], object], seconds: float) -> bool:
        """Receive until `done()` holds (True) or the time is over (False)."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if done():
                return True
            self._executor.spin_once(timeout_sec=0.05)
        return False

    def close(self) -> None:
        """Leave the ROS network."""
        self._executor.shutdown()
        self._node.destroy_node()
        self._context.try_shutdown()


class Show(NamedTuple):
    """What the camera shows.

    Attributes:
        source: Folder, list of photographs, video or recording.
        still: Seconds that a window moves over each photograph; 0 for what moves by itself.
        rate: Frames per second.

    """

    source: Path
    still: float
    rate: float


def prepare(given: Path | None, out: Path, seconds: float) -> Show:
    """The show of a source: a video in its own time, of photographs as many as the time suffices for.

    Args:
        given: Folder, list of photographs, one photograph, video or recording; None: photographs of scikit-image.
        out: Folder for the list of photographs.
        seconds: Of the show.

    Raises:
        InputError: There is nothing to show.

    """
    if given is not None and (is_video(given) or is_bag(given)):
        if not given.exists():
            raise InputError(f"{given} does not exist; check the path")
        rate = cv2.VideoCapture(str(given)).get(cv2.CAP_PROP_FPS) if is_video(given) else 0.0
        return Show(given.resolve(), 0.0, rate if 1 <= rate <= 60 else RATE)
    photographs = bundled_photographs() if given is None else list_images(given)
    most = max(1, int(seconds / LEAST_STILL))
    if len(photographs) > most:  # evenly spread
        photographs = [photographs[round(i)] for i in np.linspace(0, len(photographs) - 1, most)]
    source = out / "photographs.txt"
    write_text(source, "".join(f"{path.resolve()}\n" for path in photographs))
    return Show(source, seconds / len(photographs), RATE)


def record(show: Show, out: Path, *, model: str, seconds: float) -> dict[str, Any]:
    """Run the camera and the node for a while and record what the node publishes.

    Args:
        show: What camera_player shows.
        out: Folder that gets the two processes' logs.
        model: Parameter of perception_node.
        seconds: Of camera time.

    Returns:
        `summary` for summary.json, and `overlays` as in `Recorder`.

    Raises:
        InputError: A process did not start or answer; its log says why.

    """
    domain = random.randrange(1, 100)
    recorder = Recorder(domain)
    children: list[subprocess.Popen[bytes]] = []
    try:
        node = _start("perception_node", domain, out, model=model, autostart=True)
        children.append(node)
        recorder.spin_until(lambda: recorder.listeners() or node.poll() is not None, START_LIMIT)
        if not recorder.listeners():
            raise InputError(f"perception_node does not listen to the camera; see {out}/perception_node.log")
        size = {"height": SIZE[0], "width": SIZE[1]}
        camera = _start(
            "camera_player",
            domain,
            out,
            source=show.source,
            rate=show.rate,
            count=round(seconds * show.rate),
            pan_zoom=show.still,
            wait=True,
            **size,
        )
        children.append(camera)
        recorder.spin_until(lambda: camera.poll() is not None, seconds + START_LIMIT)
        # The last report counts every frame that the node will ever handle.
        recorder.spin_until(lambda: _settled(recorder.figures.get("perception_node", {})), 30)
    finally:
        for child in reversed(children):
            end(child)
        recorder.close()
    if not recorder.latencies:
        raise InputError(f"no instances arrived; see {out}/perception_node.log and {out}/camera_player.log")
    counts = recorder.figures["perception_node"]
    p50, p95 = np.percentile(recorder.latencies, (50, 95)) * 1e3
    summary = {
        "model": counts["model"],
        "frames_sent": recorder.figure("camera_player", "sent"),
        "frames_received": recorder.figure("perception_node", "received"),
        "frames_processed": recorder.figure("perception_node", "processed"),
        "frames_dropped": {
            key.removeprefix("dropped."): int(counts[key]) for key in counts if key.startswith("dropped.")
        },
        "arrays_recorded": len(recorder.latencies),
        "instances_per_frame": round(recorder.instances / len(recorder.latencies), 1),
        "latency_p50_ms": round(float(p50), 1),
        "latency_p95_ms": round(float(p95), 1),
    }
    return {"summary": summary, "overlays": recorder.overlays}


def _settled(counts: dict[str, str]) -> bool:
    handled = sum(int(value) for key, value in counts.items() if key == "processed" or key.startswith("dropped."))
    return counts.get("message") == "no new image" and handled == int(counts["received"])


def _start(name: str, domain: int, out: Path, **parameters: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"hassod_ros.nodes.{name}", "--ros-args"]
    for key, value in parameters.items():
        command += ["-p", f"{key}:={str(value).lower() if isinstance(value, bool) else value}"]
    with open(out / f"{name}.log", "wb") as log:
        # A session of its own: Ctrl-C reaches this process alone, which then stops the others in order.
        return start(
            command,
            env={**os.environ, "ROS_DOMAIN_ID": str(domain)},
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def write_pictures(overlays: list[tuple[float, bytes]], out: Path) -> None:
    """Write a few evenly chosen overlays as overlay_N.jpg."""
    for old in out.glob("overlay_*.jpg"):
        old.unlink()
    chosen = np.linspace(0, len(overlays) - 1, min(PICTURES, len(overlays))).round().astype(int)
    for number, index in enumerate(chosen, start=1):
        with atomic_path(out / f"overlay_{number}.jpg") as temporary:
            temporary.write_bytes(overlays[index][1])


def write_video(overlays: list[tuple[float, bytes]], path: Path) -> None:
    """Write the overlays as a video that plays in camera time; each stays until the next one.

    Raises:
        InputError: This build of OpenCV writes no mp4.

    """
    times = np.array([seconds for seconds, _ in overlays])
    ticks = np.arange(0, times[-1] + 1 / VIDEO_RATE, 1 / VIDEO_RATE)
    with atomic_path(path) as temporary:
        video = cv2.VideoWriter(str(temporary), cv2.VideoWriter.fourcc(*"mp4v"), VIDEO_RATE, (SIZE[1], SIZE[0]))
        if not video.isOpened():
            raise InputError("this OpenCV writes no mp4; install opencv-python-headless from PyPI")
        for index in np.searchsorted(times, ticks, side="right") - 1:
            video.write(np.asarray(cv2.imdecode(np.frombuffer(overlays[index][1], np.uint8), cv2.IMREAD_COLOR)))
        video.release()


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo_output"), help="folder for the results")
    parser.add_argument(
        "--images",
        type=Path,
        help="folder or list of photographs, video or recording to show (default: photographs of scikit-image)",
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="camera time")
    parser.add_argument("--model", default="default", help="as the parameter of perception_node")
    options = parser.parse_args()
    try:
        options.out.mkdir(parents=True, exist_ok=True)
        show = prepare(options.images, options.out, options.seconds)
        print("demo: starting the nodes; the first run compiles for a minute", flush=True)
        result = record(show, options.out, model=options.model, seconds=options.seconds)
        write_json(options.out / "summary.json", result["summary"], indent=2)
        write_pictures(result["overlays"], options.out)
        write_video(result["overlays"], options.out / "overlay.mp4")
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    summary = result["summary"]
    dropped = sum(summary["frames_dropped"].values())
    print(
        f"demo: {summary['frames_sent']} frames sent, {summary['frames_received']} received, "
        f"{summary['frames_processed']} processed, {dropped} dropped (the newest wins), "
        f"latency p50 {summary['latency_p50_ms']:.0f} ms, p95 {summary['latency_p95_ms']:.0f} ms; "
        f"pictures, video and summary.json are in {options.out}/"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
