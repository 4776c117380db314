"""inspection_node: taught by some good parts, it says of every part OK, NG and why, or UNDECIDED."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections import deque
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.callback_groups import MutuallyExclusiveCallbackGroup
from rclpy.qos import HistoryPolicy, QoSProfile
from sensor_msgs.msg import CompressedImage, Image
from std_msgs.msg import Empty, Header

from hassod_msgs.srv import Inspect, LearnReference, LoadReference, ReloadModel
from hassod_ros.errors import InputError
from hassod_ros.files import find_out_early
from hassod_ros.images import list_images, read_image
from hassod_ros.inspection.cell import Cell, Recent
from hassod_ros.inspection.eye import NO_MODEL, Eye, open_eye
from hassod_ros.inspection.journal import Journal
from hassod_ros.inspection.reference import LEAST
from hassod_ros.inspection.store import Store, check_name
from hassod_ros.inspection.verdict import Result, Verdict, undecided
from hassod_ros.instances import Instances
from hassod_ros.nodes.convert import compressed_to_array, image_to_array, to_rgb
from hassod_ros.nodes.diagnostics import frame_status
from hassod_ros.nodes.inspection_outputs import OUTPUTS, Judged, verdict_message
from hassod_ros.nodes.inspection_parameters import PARAMETERS, settings
from hassod_ros.nodes.managed_node import ManagedNode
from hassod_ros.nodes.outputs import QOS_OVERRIDES, Outputs
from hassod_ros.nodes.run import reliability, run
from hassod_ros.runtime.stream import FrameStatistics, RateLimit, Worker

_WAITING = 8  # parts that may wait for their turn
_FOLDER_MOST = 100  # pictures


class Part(NamedTuple):
    """An image to be judged, and when it came (s, time.perf_counter)."""

    message: Image | CompressedImage
    received: float


class Collection:
    """Pictures that are being taken for a reference."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.pictures: list[np.ndarray] = []
        self.full = threading.Event()

    def add(self, picture: np.ndarray) -> None:
        """Take a picture."""
        if len(self.pictures) < self.count:
            self.pictures.append(picture.copy())
        if len(self.pictures) == self.count:
            self.full.set()


