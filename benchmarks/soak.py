"""Whether perception_node's memory, open files and threads stay the same while it works for long.

Two camera processes show images at 30 Hz to one node. Meanwhile the model is reloaded, parameters change, one camera is
killed and comes back, and subscribers come and go. Exit status 1 where something grows, 0 where not.

The first half is warm-up: a process takes memory until it has seen everything that happens to it, and keeps what it
took. Memory grows where straight lines through the third and through the last quarter both rise by more than 1 MB per
10,000 images, and by more than 4 MB together: what levels off is no leak. Open files and threads grow where the last
quarter has more of them than the one before.

Example:
    python benchmarks/soak.py --minutes 60
    python benchmarks/soak.py --minutes 600 --model model.onnx --size 1920x1080

"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from node import START_LIMIT, Consumer, Processes, start_node  # the scripts beside this one
from rcl_interfaces.srv import SetParameters
from rclpy.parameter import Parameter
from roles import parse_size
from sensor_msgs.msg import CompressedImage, Image

from hassod_msgs.msg import InstanceArray
from hassod_msgs.srv import ReloadModel
from hassod_ros.errors import InputError
from hassod_ros.files import write_json
from hassod_ros.nodes.shared_memory import remove_orphans

CAMERAS = ("left", "right")
LISTENED = (
    (Image, "left/overlay"),
    (CompressedImage, "right/overlay/compressed"),
    (Image, "left/labels/part"),
    (InstanceArray, "right/instances"),
)
SAMPLES = (12, 60)  # least and most; between them one in ten seconds
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


class Visitors:
    """What happens to a node in the field, a step at each call.

    Args:
        processes: That the cameras belong to.
        consumer: Whose node speaks to perception_node.
        given: The options of this script.

    """

    def __init__(self, processes: Processes, consumer: Consumer, given: argparse.Namespace) -> None:
        self._processes, self._consumer, self._given = processes, consumer, given
        self._clients = {
            kind: consumer.node.create_client(kind, f"/perception_node/{name}")
            for kind, name in ((ReloadModel, "reload_model"), (SetParameters, "set_parameters"))
        }
        self._subscriptions: list[Any] = []
        self.cameras = {name: self._start(name) for name in CAMERAS}
        self._steps = 0

    def _start(self, name: str) -> subprocess.Popen[bytes]:
        size = f"{self._given.size[1]}x{self._given.size[0]}"
        options = ["--topic", f"{name}/image", "--size", size, "--rate", str(self._given.rate)]
        return self._processes.role("camera", *options)

    def step(self) -> None:
        """Subscribers come or go and parameters change; every few steps a camera dies, or the model is reloaded.

        Raises:
            InputError: The node did not do as it was told.

        """
        self._steps += 1
        if self._subscriptions:
            for subscription in self._subscriptions:
                self._consumer.node.destroy_subscription(subscription)
            self._subscriptions = []
        else:
            self._subscriptions = [
                self._consumer.node.create_subscription(kind, f"/perception_node/{name}", lambda _: None, 1)
                for kind, name in LISTENED
            ]
        odd = self._steps % 2 == 1
        changes: dict[str, Any] = {
            "levels": ["whole", "part"] if odd else ["whole", "part", "subpart"],
            "overlay.opacity": 0.3 if odd else 0.6,
            "max_rate": 20.0 if odd else 0.0,
            "max_instances": 10 if odd else 100,
        }
        request = SetParameters.Request(
            parameters=[Parameter(name, value=value).to_parameter_msg() for name, value in changes.items()]
        )
        if not all(result.successful for result in self._ask(request).results):
            raise InputError("a parameter was not changed")
        if self._steps % 3 == 0:
            name = CAMERAS[self._steps // 3 % len(CAMERAS)]
            self.cameras[name].kill()  # without a word, as a cable that is pulled
            self.cameras[name].wait()
            self._consumer.spin_until(lambda: False, 1.0)
            self.cameras[name] = self._start(name)
        if self._steps % 5 == 0:
            answer = self._ask(ReloadModel.Request(path=self._given.model or "null"))
            if not answer.success:
                raise InputError(f"the model was not reloaded: {answer.message}")

    def _ask(self, request: Any) -> Any:
        kind = ReloadModel if isinstance(request, ReloadModel.Request) else SetParameters
        future = self._clients[kind].call_async(request)
        self._consumer.spin_until(future.done, START_LIMIT)
        if not future.done():
            raise InputError("the node does not answer")
        return future.result()


def soak(given: argparse.Namespace) -> Iterator[Sample]:
    """Run the node under load and look at it again and again.

    Raises:
        InputError: The node did not start or answer, ended, or refused what it was asked for.

    """
    with Processes() as processes:
        first, second = (f"/perception_node/{name}/instances" for name in CAMERAS)
        consumer = Consumer(processes.domain, InstanceArray, first)
        answers = 0

        def count(_: Any) -> None:
            nonlocal answers
            answers += 1

        try:
            for topic in (first, second):
                consumer.node.create_subscription(InstanceArray, topic, count, 10)
            cameras = ["-p", f"cameras:=[{', '.join(CAMERAS)}]"]
            node = start_node(processes, "model" if given.model else "node", given.model, *cameras)
            visitors = Visitors(processes, consumer, given)
            consumer.wait_for(processes, node, lambda: consumer.latencies)
            steps = min(max(round(6 * given.minutes), SAMPLES[0]), SAMPLES[1])
            for number in range(steps):
                consumer.spin_until(lambda: False, 60 * given.minutes / steps)
                before = answers
                consumer.spin_until(lambda before=before: answers > before + 20, 60)
                if answers <= before:
                    raise InputError("the node has stopped to answer")
                seconds = 60 * given.minutes / steps * (number + 1)
                yield Sample(seconds=seconds, answers=answers, **read_process(node.pid))
                visitors.step()
        finally:
            consumer.close()
            remove_orphans()  # of the cameras that were killed


def slope(samples: list[Sample]) -> tuple[float, float]:
    """Growth of the memory: MB in all, and MB per 10,000 answers.

    Raises:
        InputError: There were no answers meanwhile.

    """
    answers = np.array([sample.answers for sample in samples], float)
    if answers[0] == answers[-1]:
        raise InputError("the node answered nothing after the warm-up")
    per_answer = float(np.polyfit(answers, [sample.memory_mb for sample in samples], 1)[0])
    return per_answer * (answers[-1] - answers[0]), 1e4 * per_answer


def growing(samples: list[Sample]) -> list[str]:
    """What grows, each in a sentence."""
    quarter = len(samples) // 4
    earlier, later = samples[-2 * quarter : -quarter], samples[-quarter:]
    found = []
    rises = [slope(part) for part in (earlier, later)]
    least = min(per_images for _, per_images in rises)
    if least > LIMIT and sum(total for total, _ in rises) > NOISE:
        found.append(f"memory grows by {least:.2f} MB per 10,000 images")
    for name in ("files", "threads"):
        before, after = (max(getattr(sample, name) for sample in part) for part in (earlier, later))
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
        total, per_images = slope(samples[len(samples) // 2 :])
        found = growing(samples)
    except InputError as error:
        print(f"soak: {error}", file=sys.stderr)
        return 2
    print(f"after the warm-up: {total:+.1f} MB in all, {per_images:+.2f} MB per 10,000 images")
    print(f"soak: {'; '.join(found) or 'nothing grows'}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
