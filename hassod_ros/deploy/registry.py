"""Models and their history in a plain folder, safe for several writers, full disks and kills; no server.

ROOT/registry.json                   the schema of all this
ROOT/NAME/VERSION/model.onnx         1, 2, 3, ...; a version never changes
ROOT/NAME/VERSION/weights.pth        what it was exported from, where that was given: the next training starts from it
ROOT/NAME/VERSION/record.json        status, reason, parent, provenance, sha256 of the model
ROOT/NAME/VERSION/gate.json          figures of the gate, where it was asked; report.html beside it
ROOT/aliases.json                    NAME -> alias -> version
ROOT/history.jsonl                   one line for everything that happened, only ever appended

A version is written beside the others and takes its place by one rename; aliases are replaced by one rename; the line
in the history follows, and whoever writes next adds the line of one that was killed between the two.
"""

from __future__ import annotations

import errno
import fcntl
import getpass
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hassod_ros.errors import InputError
from hassod_ros.files import sha256, write_json

SCHEMA = 1
MODEL, WEIGHTS, RECORD, GATE, REPORT = "model.onnx", "weights.pth", "record.json", "gate.json", "report.html"
ACCEPTED, REFUSED, IMPORTED = "accepted", "refused", "imported"
NAME = "perception"  # of the models, where none is given
_UNFINISHED = ".unfinished-"


@dataclass(frozen=True)
class Version:
    """A registered model.

    Attributes:
        name: Of the line of models.
        number: 1, 2, 3, ...
        folder: Of its files.
        record: Content of `record.json`.

    """

    name: str
    number: int
    folder: Path
    record: Mapping[str, Any]

    def __str__(self) -> str:
        return f"{self.name}/{self.number}"

    @property
    def model(self) -> Path:
        """File of the model."""
        return self.folder / MODEL

    @property
    def weights(self) -> Path | None:
        """File of the checkpoint that the model was exported from, where it was registered too."""
        file = self.folder / WEIGHTS
        return file if file.is_file() else None

    @property
    def sha256(self) -> str:
        """Hex SHA-256 of the model's file, as it was registered."""
        return self.record["model_sha256"]

    @property
    def status(self) -> str:
        """`ACCEPTED`, `REFUSED` or `IMPORTED`."""
        return self.record["status"]

    def check(self) -> None:
        """See that the file is the one that was registered.

        Raises:
            InputError: It is missing or another one.

        """
        if not self.model.is_file() or sha256(self.model) != self.sha256:
            raise InputError(f"{self.model} is not the file that was registered; restore it, or choose another version")


def _is_word(text: str) -> bool:
    """Whether it consists of letters, digits, - and _."""
    return text.replace("-", "").replace("_", "").isalnum()


def check_alias(alias: str) -> None:
    """See that a name can stand for a version.

    Raises:
        InputError: It cannot.

    """
    if alias.isdecimal() or not _is_word(alias):
        raise InputError(f"{alias!r} cannot be an alias; use letters, digits, - and _, and not digits alone")


