"""How long an image takes from a camera process through perception_node to a consumer process, and what that costs.

Rows of the table, each a run of its own with fresh processes:
    no node   camera -> consumer: what DDS and rclpy take alone
    node      camera -> perception_node with a model that answers at once -> consumer
    outside   the same with all around the default model's network, whose stand-in makes 100 detections at once
    naive     the same answers from a node as they are often written: the image copied and converted, a queue of ten,
              a mask of full size for each instance, data assigned as bytes
    model     perception_node with --model

Latencies are from the stamp, set just before the camera publishes, to the consumer's callback. A frame counts as
dropped if its result never comes. `found` is the fewest instances that a result held. `overhead` is the time inside the
node without the network, from its diagnostics; its p95 without a network, the difference of two with one.
`cpu` is of the node's process; 100 % is one core. `minflt` are its page faults per image.

With --load another process keeps a core busy, as it is on a robot; with --watch another one subscribes to label images
and overlay.

Example:
    python benchmarks/node.py --seconds 30
    python benchmarks/node.py --seconds 30 --model model.onnx --sizes 640x480
    python benchmarks/node.py --seconds 10 --load --watch --only node outside

"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import qos_profile_sensor_data
from roles import parse_size  # the script beside this one
from sensor_msgs.msg import Image

from hassod_msgs.msg import InstanceArray
from hassod_ros.children import end, start
from hassod_ros.errors import InputError
from hassod_ros.files import write_json

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = "/perception_node/instances"
WARM_UP = 2.0  # s of camera time that are not counted
START_LIMIT = 300.0  # s; training_free compiles
STAGES = ("wait", "convert", "segment", "publish")
PATHS = ("no node", "node", "outside", "naive", "model")


class Processes:
    """Child processes in a ROS domain of their own; a context manager that ends them."""

    def __init__(self) -> None:
        self.domain = free_domain()
        self._stack = ExitStack()
        self._logs, self._home = (Path(self._stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))

    def __enter__(self) -> Processes:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # else the children would outlive this process
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, name: str, command: list[str]) -> subprocess.Popen[bytes]:
        """Run a command that is ended as by Ctrl-C."""
        profile = os.environ.get("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds.xml"))
        environment = {
            **os.environ,
            "ROS_DOMAIN_ID": str(self.domain),
            "ROS_HOME": str(self._home),  # what these nodes were told must not reach those of the user
            "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
            "FASTDDS_DEFAULT_PROFILES_FILE": profile,
        }
        with open(self._logs / f"{name}.log", "ab") as log:
            child = start(command, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        self._stack.callback(end, child)
        return child

    def role(self, role: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Run one of the processes of roles.py."""
        script = Path(__file__).resolve().with_name("roles.py")
        return self.start(role, [sys.executable, str(script), role, *arguments])

    def said(self) -> str:
        """What the processes have printed."""
        return " ".join(log.read_text(errors="replace").strip() for log in sorted(self._logs.iterdir())) or "nothing"


def free_domain() -> int:
    """A ROS domain whose discovery port nobody on this machine uses.

    Raises:
        InputError: There is none.

    """
    for domain in range(1, 100):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.bind(("", 7410 + 250 * domain))  # where a domain's first participant listens
            except OSError:
                continue
            return domain
    raise InputError("every ROS domain from 1 to 99 is in use on this machine; end some nodes")


