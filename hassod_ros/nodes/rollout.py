"""Another model onto running nodes, one first, the rest after; back on any failure."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.context import Context
from rclpy.exceptions import InvalidTopicNameException
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.validate_full_topic_name import validate_full_topic_name

from hassod_msgs.srv import ReloadModel
from hassod_ros.default_model import default_model
from hassod_ros.deploy.fleet import Options, Target
from hassod_ros.deploy.registry import Registry, Version
from hassod_ros.deploy.watch import Report, Watch, merge
from hassod_ros.errors import InputError
from hassod_ros.files import sha256, try_lock

FOUND = 10.0  # s in which a node must be found and report
SILENT = 5.0  # s without a report after which a node counts as dead
Say = Callable[[str], object]


class Fleet:
    """Client of some nodes: what they report, and their `~/reload_model`.

    Args:
        targets: The nodes.
        context: Of rclpy. Default: one of its own.

    """

    def __init__(self, targets: Sequence[Target], context: Context | None = None) -> None:
        for target in targets:
            try:
                validate_full_topic_name(target.node)
            except InvalidTopicNameException as error:  # noqa: PERF203
                raise InputError(f"{target.node!r} cannot be a node: {error.args[0].splitlines()[0]}") from error
        self.targets = targets
        self.reports: dict[str, tuple[float, Report]] = {}  # when, what
        self.fresh: dict[str, list[Report]] = {target.node: [] for target in targets}
        self._context = context or Context()
        self._own = context is None
        if self._own:
            rclpy.init(context=self._context)
        self._node = Node("rollout", context=self._context, start_parameter_services=False)
        self._executor = SingleThreadedExecutor(context=self._context)
        self._executor.add_node(self._node)
        self._node.create_subscription(DiagnosticArray, "/diagnostics", self._hear, 50)
        self._clients: dict[str, Any] = {
            target.node: self._node.create_client(ReloadModel, f"{target.node}/reload_model") for target in targets
        }

    def close(self) -> None:
        """Leave the network."""
        self._executor.shutdown()
        self._node.destroy_node()
        if self._own:
            self._context.try_shutdown()

    def _hear(self, message: DiagnosticArray) -> None:
        statuses: dict[str, list[Any]] = {}
        for status in message.status:
            node = status.name.partition(": ")[0]
            if node in self.fresh:
                values = {value.key: value.value for value in status.values}
                if "model_sha256" in values:
                    is_error = status.level >= DiagnosticStatus.ERROR
                    statuses.setdefault(node, []).append((is_error, status.message, values))
        for node, rows in statuses.items():
            report = merge(rows)
            self.reports[node] = time.monotonic(), report
            self.fresh[node].append(report)

    def spin(self, seconds: float = 0.1) -> None:
        """Hear what comes within a time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self._executor.spin_once(timeout_sec=left)

    def find(self) -> dict[str, Report]:
        """A report of every node.

        Raises:
            InputError: A node is not found, does not report, or has no model.

        """
        end = time.monotonic() + FOUND
        while True:
            silent = [t.node for t in self.targets if not (t.node in self.reports and self.reports[t.node][1].sha256)]
            unready = [node for node, client in self._clients.items() if not client.service_is_ready()]
            if not silent and not unready:
                return {target.node: self.reports[target.node][1] for target in self.targets}
            if time.monotonic() > end:
                what = f"has no service {unready[0]}/reload_model" if unready else f"hears nothing of {silent[0]}"
                raise InputError(
                    f"the network {what} within {FOUND:.0f} s; check the name, ROS_DOMAIN_ID, and that the node is "
                    "configured and publishes /diagnostics"
                )
            self.spin()

    def reload(self, target: Target, path: str, timeout: float) -> None:
        """Let a node load a model.

        Raises:
            InputError: It says no, or nothing.

        """
        future = self._clients[target.node].call_async(ReloadModel.Request(path=path))
        end = time.monotonic() + timeout
        while not future.done():
            if time.monotonic() > end:
                self._clients[target.node].remove_pending_request(future)
                raise InputError(f"{target} did not answer within {timeout:.0f} s")
            self._executor.spin_once(timeout_sec=0.1)
        answer: Any = future.result()
        if not answer.success:
            raise InputError(f"{target}: {answer.message}")
        self.fresh[target.node].clear()

    def watch(self, targets: Sequence[Target], wanted: str, before: dict[str, Report], seconds: float) -> None:
        """Look on for some time.

        Raises:
            InputError: A node is not well.

        """
        watches = {target.node: Watch(wanted, before[target.node]) for target in targets}
        start = time.monotonic()
        while time.monotonic() - start < seconds or not all(self._confirmed(t.node, wanted) for t in targets):
            self.spin()
            for node, watch in watches.items():
                reports, self.fresh[node] = self.fresh[node], []
                for report in reports:
                    if problem := watch.add(report):
                        raise InputError(f"{node} is not well: {problem}")
                if time.monotonic() - max(self.reports[node][0], start) > SILENT:
                    raise InputError(f"{node} has not reported for {SILENT:.0f} s")

    def _confirmed(self, node: str, wanted: str) -> bool:
        return self.reports[node][1].sha256 == wanted


def roll_out(registry: Registry, version: Version, fleet: Fleet, options: Options, say: Say = print) -> None:
    """Let all nodes run a version: the canaries first, watched, the rest after; back to what they ran on any failure.

    A call that was killed is finished by the next one: nodes that run the version already are only watched.

    Raises:
        InputError: It failed; the nodes that could be reached run what they ran before. Or another call changes one of
            the nodes at this moment.

    """
    with _alone(registry, fleet.targets):
        _roll_out(registry, version, fleet, options, say)


