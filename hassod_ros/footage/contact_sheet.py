"""One picture of what was kept and what was dropped, and why: to look at before hours of training."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np

_TILE = (120, 160)  # H, W
_COLUMNS, _MARGIN, _HEADING = 8, 6, 28
_KEPT_ROWS, _DROPPED_ROWS = 5, 1
_COMMENT = b"\xff\xfe"  # marker of a JPEG's comment


class Sheet:
    """Rows of small pictures, evenly taken from those of a reason.

    Args:
        rows: One mapping with `why` for each frame.

    """

    def __init__(self, rows: Sequence[dict[str, Any]]) -> None:
        self._places: dict[str, list[int]] = {}
        for index, row in enumerate(rows):
            self._places.setdefault(row["why"], []).append(index)
        self._counts = {why: len(places) for why, places in self._places.items()}
        for why, places in self._places.items():
            most = _COLUMNS * (_KEPT_ROWS if why == "kept" else _DROPPED_ROWS)
            if len(places) > most:
                self._places[why] = [places[i] for i in np.linspace(0, len(places) - 1, most).round().astype(int)]
        self._wanted = {index for places in self._places.values() for index in places}
        self._tiles: dict[int, np.ndarray] = {}

    def add(self, index: int, pixels: np.ndarray) -> None:
        """Take the (H, W, 3) RGB picture of a row, if it is to be shown."""
        if index not in self._wanted:
            return
        scale = min(_TILE[0] / pixels.shape[0], _TILE[1] / pixels.shape[1])
        size = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        self._tiles[index] = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)

    def draw(self, state: str) -> bytes:
        """The sheet as JPEG; `state` is written into it, for `is_of`."""
        order = sorted(self._places, key=lambda why: (why != "kept", -self._counts[why]))
        lines = {why: -(-len(self._places[why]) // _COLUMNS) for why in order}
        step_y, step_x = _TILE[0] + _MARGIN, _TILE[1] + _MARGIN
        height = sum(_HEADING + step_y * count for count in lines.values()) + _MARGIN
        page = np.full((height, step_x * _COLUMNS + _MARGIN, 3), 250, np.uint8)
        top = 0
        for why in order:
            color = (20, 120, 40) if why == "kept" else (170, 40, 30)
            text = f"{why}: {self._counts[why]:,}"
            if len(self._places[why]) < self._counts[why]:
                text += f", {len(self._places[why])} of them"
            cv2.putText(page, text, (_MARGIN, top + 20), cv2.FONT_HERSHEY_SIMPLEX, 0.55, color, 1, cv2.LINE_AA)
            top += _HEADING
            for i, index in enumerate(self._places[why]):
                if (tile := self._tiles.get(index)) is not None:
                    y, x = top + i // _COLUMNS * step_y, _MARGIN + i % _COLUMNS * step_x
                    page[y : y + tile.shape[0], x : x + tile.shape[1]] = tile
            top += lines[why] * step_y
        data = cv2.imencode(".jpg", page[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 85])[1].tobytes()
        comment = state.encode()
        return data[:2] + _COMMENT + (len(comment) + 2).to_bytes(2, "big") + comment + data[2:]

    @staticmethod
    def is_of(path: Path, state: str) -> bool:
        """Whether a file is the sheet that `draw` made of this state."""
        return path.is_file() and state.encode() in path.read_bytes()[:1024]
