"""Whether perception_node's memory, open files and threads stay the same while it works for long.

A camera process shows an image at 30 Hz; one subscriber listens all the time, another one comes and goes, and the
model is reloaded now and then. Exit status 1 where something grows, 0 where not.

The first third is warm-up. Through the memory of the rest goes a straight line; it grows where the line rises by more
than 4 MB in all and by more than 1 MB per 10,000 images. Open files and threads grow where the last third has more
of them than the one before.

Example:
    python benchmarks/soak.py --minutes 60
    python benchmarks/soak.py --minutes 600 --model model.onnx --size 1920x1080

"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from node import OUTPUT, START_LIMIT, Consumer, Processes, parse_size, start_node  # the script beside this one
from sensor_msgs.msg import Image

from hassod_msgs.msg import InstanceArray
from hassod_msgs.srv import ReloadModel
from hassod_ros.errors import InputError
from hassod_ros.files import write_json

SAMPLES = 60
RELOADS = 6
NOISE = 4.0  # MB
LIMIT = 1.0  # MB per 10,000 images; in a week at 30 Hz that would be 1.8 GB


@dataclass(frozen=True)
class Sample:
    """What the node's process holds after so many answers."""

    seconds: float
    memory_mb: float
    files: int
    threads: int
    answers: int


def read_process(pid: int) -> dict[str, Any]:
    """Resident memory in MB, open files and threads of a process (Linux).

    Raises:
        InputError: It has ended.

    """
    folder = Path(f"/proc/{pid}")
    try:
        status = dict(line.split(":", 1) for line in (folder / "status").read_text().splitlines())
        files = sum(1 for _ in (folder / "fd").iterdir())
        return {
            "memory_mb": int(status["VmRSS"].split()[0]) / 1024,
            "files": files,
            "threads": int(status["Threads"]),
        }
    except (OSError, KeyError) as error:
        raise InputError("the node ended during the soak") from error


def soak(given: argparse.Namespace) -> Iterator[Sample]:
    """Run the node under load and look at it `SAMPLES` times.

    Raises:
        InputError: The node did not start or answer, ended, or refused to reload its model.

    """
    with Processes() as processes:
        consumer = Consumer(processes.domain, InstanceArray, OUTPUT)
        try:
            node = start_node(processes, "model" if given.model else "node", given.model)
            size = f"{given.size[1]}x{given.size[0]}"
            processes.role("camera", "--size", size, "--rate", str(given.rate))
            consumer.wait_for(processes, node, lambda: consumer.latencies)
            reload = consumer.node.create_client(ReloadModel, "/perception_node/reload_model")
            interval, visitor = 60 * given.minutes / SAMPLES, None
            for number in range(SAMPLES):
                consumer.spin_until(lambda: False, interval)
                answers = len(consumer.latencies)
                yield Sample(seconds=interval * (number + 1), answers=answers, **read_process(node.pid))
                if visitor is None:
                    topic = "/perception_node/overlay"
                    visitor = consumer.node.create_subscription(Image, topic, lambda _: None, 1)
                else:
                    consumer.node.destroy_subscription(visitor)
                    visitor = None
                if number % (SAMPLES // RELOADS) == 0:
                    future = reload.call_async(ReloadModel.Request(path=given.model or "null"))
                    consumer.spin_until(future.done, START_LIMIT)
                    answer = future.result() if future.done() else None
                    if answer is None or not answer.success:
                        raise InputError(f"the model was not reloaded: {answer.message if answer else 'no answer'}")
        finally:
            consumer.close()


def slope(samples: list[Sample]) -> tuple[float, float]:
    """Growth of the memory after the warm-up: MB in all, and MB per 10,000 answers.

    Raises:
        InputError: There were no answers after the warm-up.

    """
    settled = samples[len(samples) // 3 :]
    answers = np.array([sample.answers for sample in settled], float)
    if answers[0] == answers[-1]:
        raise InputError("the node answered nothing after the warm-up")
    per_answer = float(np.polyfit(answers, [sample.memory_mb for sample in settled], 1)[0])
    return per_answer * (answers[-1] - answers[0]), 1e4 * per_answer


def growing(samples: list[Sample]) -> list[str]:
    """What grows, each in a sentence."""
    total, per_images = slope(samples)
    third = len(samples) // 3
    found = []
    if total > NOISE and per_images > LIMIT:
        found.append(f"memory grows by {per_images:.2f} MB per 10,000 images")
    for name in ("files", "threads"):
        before, after = (
            max(getattr(s, name) for s in part) for part in (samples[third : 2 * third], samples[2 * third :])
        )
        if after > before:
            found.append(f"{name} grow from {before} to {after}")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Soak, print and judge."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--size", type=parse_size, default=(480, 640), metavar="WxH")
    parser.add_argument("--rate", type=float, default=30.0, help="of the camera in Hz")
    parser.add_argument("--model", default="", help="path, or training_free. Default: one that answers at once")
    parser.add_argument("--out", help="JSON file for the samples")
    given = parser.parse_args(arguments)
    samples: list[Sample] = []
    try:
        print(f"{'seconds':>9}{'memory MB':>11}{'files':>7}{'threads':>9}{'answers':>10}")
        for s in soak(given):
            samples.append(s)
            print(f"{s.seconds:9.0f}{s.memory_mb:11.1f}{s.files:7}{s.threads:9}{s.answers:10}", flush=True)
        if given.out:
            write_json(given.out, [asdict(sample) for sample in samples], indent=2)
        total, per_images = slope(samples)
        found = growing(samples)
    except InputError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    print(f"after the warm-up: {total:+.1f} MB in all, {per_images:+.2f} MB per 10,000 images")
    print(f"soak: {'; '.join(found) or 'nothing grows'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