@contextmanager
def _alone(registry: Registry, targets: Sequence[Target]) -> Iterator[None]:
    """Keep others of this registry and machine from the nodes."""
    with ExitStack() as held:
        for target in targets:
            file = registry.root / f".rollout{target.node.replace('/', '.')}"
            try:
                lock = held.enter_context(file.open("a"))
            except OSError as error:
                raise InputError(f"cannot write {file}: {error.strerror}; free or unlock it") from error
            if not try_lock(lock.fileno()):
                raise InputError(
                    f"another rollout or rollback changes {target} at this moment; wait for its end, or stop it, which "
                    "puts its nodes back"
                )
        yield


def _roll_out(registry: Registry, version: Version, fleet: Fleet, options: Options, say: Say) -> None:
    version.check()
    now = fleet.find()
    before = _before(registry, version, now)
    places = {digest: _file_of(registry, digest) for digest in {*before.values()}}  # so that there is a way back
    registry.tell("rollout", version=str(version), sha256=version.sha256, state="begun", nodes=before)
    changed: list[Target] = []
    try:
        first, rest = fleet.targets[: options.canary], fleet.targets[options.canary :]
        for group, name in ((first, "canary"), (rest, "rest")):
            for target in group:
                changed.append(target)
                if now[target.node].sha256 == version.sha256:
                    say(f"{target} runs {version} already")
                    continue
                say(f"{target}: loading {version} ({name})")
                fleet.reload(target, _place(version.model, target, options, str(version)), options.timeout)
            if group:
                say(f"watching {', '.join(map(str, group))} for {options.watch:g} s")
                fleet.watch(group, version.sha256, now, options.watch)
    except BaseException as error:
        reason = str(error) or type(error).__name__
        say(f"failed: {reason}; every node goes back")
        lost = _go_back(fleet, changed, before, places, options, say)
        registry.tell("rollout", version=str(version), sha256=version.sha256, state="failed", reason=reason, lost=lost)
        if isinstance(error, InputError):
            more = f"; {', '.join(lost)} could not be put back" if lost else "; every node runs what it ran before"
            raise InputError(f"{reason}{more}") from error
        raise
    registry.tell("rollout", version=str(version), sha256=version.sha256, state="done", nodes=before)


def _go_back(
    fleet: Fleet,
    targets: Sequence[Target],
    before: dict[str, str],
    places: dict[str, Path],
    options: Options,
    say: Say,
) -> list[str]:
    """Load again what the nodes ran; returns those where that failed."""
    lost = []
    for target in targets:
        try:
            path = places[before[target.node]]
            fleet.reload(target, _place(path, target, options, before[target.node][:12]), min(options.timeout, 60.0))
        except InputError as error:  # noqa: PERF203
            say(str(error))
            lost.append(target.node)
        else:
            say(f"{target} runs {before[target.node][:12]} again")
    return lost


def _before(registry: Registry, version: Version, now: dict[str, Report]) -> dict[str, str]:
    """What each node ran before the rollout, of which this may be the second attempt: SHA-256 by node."""
    killed: dict[str, str] = {}  # what nodes ran before a call for this version that did not end
    for entry in registry.history():
        if entry.get("event") != "rollout":
            continue
        if entry.get("state") != "begun":
            killed.clear()
        elif entry.get("version") == str(version):
            killed |= entry.get("nodes") or {}
    return {
        node: killed.get(node, report.sha256) if report.sha256 == version.sha256 else report.sha256
        for node, report in now.items()
    }


def _file_of(registry: Registry, digest: str) -> Path:
    for version in registry.versions():
        if version.sha256 == digest:
            version.check()
            return version.model
    for precision in ("fp32", "int8"):
        try:
            if sha256(default_model(precision)) == digest:
                return default_model(precision)
        except InputError:  # noqa: PERF203 - it is not shipped in this precision
            continue
    raise InputError(
        f"a node runs a model ({digest[:12]}) that {registry.root} does not hold, so there is no way back; first: "
        f"registry add {registry.root} ITS_FILE"
    )


def _place(file: Path, target: Target, options: Options, name: str) -> str:
    """Path of a model on the node's machine, copied there where `--copy` says how."""
    if not options.copy:
        return str(file.resolve())
    with tempfile.TemporaryDirectory() as folder:
        # A name of its own for each version: the running model's file must not change under the node.
        link = Path(folder, f"{re.sub(r'[^A-Za-z0-9_-]', '-', name)}-{sha256(file)[:12]}.onnx")
        link.symlink_to(file.resolve())
        words = options.copy_words(link, target)
        done = subprocess.run(words, capture_output=True, text=True)
        if done.returncode:
            said = (done.stderr.strip() or done.stdout.strip() or f"status {done.returncode}").splitlines()[-1]
            raise InputError(f"copying to {target} failed: {said}")
        destination = words[-1].rpartition(":")[2]
        return f"{destination}{link.name}" if destination.endswith("/") else destination


def version_before(registry: Registry, target: Target, name: str) -> Version:
    """What a node ran before its last finished rollout.

    Raises:
        InputError: The registry does not know.

    """
    for entry in reversed(registry.history()):
        nodes = entry.get("nodes") or {}
        if entry.get("event") == "rollout" and entry.get("state") == "done" and target.node in nodes:
            for version in registry.versions(name):
                if version.sha256 == nodes[target.node] != entry["sha256"]:
                    return version
    raise InputError(f"{registry.root} knows of no model that {target} ran before; give one with --version")
