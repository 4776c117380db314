"""Frames lost and time to go back while models are rolled out to two running nodes at 30 Hz.

The nodes are real ones, each with a model that answers at once, or with failures on real pictures. A frame is lost if
one of the nodes never answers it. A canary that fails answers nothing: its longest pause is the time until it ran the
old model again. Killed rollouts are called again, and every node's model is looked at in between.

Example:
    python benchmarks/rollout.py --kills 10

"""

from __future__ import annotations

import argparse
import itertools
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rclpy
from node import ROOT, Processes  # the script beside this one
from rclpy.executors import SingleThreadedExecutor

from hassod_msgs.msg import InstanceArray
from hassod_ros.commands import run
from hassod_ros.deploy.registry import IMPORTED, Registry
from hassod_ros.errors import InputError
from hassod_ros.evaluation.tables import format_table

NODES = ("/r1/perception_node", "/r2/perception_node")
LIMIT = 120.0  # s for anything that is waited for


class Robots:
    """Two nodes that run version 1 of a registry, one camera, and an ear for what the nodes answer."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self._processes = processes
        self._registry = Registry(folder / "models", create=True)
        self._versions = {}
        for number, text in enumerate(("null", "null", "fails"), 1):
            file = folder / "made"
            file.write_text(f"{text}\n{number}")
            self._versions[self._registry.register(file, status=IMPORTED).sha256] = number
        self._context = rclpy.Context()
        rclpy.init(context=self._context, domain_id=processes.domain)
        listener = rclpy.create_node("listener", context=self._context)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(listener)
        self.answers: dict[str, list[tuple[int, float, int]]] = {}  # frame, arrival, version
        for node in NODES:
            names = ["-r", f"__ns:={node.rpartition('/')[0]}", "-r", "image:=/image"]
            values = [f"model:={self._registry.resolve('1').model}", "autostart:=true", "diagnostics_period:=0.5"]
            words = [word for value in values for word in ("-p", value)]
            processes.role("node", "--ros-args", *words, *names)
            self.answers[node] = []
            listener.create_subscription(InstanceArray, f"{node}/instances", self._ear(node), 50)
        self._wait(lambda: listener.count_subscribers("/image") >= len(NODES))
        processes.role("camera", "--topic", "/image")
        self._wait(lambda: all(len(answers) > 60 for answers in self.answers.values()))

    def _ear(self, node: str) -> Any:
        def hear(message: InstanceArray) -> None:
            self.answers[node].append(
                (int(message.header.frame_id), time.monotonic(), self._versions[message.model_sha256])
            )

        return hear

    def _wait(self, done: Any, limit: float = LIMIT) -> None:
        end = time.monotonic() + limit
        while not done():
            if time.monotonic() > end:
                raise InputError(f"nothing more came; the processes printed: {self._processes.said()}")
            self._executor.spin_once(timeout_sec=0.05)

    def listen(self, seconds: float) -> None:
        """Take answers in for so long."""
        end = time.monotonic() + seconds
        self._wait(lambda: time.monotonic() > end, seconds + 1)

    def start(self, version: int, watch: float) -> subprocess.Popen[str]:
        """Begin a rollout."""
        words = ["--registry", str(self._registry.root), "--version", str(version), "--watch", str(watch)]
        command = [sys.executable, str(ROOT / "export" / "rollout.py"), *words, "--nodes", *NODES]
        return self._processes.start("rollout", command)

    def finish(self, child: subprocess.Popen[str]) -> int:
        """Wait until it has ended, and a second more; its status."""
        self._wait(lambda: child.poll() is not None)
        self.listen(1.0)
        return int(child.returncode)

    def forget(self) -> None:
        """Begin counting anew."""
        for answers in self.answers.values():
            answers.clear()

    def lost(self, node: str) -> int:
        """Frames between the first and the last answer that were never answered."""
        frames = [frame for frame, _, _ in self.answers[node]]
        return frames[-1] - frames[0] + 1 - len(set(frames))

    def pause(self, node: str) -> float:
        """Longest time between two answers, s."""
        times = [arrival for _, arrival, _ in self.answers[node]]
        return max(b - a for a, b in itertools.pairwise(times))

    def now(self) -> list[int]:
        """Version that each node runs, by what it answers next."""
        self.forget()
        self._wait(lambda: all(len(answers) > 2 for answers in self.answers.values()))
        return [answers[-1][2] for answers in self.answers.values()]

    def close(self) -> None:
        """Leave the ROS network."""
        self._executor.shutdown()
        self._context.try_shutdown()


def measure(watch: float, kills: int) -> None:
    """Roll out, fail, kill; print what it costs.

    Raises:
        InputError: A node runs what it should not.

    """
    rows: dict[str, dict[str, str]] = {}
    with Processes() as processes, tempfile.TemporaryDirectory() as folder:
        robots = Robots(processes, Path(folder))
        try:
            for version in (2, 1):
                robots.now()
                status = robots.finish(robots.start(version, watch))
                rows[f"rollout of version {version}"] = _row(robots, f"status {status}")
            robots.now()
            status = robots.finish(robots.start(3, watch=60.0))
            rows["canary that fails"] = _row(robots, f"status {status}")
            _expect(robots.now(), {1})
            rng, broken = random.Random(0), 0
            for number in range(kills):
                wanted = 2 - number % 2
                child = robots.start(wanted, watch)
                robots.listen(rng.uniform(0.5, 3.0 + 2 * watch))
                broken += child.poll() is None
                child.send_signal(signal.SIGKILL)
                _expect(robots.now(), {1, 2})
                if robots.finish(robots.start(wanted, watch)):
                    raise InputError(f"the call after kill {number + 1} failed: {processes.said()}")
                _expect(robots.now(), {wanted})
        finally:
            robots.close()
    columns = ("frames", "lost, canary", "lost, other", "longest pause, canary", "ended")
    print(format_table(rows, columns, corner="two nodes at 30 Hz"))
    if kills:
        print(
            f"{broken} of {kills} kills came before the end; every node ran one of both models, the next call finished"
        )


def _row(robots: Robots, ended: str) -> dict[str, str]:
    frames = [frame for frame, _, _ in robots.answers[NODES[1]]]
    return {
        "frames": str(frames[-1] - frames[0] + 1),
        "lost, canary": str(robots.lost(NODES[0])),
        "lost, other": str(robots.lost(NODES[1])),
        "longest pause, canary": f"{robots.pause(NODES[0]):.2f} s",
        "ended": ended,
    }


def _expect(running: list[int], allowed: set[int]) -> None:
    if not set(running) <= allowed:
        raise InputError(f"the nodes run versions {running}; only {sorted(allowed)} should")


def main(arguments: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--watch", type=float, default=2.0, help="seconds that nodes are watched")
    parser.add_argument("--kills", type=int, default=10, help="rollouts to kill at a random time")
    given = parser.parse_args(arguments)
    return run("rollout", lambda: measure(given.watch, given.kills))


if __name__ == "__main__":
    sys.exit(main())