class Consumer:
    """Receives in this process and notes when.

    Attributes:
        latencies: Seconds from stamp to arrival by the frame's number.
        found: Instances in the result by the frame's number.
        figures: Newest diagnostics of the node.
        failure: Why the node cannot work, "" where it can.

    """

    def __init__(self, domain: int, kind: type, topic: str) -> None:
        os.environ.setdefault("FASTDDS_DEFAULT_PROFILES_FILE", str(ROOT / "config" / "fastdds.xml"))
        os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
        self.latencies: dict[int, float] = {}
        self.found: dict[int, int] = {}
        self.figures: dict[str, str] = {}
        self.failure = ""
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=domain)
        self.node = rclpy.create_node("consumer", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self.node)
        qos = qos_profile_sensor_data if kind is Image else 50
        self.node.create_subscription(kind, topic, self._on_message, qos)
        self.node.create_subscription(DiagnosticArray, "/diagnostics", self._on_diagnostics, 10)

    def _on_message(self, message: Any) -> None:
        header = message.header
        self.latencies[int(header.frame_id)] = time.time() - header.stamp.sec - header.stamp.nanosec * 1e-9
        self.found[int(header.frame_id)] = len(message.instances) if isinstance(message, InstanceArray) else 0

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        status = message.status[0]
        self.figures = {value.key: value.value for value in status.values}
        self.failure = status.message if status.level == DiagnosticStatus.ERROR else ""

    def spin_until(self, done: Callable[[], object], seconds: float) -> bool:
        """Receive until `done()` holds (True) or the time is over (False)."""
        end = time.monotonic() + seconds
        while not done():
            if time.monotonic() > end:
                return False
            self._executor.spin_once(timeout_sec=0.05)
        return True

    def wait_for(self, processes: Processes, child: subprocess.Popen[bytes], done: Callable[[], object]) -> None:
        """Receive until `done()` holds.

        Raises:
            InputError: The child has ended, the node cannot work, or nothing happens for minutes.

        """
        self.spin_until(lambda: done() or child.poll() is not None or self.failure, START_LIMIT)
        if not done():
            raise InputError(self.failure or f"nothing arrived; the processes printed: {processes.said()}")

    def close(self) -> None:
        """Leave the ROS network."""
        self._executor.shutdown()
        self.node.destroy_node()
        self._context.try_shutdown()


@dataclass(frozen=True)
class Result:
    """One row of the table; latencies in ms, NaN where nothing came. `stages`: medians inside the node."""

    size: str
    path: str
    sent: int
    received: int
    dropped: int
    found: int
    p50: float
    p95: float
    cpu: float
    minflt: float
    overhead_p50: float
    overhead_p95: float
    stages: dict[str, float]


def measure(path: str, size: tuple[int, int], given: argparse.Namespace) -> Result:
    """Run camera, node and consumer for a while.

    Raises:
        InputError: The node did not start; with what it printed.

    """
    count, skipped = round((WARM_UP + given.seconds) * given.rate), round(WARM_UP * given.rate)
    kind, topic = (Image, "/image") if path == "no node" else (InstanceArray, OUTPUT)
    with Processes() as processes:
        consumer = Consumer(processes.domain, kind, topic)
        try:
            node = start_node(processes, path, given.model) if path != "no node" else None
            if node is not None:
                consumer.wait_for(processes, node, lambda: consumer.node.count_subscribers("/image"))
            if given.load:
                processes.role("busy")
            if given.watch and node is not None:
                processes.role("watcher")
                consumer.spin_until(lambda: consumer.node.count_subscribers("/perception_node/overlay"), START_LIMIT)
            show = ["--size", f"{size[1]}x{size[0]}", "--rate", str(given.rate), "--count", str(count)]
            camera = processes.role("camera", *show, "--photograph", given.photograph)
            consumer.wait_for(processes, camera, lambda: consumer.latencies)
            consumer.spin_until(lambda: max(consumer.latencies) >= skipped or camera.poll() is not None, 60)
            before, began = process_figures(node.pid) if node else np.zeros(2), time.monotonic()
            consumer.spin_until(lambda: camera.poll() is not None, given.seconds + 60)
            used = process_figures(node.pid) - before if node else np.full(2, np.nan)
            cpu, faults = used / (time.monotonic() - began, count - skipped)
            # A queue may still be full.
            consumer.spin_until(lambda: max(consumer.latencies, default=0) == count - 1, 5)
            if camera.returncode:
                raise InputError(f"the camera failed; it printed: {processes.said()}")
            figures = dict(consumer.figures)
        finally:
            consumer.close()
    arrived = np.array([value for number, value in consumer.latencies.items() if number >= skipped]) * 1e3
    p50, p95 = np.percentile(arrived, (50, 95)) if len(arrived) else (np.nan, np.nan)
    # What the stand-in of a network takes is all overhead.
    network = 0 if path == "outside" else 1
    overhead = {
        percent: float(figures.get(f"total.{percent}_ms", "nan"))
        - network * float(figures.get(f"segment.{percent}_ms", "nan"))
        for percent in ("p50", "p95")
    }
    return Result(
        size=f"{size[1]}x{size[0]}",
        path=path,
        sent=count - skipped,
        received=len(arrived),
        dropped=count - skipped - len(arrived),
        found=min((found for number, found in consumer.found.items() if number >= skipped), default=0),
        p50=float(p50),
        p95=float(p95),
        cpu=100 * cpu,
        minflt=faults,
        overhead_p50=overhead["p50"],
        overhead_p95=overhead["p95"],
        stages={stage: float(figures[f"{stage}.p50_ms"]) for stage in STAGES if f"{stage}.p50_ms" in figures},
    )