class Registry:
    """A folder of models.

    Args:
        root: The folder.
        create: Make it where there is none.

    Raises:
        InputError: There is no registry in the folder, or one of another schema.

    """

    def __init__(self, root: str | os.PathLike, *, create: bool = False) -> None:
        self.root = Path(root)
        file = self.root / "registry.json"
        if create and not file.is_file():
            if self.root.is_dir() and any(not path.name.startswith(".") for path in self.root.iterdir()):
                raise InputError(f"{self.root} holds other files and no registry; give an empty or a new folder")
            write_json(file, {"schema": SCHEMA})
        try:
            schema = json.loads(file.read_text(encoding="utf-8"))["schema"]
        except FileNotFoundError as error:
            raise InputError(f"{self.root} is no registry of models; check the path") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f'{file} is damaged; write {{"schema": {SCHEMA}}} into it') from error
        if schema != SCHEMA:
            raise InputError(f"{self.root} has schema {schema}, this program knows {SCHEMA}; use a release that fits")

    def register(
        self,
        model: str | os.PathLike,
        *,
        name: str = NAME,
        status: str = ACCEPTED,
        reason: str = "",
        parent: Version | None = None,
        provenance: Mapping[str, Any] | None = None,
        gate: Mapping[str, Any] | None = None,
        report: str | os.PathLike | None = None,
        weights: str | os.PathLike | None = None,
    ) -> Version:
        """Add a version; the same file with the same status is added once.

        Args:
            model: File; it is copied.
            name: Of the line of models.
            status: `ACCEPTED`, `REFUSED` or `IMPORTED`.
            reason: Of the status, a sentence.
            parent: The version that it was made from.
            provenance: Plain values: sources and their sha256, settings, revision.
            gate: Figures of the gate.
            report: HTML file of the gate; it is copied.
            weights: Checkpoint that the model was exported from; it is copied.

        Raises:
            InputError: The name is none, or the files cannot be read or copied; the registry is then as before. Or it
                is registered, and the disk was full for the history: the sentence says so.

        """
        if not _is_word(name):
            raise InputError(f"{name!r} cannot name models; use letters, digits, - and _")
        try:
            digest = sha256(model)
        except OSError as error:
            raise InputError(f"{model} cannot be read ({error.strerror}); check the path") from error
        for version in self.versions(name):
            if version.sha256 == digest and version.status == status:
                return version
        place = self.root / name
        try:
            place.mkdir(exist_ok=True)
            folder = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=place))
        except OSError as error:
            raise InputError(f"cannot write into {place}: {error.strerror}; free or unlock it") from error
        try:
            folder.chmod(0o755)
            _copy(Path(model), folder / MODEL)
            for source, target in ((report, REPORT), (weights, WEIGHTS)):
                if source:
                    _copy(Path(source), folder / target)
            if gate is not None:
                write_json(folder / GATE, gate, indent=1)
            record = {
                "schema": SCHEMA,
                "name": name,
                "model_sha256": digest,
                "created": _now(),
                "status": status,
                "reason": reason,
                "parent": {"version": str(parent), "sha256": parent.sha256} if parent else None,
                "provenance": dict(provenance or {}),
            }
            write_json(folder / RECORD, record, indent=1)
            with self._lock():
                number = max((version.number for version in self.versions(name)), default=0) + 1
                os.rename(folder, place / str(number))
                _sync(place)
                version = Version(name, number, place / str(number), record)
                facts = {"version": str(version), "sha256": digest, "status": status, "reason": reason}
                self._tell_done(f"{version} is registered", "register", **facts)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return version

    def versions(self, name: str | None = None) -> list[Version]:
        """All versions, oldest first, of one or all names."""
        found = []
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir() or folder.name.startswith(".") or (name and folder.name != name):
                continue
            numbers = sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal())
            found += [self._read(folder.name, number) for number in numbers]
        return found

    def aliases(self, name: str = NAME) -> dict[str, int]:
        """Version by alias."""
        return self._aliases().get(name, {})

    def resolve(self, reference: str, name: str = NAME) -> Version:
        """The version that an alias, a number, or NAME/ALIAS or NAME/NUMBER, names.

        Raises:
            InputError: There is none; the sentence says what there is.

        """
        first, _, rest = reference.rpartition("/")
        name, wanted = first or name, rest
        aliases = self.aliases(name)
        number = aliases.get(wanted, int(wanted) if wanted.isdecimal() else 0)
        if not (self.root / name / str(number) / RECORD).is_file():
            numbers = [str(version.number) for version in self.versions(name)]
            known = ", ".join([*(f"{alias} ({aliases[alias]})" for alias in aliases), *numbers]) or "nothing yet"
            raise InputError(f"{self.root} has no {name} {wanted!r}; there is: {known}")
        return self._read(name, number)

    def set_alias(self, alias: str, version: Version, *, force: bool = False, why: str = "") -> None:
        """Let an alias name a version.

        Raises:
            InputError: The alias is no name, or the version was refused and `force` is not given.

        """
        check_alias(alias)
        if version.status == REFUSED and not force:
            reason = version.record.get("reason", "")
            raise InputError(f"{version} was refused ({reason}); choose another version, or insist with --force")
        with self._lock():
            aliases = self._aliases()
            before = aliases.get(version.name, {}).get(alias)
            if before == version.number:
                return
            aliases.setdefault(version.name, {})[alias] = version.number
            write_json(self.root / "aliases.json", aliases, indent=1)
            facts = {"name": version.name, "alias": alias, "number": version.number, "before": before, "why": why}
            self._tell_done(f"{alias} names {version}", "alias", **facts)

    def remove_alias(self, alias: str, name: str = NAME) -> None:
        """Forget an alias.

        Raises:
            InputError: There is none of this name.

        """
        with self._lock():
            aliases = self._aliases()
            if alias not in aliases.get(name, {}):
                raise InputError(f"{self.root} has no alias {alias!r} of {name}")
            before = aliases[name].pop(alias)
            write_json(self.root / "aliases.json", aliases, indent=1)
            facts = {"name": name, "alias": alias, "number": None, "before": before, "why": ""}
            self._tell_done(f"{alias} names nothing any more", "alias", **facts)

    def tell(self, event: str, **values: Any) -> None:
        """Add a line to the history, such as that of a rollout."""
        with self._lock():
            self._tell(event, **values)

    def history(self) -> list[dict[str, Any]]:
        """All that happened, oldest first; a line that a full disk or a kill cut is left out."""
        try:
            lines = (self.root / "history.jsonl").read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return []
        entries = []
        for line in lines:
            try:
                entries.append(json.loads(line))
            except ValueError:  # noqa: PERF203
                continue
        return entries

    def previous(self, alias: str, name: str = NAME) -> Version:
        """The version that an alias named before its present one, by the history.

        Raises:
            InputError: It never named another one that is still there.

        """
        now = self.aliases(name).get(alias)
        for entry in reversed(self.history()):
            if (entry.get("event"), entry.get("name"), entry.get("alias")) != ("alias", name, alias):
                continue
            before = entry.get("before")
            if before and before != now and (self.root / name / str(before) / RECORD).is_file():
                return self._read(name, before)
        raise InputError(f"{self.root}: {alias} of {name} named no other version before; give one with --version")

    def prune(self, keep: int = 5, name: str = NAME) -> list[Version]:
        """Remove old versions: all but the newest `keep`, those with an alias, and those to roll back to.

        Returns:
            What was removed. Leftovers of killed writers, an hour old, go too.

        """
        with self._lock():
            aliases = self.aliases(name)
            stay = set(aliases.values())
            for alias in aliases:
                try:
                    stay.add(self.previous(alias, name).number)
                except InputError:  # noqa: PERF203 - there is nothing to roll back to
                    continue
            versions = self.versions(name)
            gone = [version for version in versions[: max(0, len(versions) - keep)] if version.number not in stay]
            for version in gone:
                # Out of the way by one rename, so that a kill leaves no half version.
                trash = version.folder.with_name(f"{_UNFINISHED}{version.number}")
                os.rename(version.folder, trash)
                shutil.rmtree(trash, ignore_errors=True)
                self._tell("prune", version=str(version), sha256=version.sha256)
            for path in (self.root / name).glob(f"{_UNFINISHED}*"):
                if time.time() - path.stat().st_mtime > 3600:
                    shutil.rmtree(path, ignore_errors=True)
        return gone

    def _read(self, name: str, number: int) -> Version:
        folder = self.root / name / str(number)
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            if not all(isinstance(record[key], str) for key in ("model_sha256", "status", "created")):
                raise ValueError
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{folder / RECORD} is missing or damaged; restore or remove {folder}") from error
        if record.get("schema") != SCHEMA:
            raise InputError(f"{folder / RECORD} has schema {record.get('schema')}, this program knows {SCHEMA}")
        return Version(name, number, folder, record)

    def _aliases(self) -> dict[str, dict[str, int]]:
        file = self.root / "aliases.json"
        try:
            aliases = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            numbers = [number for table in aliases.values() for number in table.values()]
            if not all(isinstance(number, int) for number in numbers):
                raise ValueError
            return aliases
        except (ValueError, AttributeError) as error:
            raise InputError(f"{file} is damaged; restore it from {self.root / 'history.jsonl'}") from error

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One writer at a time; the system gives the lock back where its holder dies."""
        try:
            with open(self.root / ".lock", "a", encoding="utf-8") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                self._mend()
                yield
        except OSError as error:
            raise InputError(f"cannot write into {self.root}: {error.strerror}; free or unlock it") from error

    def _mend(self) -> None:
        """Add the lines to the history that a killed writer owes it."""
        entries = self.history()
        known = {entry.get("version") for entry in entries if entry.get("event") in ("register", "prune")}
        for version in self.versions():
            if str(version) not in known:
                self._tell("register", version=str(version), sha256=version.sha256, status=version.status, mended=True)
        last: dict[tuple[str, str], int | None] = {}
        for entry in entries:
            if entry.get("event") == "alias":
                last[entry["name"], entry["alias"]] = entry["number"]
        now = {(name, alias): number for name, table in self._aliases().items() for alias, number in table.items()}
        for name, alias in last.keys() | now.keys():
            before, number = last.get((name, alias)), now.get((name, alias))
            if before != number:
                self._tell("alias", name=name, alias=alias, number=number, before=before, why="", mended=True)

    def _tell_done(self, done: str, event: str, **values: Any) -> None:
        """`_tell`; where that fails, what is done is said."""
        try:
            self._tell(event, **values)
        except OSError as error:
            raise InputError(
                f"{done}, but {self.root} has no room for a line in its history ({error.strerror}); free some space, "
                "the next command adds it"
            ) from error

    def _tell(self, event: str, **values: Any) -> None:
        entry = {"time": _now(), "event": event, **values, "by": f"{_user()}@{socket.gethostname()}"}
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        handle = os.open(self.root / "history.jsonl", os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        try:
            end = os.lseek(handle, 0, os.SEEK_END)
            if end and os.pread(handle, 1, end - 1) != b"\n":  # the line of a writer that was killed
                line = b"\n" + line
            try:
                if os.write(handle, line) < len(line):
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                os.fsync(handle)
            except OSError:
                os.ftruncate(handle, end)
                raise
        finally:
            os.close(handle)


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copyfile(source, target)
        _sync(target)
    except OSError as error:
        raise InputError(
            f"cannot copy {source} to {target.parent.parent}: {error.strerror}; free some space and run again"
        ) from error


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())
