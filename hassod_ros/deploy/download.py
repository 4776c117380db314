"""Large files from the network: with progress, resumed where they were cut, and held to their first fingerprint."""

from __future__ import annotations

import http.client
import json
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, sha256, write_json

RECORD = "sha256.json"  # file name -> fingerprint of its first download
_BLOCK = 1 << 20
_TIMEOUT = 30.0  # s without a byte
_STEPS = 20  # lines of progress
_DRIVE = "drive:"
_TRIES = 3

Check = Callable[[Path], object]


def fetch(
    url: str, target: Path, *, expected: str = "", check: Check | None = None, report: Callable[[str], None] = print
) -> str:
    """Download a file, or go on where an earlier try ended; one that is there already is only checked.

    The fingerprint of the first download is recorded beside the file and every later one is held to it.

    Args:
        url: http(s), or `drive:ID` on Google Drive, which needs the package gdown.
        target: The file.
        expected: SHA-256 that it must have. Default: that of the record, or any at the first download.
        check: Gets the path of what came, and raises InputError where that cannot be used: it is then put aside and
            not recorded. Default: anything can be.
        report: Takes a line of progress at a time.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: No network, no such file, a page instead of a file, a full disk, another fingerprint, or what
            `check` says.

    """
    record = target.parent / RECORD
    wanted = expected or _read_record(record).get(target.name, "")
    if not target.is_file():
        partial = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            if url.startswith(_DRIVE):
                _from_drive(url.removeprefix(_DRIVE), partial)
            else:
                _download(url, partial, report)
        except OSError as error:
            raise InputError(f"{partial} cannot be written ({error.strerror or error}); free some space") from error
        _refuse_pages(partial, url)
        found = _refuse_useless(partial, target, wanted, url, check)
        partial.replace(target)
    else:
        report(f"{target} is there already")
        found = _refuse_useless(target, target, wanted, url, check)
    write_json(record, _read_record(record) | {target.name: found}, indent=1)
    return found


def take_over(source: Path, target: Path, *, expected: str = "", check: Check | None = None) -> str:
    """Use a file that was fetched by other means, held to the same fingerprint and `check` as `fetch` would.

    Returns:
        SHA-256 of the file.

    Raises:
        InputError: No such file, another fingerprint than expected or recorded, or what `check` says.

    """
    if not source.is_file():
        raise InputError(f"{source} does not exist; give the file that was fetched")
    record = target.parent / RECORD
    wanted, found = expected or _read_record(record).get(target.name, ""), sha256(source)
    if wanted and found != wanted.lower():
        raise InputError(f"{source} has SHA-256 {found}, expected is {wanted}; give --sha256 if you trust it")
    if check is not None:
        check(source)
    if not (target.is_file() and target.samefile(source)):
        with atomic_path(target) as temporary:
            shutil.copyfile(source, temporary)
    write_json(record, _read_record(record) | {target.name: found}, indent=1)
    return found


def _download(url: str, partial: Path, report: Callable[[str], None]) -> None:
    for last in (False,) * (_TRIES - 1) + (True,):
        start = partial.stat().st_size if partial.exists() else 0
        try:
            request = urllib.request.Request(url, headers={"Range": f"bytes={start}-"} if start else {})
            with urllib.request.urlopen(request, timeout=_TIMEOUT) as answer:
                _copy(answer, partial, start if answer.status == http.HTTPStatus.PARTIAL_CONTENT else 0, url, report)
            return
        except urllib.error.HTTPError as error:
            if error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and start:
                return  # all of it is here; the fingerprint decides
            reason = " ".join(str(error.reason).split())
            raise InputError(f"{url} answers {error.code} {reason}; check the address") from error
        except urllib.error.URLError as error:
            raise InputError(
                f"{url} cannot be reached ({error.reason}); check the network, or fetch on another machine"
            ) from error
        except (http.client.InvalidURL, ValueError) as error:
            raise InputError(f"{url} is no address ({error}); give one such as https://host/weights.pth") from error
        except (http.client.HTTPException, ConnectionError, TimeoutError) as error:
            if last:
                raise InputError(
                    f"the transfer of {url} was cut ({error}); run the same command again, it goes on from there"
                ) from error
            report(f"the transfer was cut ({error}); going on")


def _copy(answer: http.client.HTTPResponse, partial: Path, start: int, url: str, report: Callable[[str], None]) -> None:
    if "text/html" in answer.headers.get("Content-Type", ""):
        raise InputError(f"{url} is a web page, not a file of weights; the file has moved, give its address with --url")
    said = answer.headers.get("Content-Length", "")
    length = int(said) if said.isdecimal() else 0
    total, done = start + length, start
    free = shutil.disk_usage(partial.parent).free
    if length > free:
        raise InputError(f"{partial.parent} has {free / 1e6:.0f} MB free, {url} needs {length / 1e6:.0f}; free some")
    with partial.open("ab" if start else "wb") as file:
        shown = done * _STEPS // total if total else 0
        while block := answer.read(_BLOCK):
            file.write(block)
            done += len(block)
            if total and done * _STEPS // total > shown:
                shown = done * _STEPS // total
                report(f"{done / 1e6:.0f} of {total / 1e6:.0f} MB ({100 * done // total} %)")
    if length and done < total:
        raise http.client.IncompleteRead(b"", total - done)


def _from_drive(identifier: str, partial: Path) -> None:
    try:
        import gdown
    except ImportError as error:
        raise InputError("files on Google Drive need the package gdown; run pip install gdown") from error
    try:
        if not gdown.download(id=identifier, output=str(partial), resume=True):
            raise InputError(f"Google Drive does not hand out the file {identifier}; try again later, or give --url")
    except Exception as error:  # gdown raises its own errors, and those of requests and of parsers
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"the file {identifier} of Google Drive cannot be fetched ({error}); check the network, or fetch it with a "
            "browser and give it with --file"
        ) from error


def _refuse_pages(path: Path, url: str) -> None:
    with path.open("rb") as file:
        head = file.read(256).lstrip().lower()
    if head.startswith((b"<!doctype html", b"<html")):
        path.unlink()
        raise InputError(f"{url} is a web page, not a file of weights; the file has moved, give its address with --url")


def _refuse_useless(came: Path, target: Path, wanted: str, url: str, check: Check | None) -> str:
    """SHA-256 of what `came` for `target`; it is put aside where it is not what is wanted or cannot be used."""
    aside = target.with_name(f"{target.name}.refused")
    found = sha256(came)
    if wanted and found != wanted.lower():
        came.replace(aside)
        raise InputError(
            f"{url} has SHA-256 {found}, expected is {wanted}: it was changed or damaged; it lies in {aside}, run the "
            "same command again, or give --sha256 if you trust the new one"
        )
    try:
        if check is not None:
            check(came)
    except InputError as error:
        came.replace(aside)
        # A fingerprint from before that fits it must not keep a good file out.
        record = target.parent / RECORD
        write_json(record, {name: value for name, value in _read_record(record).items() if name != target.name})
        raise InputError(
            f"what {url} sent cannot be used and lies in {aside}: {error}; run the same command again, or give another "
            "address with --url"
        ) from error
    return found


def _read_record(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    try:
        record: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
        return dict(record)
    except ValueError as error:
        raise InputError(f"{path} is damaged ({error}); remove it to record fingerprints anew") from error