class InspectionNode(ManagedNode):
    """Lifecycle node around a `Cell`.

    The thread that spins only receives; one thread judges, and one draws. Learning and loading run beside them.

    Raises:
        InputError: A parameter is wrong.

    """

    def __init__(self, **node_options: Any) -> None:
        super().__init__("inspection_node", PARAMETERS, **node_options)
        options = self.options()
        name = self.get_fully_qualified_name().strip("/").replace("/", ".")
        store = Store(options["reference_dir"], "" if name == "inspection_node" else name)
        self._cell = Cell(store, settings(options), self.get_logger().warning)
        self._eye: Eye | None = None
        self._model = ""
        self._lacks = ""
        self._using = threading.Lock()  # held while the network runs, or is exchanged
        self._outputs: Outputs[Judged] | None = None
        self._journal: Journal | None = None
        self._recent = Recent()
        self._statistics = FrameStatistics()
        self._drawing_rate = RateLimit()
        self._judging: Worker[Part] | None = None
        self._drawing: Worker[Judged] | None = None
        self._subscriptions_: list[Any] = []
        self._timer: Any = None
        self._triggers: deque[float] = deque()  # when those came that wait for an image
        self._collection: Collection | None = None
        self._number = 0
        self._waiting = 0
        self._heard = 0.0
        self._broken = ""  # why the last part could not be judged
        self._unlogged = ""  # why the last part is not in the log
        for kind, name, answer in (
            (LearnReference, "~/learn_reference", self._on_learn),
            (LoadReference, "~/load_reference", self._on_load),
            (ReloadModel, "~/reload_model", self._on_reload_model),
            (Inspect, "~/inspect", self._on_inspect),
        ):
            self.create_service(kind, name, answer, callback_group=MutuallyExclusiveCallbackGroup())
        self.report()

    # Lifecycle

    def load(self, options: dict[str, Any]) -> None:
        """Load model and reference, create the publishers."""
        self._open_model(options["model"])
        self._load_reference(options["reference"])
        if options["log_dir"]:
            self._journal = Journal(options["log_dir"], options["log_limit"] << 20)
        self._outputs = Outputs(self, OUTPUTS, "", _qos(options["output_reliability"]))

    def start(self, options: dict[str, Any]) -> None:
        """Subscribe and start working."""
        self._drawing = Worker("draw", self._draw, partial(self._complain, "drawing failed"))
        self._judging = Worker("judge", self._judge, partial(self._complain, "judging a part failed"))
        self._heard = time.perf_counter()
        raw = options["image_transport"] == "raw"
        self._subscriptions_ = [
            self.create_subscription(
                Image if raw else CompressedImage,
                "image" if raw else "image/compressed",
                self._receive,
                _qos(options["input_reliability"]),
                qos_overriding_options=QOS_OVERRIDES,
            ),
            self.create_subscription(Empty, "trigger", self._trigger, 10),
        ]
        self._timer = self.create_timer(0.05, self._expire)

    def stop(self) -> None:
        """Stop receiving; the part that is being judged is finished first."""
        for subscription in self._subscriptions_:
            self.destroy_subscription(subscription)
        self._subscriptions_ = []
        if self._timer is not None:
            self.destroy_timer(self._timer)
            self._timer = None
        for worker in (self._judging, self._drawing):
            if worker is not None:
                worker.close()
        self._judging = self._drawing = None
        self._triggers.clear()
        self._waiting = 0

    def release(self) -> None:
        """Give model and publishers back."""
        if self._outputs is not None:
            self._outputs.destroy()
            self._outputs = None
        self._journal = None
        self._cell.forget_model()
        with self._using:
            if self._eye is not None:
                self._eye.close()
                self._eye = None

    def _open_model(self, name: str) -> None:
        """Open a model beside the present one and let the cell learn with it."""
        new = open_eye(name, self.get_parameter("backend").value)
        self._cell.forget_model()
        with self._using:
            old, self._eye = self._eye, new
        if old is not None:
            old.close()
        self._model = new.name if new else NO_MODEL
        self._lacks = new.lacks if new else "a model: pixels and colours only, no components"
        if self._lacks:
            self.get_logger().warning(f"the inspection lacks {self._lacks}")
        self._cell.set_model(self._observe if new else None, new.sha256 if new else "")
        self._recent.reset()

    def _observe(self, picture: np.ndarray) -> tuple[Instances, np.ndarray | None]:
        with self._using:
            if self._eye is None:
                raise InputError("the model is being exchanged")
            return self._eye.observe(picture)

    def _load_reference(self, name: str) -> None:
        """The reference to begin with; having none yet is no error."""
        if name.endswith(".npz"):
            self._cell.read(os.path.expanduser(name))
        elif "/" in name:
            raise InputError(f"the reference {name} is no .npz file; give one, or the name of a taught reference")
        elif name:
            self._cell.load(name)
        elif current := self._cell.store.current():
            self._cell.load(*current)

    # Services

    def _on_learn(self, request: LearnReference.Request, response: LearnReference.Response) -> LearnReference.Response:
        try:
            check_name(request.name)
            self._cell.set_settings(settings(self.options()))
            find_out_early(self._cell.store.folder)
            if request.folder and request.count:
                raise InputError("count and folder are both given; give one of them")
            if request.append:
                self._cell.store.load(request.name)  # told before the camera is waited for
            if request.folder:
                paths = list_images(os.path.expanduser(request.folder))
                if len(paths) > _FOLDER_MOST:
                    raise InputError(f"{request.folder} holds {len(paths)} pictures; give at most {_FOLDER_MOST}")
                pictures, names = [read_image(path) for path in paths], [path.name for path in paths]
            else:
                pictures = self._collect(request.count, append=request.append)
                stamp = time.strftime("%Y-%m-%d %H:%M:%S")
                names = [f"camera {stamp} {i + 1}" for i in range(len(pictures))]
            stored = self._cell.learn(request.name, pictures, names, append=request.append)
            self._recent.reset()
            response.success, response.version, response.sha256 = True, stored.version, stored.sha256
            response.message = _taught(stored.reference, self._cell.settings.margin)
            self.get_logger().info(response.message)
        except Exception as error:  # whatever is wrong with the pictures, the present reference stays
            response.message = str(error)
            self.get_logger().error(f"nothing was learned: {error}")
        return response

    def _collect(self, count: int, *, append: bool) -> list[np.ndarray]:
        """The next `count` pictures of the camera; in triggered mode those that are triggered."""
        least = 1 if append else LEAST
        if count < least:
            raise InputError(f"{count} pictures are too few; give a folder, or a count of at least {least}")
        if self._judging is None:
            raise InputError("the node is not active; activate it, or give a folder of pictures")
        if self._collection is not None:
            raise InputError("another reference is being taught; wait for it")
        collection = self._collection = Collection(count)
        try:
            patience = 30.0 * count if self.get_parameter("mode").value == "triggered" else 10.0 + 2.0 * count
            if not collection.full.wait(patience):
                have = len(collection.pictures)
                raise InputError(f"only {have} of {count} pictures came in {patience:.0f} s; check camera and trigger")
        finally:
            self._collection = None
        return collection.pictures

    def _on_load(self, request: LoadReference.Request, response: LoadReference.Response) -> LoadReference.Response:
        try:
            stored = self._cell.load(request.name, request.version)
            self._recent.reset()
            response.success, response.version, response.sha256 = True, stored.version, stored.sha256
            response.message = f"inspecting by {stored.reference.name}, version {stored.version}"
        except Exception as error:
            response.message = str(error)
        return response

    def _on_reload_model(self, request: ReloadModel.Request, response: ReloadModel.Response) -> ReloadModel.Response:
        if self._outputs is None:
            response.message = "the node is not configured; configure it, it then loads the parameter `model`"
            return response
        try:
            if not request.path:
                raise InputError("it is empty; give the path of a model, or default")
            self._open_model(request.path)
            by = "by a reference that fits it" if self._cell.stored else "and there is no reference yet"
            response.success, response.message = True, f"running {self._model}, {by}"
        except Exception as error:
            response.message = f"{request.path or 'the path'} cannot be used: {error}"
            self.get_logger().error(response.message)
        return response

    def _on_inspect(self, request: Inspect.Request, response: Inspect.Response) -> Inspect.Response:
        try:
            started = time.perf_counter()
            picture = to_rgb(*image_to_array(request.image))
            verdict, stored = self._cell.inspect(picture)
            tact = (time.perf_counter() - started) * 1e3
            judged = Judged(request.image.header, picture, verdict, stored, tact, {})
            response.verdict = verdict_message(judged)
            response.success, response.message = True, verdict.sentence
        except Exception as error:
            response.message = str(error)
        return response

    # Parts

    def _trigger(self, message: Empty) -> None:
        if self.get_parameter("mode").value != "triggered":
            self.notices.warn("a trigger came in continuous mode, where every image is judged; set mode to triggered")
            return
        self._triggers.append(time.perf_counter())

    def _expire(self) -> None:
        """Triggers for which no image came."""
        limit = time.perf_counter() - self.get_parameter("trigger_timeout").value
        while self._triggers and self._triggers[0] < limit:
            came = self._triggers.popleft()
            self._statistics.drop("no_image")
            header = Header(stamp=self.get_clock().now().to_msg())
            self._tell(header, None, undecided("No image came after the trigger: check the camera"), came)

    def _receive(self, message: Image | CompressedImage) -> None:
        now = self._heard = time.perf_counter()
        if self.get_parameter("mode").value == "triggered":
            if not self._triggers:
                return
            # Two triggers before one image are two triggers of one part, unless the second comes after its image.
            if len(self._triggers) > 1:
                self.notices.warn("two triggers came before one image: they are taken as one part")
                for _ in range(len(self._triggers) - 1):
                    self._triggers.pop()
                    self._statistics.drop("double_trigger")
            self._triggers.popleft()
            self._number += 1
            key = str(self._number)
        else:
            key = ""
        self._statistics.receive()
        judging = self._judging
        if judging is None:
            return
        if key and self._waiting >= _WAITING:
            self._statistics.drop("overrun")
            self._tell(message.header, None, undecided("Parts come faster than they can be judged"), now)
            return
        self._waiting += 1
        if judging.put(key, Part(message, now)) is not None:
            self._waiting -= 1
            self._statistics.drop("superseded")

    def _judge(self, parts: list[tuple[str, Part]]) -> None:
        for _, part in parts:
            self._waiting -= 1
            started = time.perf_counter()
            picture: np.ndarray | None = None
            try:
                decode = compressed_to_array if isinstance(part.message, CompressedImage) else image_to_array
                picture = to_rgb(*decode(part.message))
            except Exception as error:  # whatever a damaged image makes a decoder do
                self._statistics.drop("malformed")
                self.notices.warn(f"an image cannot be used: {error}")
                self._tell(part.message.header, None, undecided("The image cannot be read"), part.received)
                continue
            collection = self._collection
            if collection is not None:
                collection.add(picture)
                continue
            try:
                self._cell.set_settings(settings(self.options()))
                verdict, _ = self._cell.inspect(picture)
                self._broken = ""
            except Exception as error:  # a part that breaks the inspection is not OK
                self._statistics.drop("failed")
                if self.context.ok():
                    self._broken = self.notices.fail("judging a part failed", error)
                verdict = undecided("The inspection failed: see the diagnostics")
            self._recent.add(verdict)
            self._tell(part.message.header, picture, verdict, part.received)
            done = time.perf_counter()
            self._statistics.process({"wait": started - part.received, "total": done - part.received})

    def _tell(self, header: Header, picture: np.ndarray | None, verdict: Verdict, since: float) -> None:
        """Publish a verdict, have it drawn, and log it."""
        if self._outputs is None or not self.context.ok():
            return
        options = self.options()
        tact = (time.perf_counter() - since) * 1e3
        stored = self._cell.stored
        judged = Judged(header, picture, verdict, stored, tact, options)
        self._outputs.publish(judged, urgent=True)
        drawing, rate = self._drawing, options["overlay.max_rate"]
        if (
            drawing
            and self._outputs.wanted(urgent=False)
            and not self._drawing_rate.exceeded(time.perf_counter(), rate)
        ):
            drawing.put("", judged)
        if self._journal is not None:
            try:
                self._journal.write(
                    verdict,
                    picture if verdict.result == Result.NG else None,
                    stamp=header.stamp.sec + header.stamp.nanosec * 1e-9,
                    tact_ms=round(tact, 1),
                    reference=stored.reference.name if stored else "",
                    version=stored.version if stored else 0,
                )
                self._unlogged = ""
            except InputError as error:  # a full disk stops the log, not the line
                self._unlogged = self.notices.fail("a part is not in the log", error)

    def _draw(self, results: list[tuple[str, Judged]]) -> None:
        for _, judged in results:
            if self._outputs is not None:
                self._outputs.publish(judged, urgent=False)

    def _complain(self, what: str, error: Exception) -> None:
        if self.context.ok():
            self._broken = self.notices.fail(what, error)

    # Health

    def statuses(self) -> list[DiagnosticStatus]:
        """One of the cell."""
        options, stored, recent = self.options(), self._cell.stored, self._recent
        active = self._judging is not None
        silence = time.perf_counter() - self._heard if active else 0.0
        moved = recent.camera_moved(options["camera_moved"]) if options["camera_moved"] else 0.0
        failure = self.failure or self._broken or self._unlogged
        if not failure and moved:
            failure = f"camera moved by {moved:.0f} px: put it back, or learn the reference anew"
        counts = {name: recent.counts[name] for name in ("ok", "ng", "undecided")}
        status = frame_status(
            f"{self.get_fully_qualified_name()}: inspection",
            self._statistics,
            options,
            failure=failure,
            idle="" if active else "not active",
            judged={"silence": silence, "no_result": self._judging.overdue() if self._judging else 0.0},
            text={
                "model": self._model,
                "lacks": self._lacks,
                "reference": stored.reference.name if stored else "",
                "reference_version": str(stored.version) if stored else "",
                "reference_sha256": stored.sha256 if stored else "",
                **{name: str(count) for name, count in counts.items()},
            },
            figures={
                "drift_px": recent.shift,
                "drift_light_percent": recent.light,
                "since_last_image_s": silence,
                "triggers_waiting": float(len(self._triggers)),
            },
        )
        warning = self._warning(recent, stored is None)
        if active and status.level == DiagnosticStatus.OK and warning:
            status.level, status.message = DiagnosticStatus.WARN, warning
        return [status]

    def _warning(self, recent: Recent, untaught: bool) -> str:
        if untaught:
            return "there is no reference: teach some good parts with ~/learn_reference"
        if recent.warning:
            return recent.warning
        return f"the inspection lacks {self._lacks}" if self._lacks and self._model != NO_MODEL else ""


def _taught(reference: Any, margin: float) -> str:
    """One sentence about a new reference."""
    sure, likely = reference.false_alarm_rate(margin)
    text = (
        f"learned {reference.name} from {len(reference.pictures)} pictures: {len(reference.components)} components, "
        f"false alarms likely {likely:.1%} (at most {sure:.0%} without the margin)"
    )
    if reference.disagree:
        text += f"; look at {', '.join(reference.disagree)}, which differ from the rest"
    return text


def _qos(policy: str) -> QoSProfile:
    return QoSProfile(history=HistoryPolicy.KEEP_LAST, depth=10, reliability=reliability(policy))


def main(arguments: list[str] | None = None) -> int:
    """Entry point."""
    return run(InspectionNode, arguments, about=__doc__, table=PARAMETERS)


if __name__ == "__main__":
    sys.exit(main())
