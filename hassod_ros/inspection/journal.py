"""What became of each part, as JSON lines, with pictures of the bad ones; never more than a given size."""

from __future__ import annotations

import json
import os
import shutil
import threading
from datetime import datetime, timezone
from typing import Any

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.files import expanded, make_folder
from hassod_ros.inspection.verdict import Verdict

_LINES = 2000  # of a file; then another is begun, so that old ones can go
_FREE = 200 << 20  # bytes that stay free on the disk whatever the limit is
_EVERY = 20  # entries between two looks at the size


class Journal:
    """Writes verdicts to a folder; safe to use from several threads.

    Args:
        folder: Made where it is missing.
        limit: Bytes; beyond it the oldest files go.

    """

    def __init__(self, folder: str | os.PathLike, limit: int) -> None:
        self._folder = expanded(folder)
        self._limit = limit
        self._lock = threading.Lock()
        self._lines = self._entries = 0
        self._file = ""
        make_folder(self._folder, "log_dir")

    def write(self, verdict: Verdict, picture: np.ndarray | None, **more: Any) -> None:
        """Add a verdict, and the (H, W, 3) uint8 RGB picture of a bad part.

        Raises:
            InputError: It cannot be written; the disk is full, for example.

        """
        now = datetime.now(timezone.utc)
        stamp = now.strftime("%Y%m%dT%H%M%S_%f")
        record = {"time": now.isoformat(timespec="milliseconds"), **describe(verdict), **more}
        with self._lock:
            try:
                if self._entries % _EVERY == 0:
                    self._make_room()
                self._entries += 1
                if picture is not None:
                    record["picture"] = f"{stamp}.jpg"
                    code = cv2.imencode(
                        ".jpg", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 90]
                    )
                    (self._folder / record["picture"]).write_bytes(code[1].tobytes())
                if not self._file or self._lines >= _LINES:
                    self._file, self._lines = f"{stamp}.jsonl", 0
                with (self._folder / self._file).open("a", encoding="utf-8") as file:
                    file.write(json.dumps(record) + "\n")
                self._lines += 1
            except OSError as error:
                self._entries = 0  # look at the size before the next one
                reason = error.strerror or error
                raise InputError(f"cannot write to log_dir {self._folder}: {reason}; free some space") from error

    def _make_room(self) -> None:
        """Remove the oldest of our files until they are within the limit and the disk has some room."""
        files = [file for file in self._folder.iterdir() if file.suffix in (".jpg", ".jsonl") and _ours(file.stem)]
        sizes = {file: file.stat().st_size for file in sorted(files)}
        total, free = sum(sizes.values()), shutil.disk_usage(self._folder).free
        for file, size in sizes.items():
            if total <= 0.9 * self._limit and free >= _FREE:
                return
            if file.name == self._file:
                continue
            file.unlink(missing_ok=True)
            total, free = total - size, free + size
        if free < _FREE:
            raise OSError(28, f"less than {_FREE >> 20} MB are free")


def _ours(stem: str) -> bool:
    return len(stem) == 22 and stem.replace("T", "").replace("_", "").isdecimal()


def describe(verdict: Verdict) -> dict[str, Any]:
    """A verdict as JSON values."""
    alignment = verdict.alignment
    return {
        "result": verdict.result.name,
        "sentence": verdict.sentence,
        "score": round(verdict.score, 4),
        "alignment": alignment
        and {
            "shift": [round(value, 2) for value in alignment.shift],
            "angle": round(alignment.angle, 2),
            "scale": round(alignment.scale, 4),
            "correlation": round(alignment.correlation, 3),
        },
        "light": verdict.light and round(verdict.light.change, 2),
        "findings": [
            {
                "kind": finding.kind.name,
                "component": finding.component,
                "box": list(finding.box),
                "measured": round(finding.measured, 3),
                "limit": round(finding.limit, 3),
                "unit": finding.unit,
                "sentence": finding.sentence,
            }
            for finding in verdict.findings
        ],
    }
