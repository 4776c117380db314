"""An inspection cell: the model, the reference that belongs to it, and what was seen lately. Without ROS."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.inspection.inspector import Inspector
from hassod_ros.inspection.reference import Reference, learn
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.store import Store, Stored
from hassod_ros.inspection.verdict import Verdict, undecided
from hassod_ros.inspection.view import Observe


class Cell:
    """Judges pictures by the reference in use; safe to use from several threads.

    Between a change of the model and the end of learning anew from the reference's own pictures, every part is
    UNDECIDED.

    Args:
        store: Where references are kept.
        settings: Limits; what is looked at comes from the reference.
        warn: Gets a sentence where the reference in use cannot be noted for the next start.

    """

    def __init__(self, store: Store, settings: Settings, warn: Callable[[str], object] = lambda line: None) -> None:
        self.store = store
        self._warn = warn
        self.settings = settings
        self._lock = threading.Lock()  # held while learning: one at a time
        self._inspector: Inspector | None = None
        self._stored: Stored | None = None
        self._observe: Observe | None = None
        self._model_sha256 = ""
        self._reason = "There is no reference: teach some good parts"

    @property
    def stored(self) -> Stored | None:
        """The reference in use."""
        return self._stored

    def inspect(self, picture: np.ndarray) -> tuple[Verdict, Stored | None]:
        """The verdict on (H, W, 3) uint8 RGB, and the reference that it was held against."""
        inspector, stored = self._inspector, self._stored
        if inspector is None:
            return undecided(self._reason), stored
        return inspector(picture), stored

    def set_settings(self, settings: Settings) -> None:
        """Other limits from the next part on."""
        if settings != self.settings:
            with self._lock:
                self.settings = settings
                if self._inspector is not None:
                    self._renew()

    def set_model(self, observe: Observe | None, sha256: str) -> None:
        """Another detector: the reference is learned anew from its own pictures, and kept as another version.

        Args:
            observe: The detector; None: compare pixels and colours only.
            sha256: Of its file.

        """
        with self._lock:
            self._inspector = None
            self._observe, self._model_sha256 = observe, sha256
            if self._stored is None:
                self._reason = "There is no reference: teach some good parts"
            else:
                self._reason = "The model has changed: the reference is being learned anew"
                self._take(self._stored)

    def forget_model(self) -> None:
        """Judge nothing until there is a model; to be called before it is exchanged."""
        with self._lock:
            self._inspector = None
            self._observe, self._model_sha256 = None, ""
            self._reason = "The model is being exchanged"

    def load(self, name: str, version: int = 0) -> Stored:
        """Use another reference, or another version of it: 0 = the newest, -1 = the one before that in use.

        Raises:
            InputError: There is none, or it cannot be read; the present one stays.

        """
        with self._lock:
            used = self._stored
            if not name and used is None:
                raise InputError("no reference is in use; give a name")
            name = name or (used.reference.name if used else "")
            if version < 0:
                version = self._before(name)
            return self._take(self.store.load(name, version))

    def read(self, path: str) -> Stored:
        """Use a reference from any file; raises `InputError` like `load`."""
        with self._lock:
            return self._take(self.store.read(path))

    def learn(self, name: str, pictures: Sequence[np.ndarray], names: Sequence[str], *, append: bool) -> Stored:
        """Learn a reference and use it; on an error the present one stays.

        Args:
            name: Of the reference.
            pictures: Good ones, (H, W, 3) uint8 RGB.
            names: Of the pictures, for messages.
            append: Add them to those of the newest version of that name.

        Raises:
            InputError: See `hassod_ros.inspection.reference.learn`.

        """
        with self._lock:
            settings, all_pictures, all_names = self.settings, list(pictures), list(names)
            if append:
                old = self.store.load(name).reference
                all_pictures, all_names = [*old.pictures, *pictures], [*old.names, *names]
                settings = _taught(self.settings, old)
            reference = self._learn(name, all_pictures, all_names, settings)
            stored = self.store.add(reference)
            return self._take(stored)

    def _before(self, name: str) -> int:
        used = self._stored
        at = used.version if used is not None and used.reference.name == name else 0
        older = [version for version in self.store.versions(name) if version < at]
        if not older:
            raise InputError(f"there is no version of {name} before {at}")
        return older[-1]

    def _learn(self, name: str, pictures: list[np.ndarray], names: list[str], settings: Settings) -> Reference:
        return learn(pictures, settings, name=name, names=names, observe=self._observe, model_sha256=self._model_sha256)

    def _take(self, stored: Stored) -> Stored:
        """Use a reference; it is learned anew where it belongs to another model."""
        reference = stored.reference
        if reference.model_sha256 != self._model_sha256:
            reference = self._learn(reference.name, list(reference.pictures), list(reference.names), reference.settings)
            stored = self.store.add(reference)
        self._stored = stored
        self._renew()
        if stored.version:
            try:
                self.store.use(stored)
            except InputError as error:  # a folder of references may be one that can only be read
                self._warn(f"{stored.reference.name} is in use, but not noted for the next start: {error}")
        return stored

    def _renew(self) -> None:
        if self._stored is not None:
            reference = self._stored.reference
            self._inspector = Inspector(reference, self._observe, _taught(self.settings, reference))


def _taught(limits: Settings, reference: Reference) -> Settings:
    """Limits with what only a new reference can be taught otherwise."""
    taught = reference.settings
    return replace(limits, method=taught.method, roi=taught.roi, ignore=taught.ignore)


class Recent:
    """What the last parts showed: counts, and whether the camera or the light has drifted.

    Args:
        parts: How many parts are looked back on.

    """

    def __init__(self, parts: int = 20) -> None:
        self.counts: Counter[str] = Counter()
        self.warning = ""  # what the last part warned of
        self._shifts: deque[tuple[float, float]] = deque(maxlen=parts)
        self._lights: deque[float] = deque(maxlen=parts)

    def add(self, verdict: Verdict) -> None:
        """Take another part into account."""
        self.counts[verdict.result.name.lower()] += 1
        self.warning = verdict.warning
        if verdict.alignment is not None and verdict.light is not None:
            self._shifts.append(verdict.alignment.shift)
            self._lights.append(verdict.light.change)

    def reset(self) -> None:
        """Forget the drift, as where another reference is used."""
        self._shifts.clear()
        self._lights.clear()

    @property
    def light(self) -> float:
        """Percent by which the light was changed, median."""
        return float(np.median(self._lights)) if self._lights else 0.0

    @property
    def shift(self) -> float:
        """Pixels by which the parts lay off, median of x and y."""
        return float(np.hypot(*np.median(self._shifts, axis=0))) if self._shifts else 0.0

    def camera_moved(self, least: float) -> float:
        """Pixels by which all of the last parts lay off in the same way, if more than `least`; else 0."""
        if self._shifts.maxlen is None or len(self._shifts) < self._shifts.maxlen:
            return 0.0
        shifts = np.array(self._shifts)
        middle = np.median(shifts, axis=0)
        spread = float(np.median(np.linalg.norm(shifts - middle, axis=1)))
        moved = float(np.hypot(*middle))
        return moved if moved > least and spread < 0.25 * moved else 0.0