def start_node(processes: Processes, path: str, model: str, *arguments: str) -> subprocess.Popen[bytes]:
    """The process in the middle of a path."""
    if path == "naive":
        return processes.role(path)
    # A camera that starts slowly on a busy machine is no failure here.
    options = ["--ros-args", "-p", "autostart:=true", "-p", "diagnostics.silence.error:=0.0", *arguments]
    if path == "model":
        command = [sys.executable, "-m", "hassod_ros.nodes.perception_node", *options, "-p", f"model:={model}"]
        return processes.start(path, command)
    return processes.role(path, *options)


def process_figures(pid: int) -> np.ndarray:
    """Processor time in s and minor page faults of a process so far (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return np.array([(int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), float(fields[7])])


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run, after a warm-up")
    parser.add_argument("--sizes", type=parse_size, nargs="+", default=[(480, 640), (1080, 1920)], metavar="WxH")
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera in Hz")
    parser.add_argument("--model", default="", help="also this model: a path, or training_free")
    parser.add_argument("--photograph", default="", help="what the camera shows")
    parser.add_argument("--only", nargs="+", choices=PATHS, help="these rows alone")
    parser.add_argument("--out", help="JSON file for the figures")
    parser.add_argument("--load", action="store_true", help="keep a core busy meanwhile")
    parser.add_argument("--watch", action="store_true", help="subscribe to label images and overlay too")
    given = parser.parse_args(arguments)
    paths = given.only or [path for path in PATHS if path != "model" or given.model]
    try:
        results = []
        print_row(
            *("size", "path", "sent", "dropped", "found", "p50 ms", "p95 ms", "cpu %", "minflt", "overhead p50", "p95"),
            "p50 of stages",
        )
        for size in given.sizes:
            for path in paths:
                results.append(measure(path, size, given))
                print_result(results)
        if given.out:
            write_json(given.out, [asdict(result) for result in results], indent=2)
    except InputError as error:
        print(f"node: {error}", file=sys.stderr)
        return 2
    return 0


def print_result(results: list[Result]) -> None:
    """The newest row, with the medians of its stages or its ratio to the node's row of the same size."""
    row = results[-1]
    node = next((r for r in results if r.size == row.size and r.path == "node"), None)
    remark = ", ".join(f"{stage} {value:.2f}" for stage, value in row.stages.items())
    if node is not None and row.path == "naive":
        remark = f"{row.p50 / node.p50:.1f} x node's p50, {row.cpu / node.cpu:.1f} x its cpu"
    figures = (
        "-" if np.isnan(value) else f"{value:.2f}"
        for value in (row.p50, row.p95, row.cpu, row.minflt, row.overhead_p50, row.overhead_p95)
    )
    print_row(row.size, row.path, str(row.sent), str(row.dropped), str(row.found), *figures, remark)


def print_row(*cells: str) -> None:
    """One line of the table."""
    widths = (10, 8, 6, 8, 6, 9, 9, 7, 9, 13, 7, 0)
    print(
        "".join(
            f"{cell:>{width}}" if i > 1 else f"{cell:{width}}"
            for i, (cell, width) in enumerate(zip(cells[:-1], widths, strict=False))
        ),
        cells[-1],
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
