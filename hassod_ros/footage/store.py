"""Frames worth labelling out of hours of footage, as a folder of JPEGs; a killed run goes on where it stood.

FRAMES/images/CAMERA/SOURCE_INDEX.jpg   what was kept, as it was recorded where that was a JPEG
FRAMES/held_back/CAMERA/SOURCE_INDEX.jpg  pairs of neighbours from the blocks of time that were held back
FRAMES/depth/CAMERA/SOURCE_INDEX.png    16 bits, millimetres, where depth was recorded beside it
FRAMES/frames.jsonl                     one line for each frame, kept or dropped, and why
FRAMES/sources.json                     fingerprints, settings, and what was lost of each source
FRAMES/contact_sheet.jpg                what was kept and dropped, to look at
FRAMES/measures/SOURCE.npz              what was measured of each source, so that it is read once for that
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, sha256, write_json, write_text
from hassod_ros.footage.contact_sheet import Sheet
from hassod_ros.footage.frame import Frame, Say
from hassod_ros.footage.kinds import bag_files, is_bag, is_video
from hassod_ros.footage.select import KEPT, REPEATS, SelectConfig, choose, flaws, measure, seen
from hassod_ros.footage.sources import open_footage
from hassod_ros.images import keep_apart, list_images

IMAGES, HELD_BACK, DEPTH = "images", "held_back", "depth"
INDEX, SOURCES, SHEET = "frames.jsonl", "sources.json", "contact_sheet.jpg"
HELD = "held back"
_BLOCK, _BLOCKS = 30.0, 5  # s of a block of time, or less where the recording has not so many of them
_HELD_FRAMES = 60  # in pairs
_PAUSE = 10.0  # s, and usual intervals: a longer one is a pause, or the clock was set
_PROGRESS = 5.0  # s between two lines


@dataclass(frozen=True)
class ExtractConfig:
    """What to read and how to write it."""

    select: SelectConfig = field(default_factory=SelectConfig)
    topics: tuple[str, ...] = ()  # of recordings: only these image topics; empty: all
    max_rate: float = 10.0  # most frames per second and camera that are looked at, 0 = all
    hold_back: float = 0.0  # share of the time, in blocks, that is kept for judging models
    quality: int = 95  # of JPEGs that are encoded here


@dataclass(frozen=True, eq=False)
class _Source:
    path: Path
    sha256: str
    measures: dict[str, np.ndarray]
    lost: list[str]

    def __len__(self) -> int:
        return len(self.measures["stamps"])


def extract(
    sources: Sequence[str | os.PathLike], out: str | os.PathLike, config: ExtractConfig | None = None, say: Say = print
) -> dict[str, int]:
    """Select frames of recordings, videos and folders of images, and write them to `out`.

    Args:
        sources: See `open_footage`; the same content twice counts once.
        out: Folder; what another choice left there is removed, where it has the name of an extracted frame.
        config: What to keep.
        say: Gets progress, and one sentence for everything that is lost.

    Returns:
        Number of frames by reason; "kept" are those in `out/images`.

    Raises:
        InputError: A source does not exist or holds no picture, `out` lies in it, or `out` cannot be written; topics
            of sources of which none is a recording. What was done is kept.

    """
    config = config or ExtractConfig()
    folder = Path(out)
    for path in map(Path, sources):
        if path.is_dir() and not is_bag(path):
            keep_apart(folder, path)
    without = [path for path in map(Path, sources) if config.topics and not is_bag(path)]
    if without and len(without) == len(sources):
        raise InputError(f"{without[0]} has no topics, only recordings have; leave --topics out")
    for path in without:
        say(f"{path} has no topics, only recordings have; all of it counts")
    opened: dict[str, _Source] = {}
    for number, path in enumerate(map(Path, sources)):
        where = f"{path} ({number + 1} of {len(sources)})" if len(sources) > 1 else str(path)
        source = _measure(path, folder, config, where, say)
        if source.sha256 in opened:
            say(f"{path} is the same as {opened[source.sha256].path}; it counts once")
        opened.setdefault(source.sha256, source)
    chosen = list(opened.values())
    together = {name: np.concatenate([source.measures[name] for source in chosen]) for name in chosen[0].measures}
    cameras, signatures = together["cameras"], together["signatures"].astype(np.float32)
    found = flaws(
        cameras.tolist(), signatures, together["sharpness"], together["dark"], together["bright"], config.select
    )
    why = np.array(found, object)
    good = why == ""
    times = [_without_pauses(source.measures["stamps"]) for source in chosen]
    held = np.concatenate([_held_back(passed, config.hold_back) for passed, _ in times])
    stretches = np.concatenate([numbers for _, numbers in times])
    why[good & ~held] = choose(cameras[good & ~held].tolist(), signatures[good & ~held], config.select)
    # A model would be judged on what it has learned from.
    again = seen(signatures[good & held], signatures[why == KEPT])
    why[good & held] = np.where(again, REPEATS, HELD)
    rows = _rows(chosen, why.tolist(), set(_pairs(why == HELD, cameras, stretches)))
    _remove_others(folder, {row["file"] for row in rows if row["file"]})
    _write_frames(chosen, rows, folder, config, say)
    write_text(folder / INDEX, "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows))
    about = {
        "settings": asdict(config),
        "sources": [
            {"path": str(source.path), "sha256": source.sha256, "frames": len(source), "lost": source.lost}
            for source in chosen
        ],
    }
    write_json(folder / SOURCES, about, indent=1)
    return dict(Counter(why.tolist()).most_common())


def as_images(source: str | os.PathLike, folder: str | os.PathLike, say: Say = print) -> Path:
    """`source` itself, or where it is a recording or a video, the images that `extract` selects from it into `folder`.

    Raises:
        InputError: See `extract`.

    """
    if not _is_footage(source):
        return Path(source)
    say(f"{source} is footage; selecting its frames into {folder}")
    counts = extract([source], folder, say=say)
    say(summary(counts))
    return Path(folder) / IMAGES


def labelled_images(source: str | os.PathLike, labels: str | os.PathLike) -> Path:
    """`source` itself, or where it is a recording or a video, the frames of it that `pseudo_label` made `labels` of.

    Raises:
        InputError: It made none.

    """
    if not _is_footage(source):
        return Path(source)
    folder = Path(labels).with_name(f"{Path(labels).stem}.frames") / IMAGES
    if not folder.is_dir():
        raise InputError(
            f"{source} is footage, and its frames are not in {folder}; label it first: pseudo_label --images {source} "
            f"--out {labels}"
        )
    return folder


def as_neighbours(source: str | os.PathLike, folder: str | os.PathLike, say: Say = print) -> Path:
    """`source` itself, or where it is a recording or a video, pairs of neighbouring frames of it, written to `folder`.

    Raises:
        InputError: See `extract`.

    """
    if not _is_footage(source):
        return Path(source)
    extract([source], folder, ExtractConfig(hold_back=1.0), say)
    return Path(folder) / HELD_BACK


def _is_footage(source: str | os.PathLike) -> bool:
    return is_bag(source) or is_video(source)


def summary(counts: dict[str, int]) -> str:
    """One sentence about what `extract` did."""
    dropped = ", ".join(f"{count:,} {reason}" for reason, count in counts.items() if reason != KEPT)
    return f"kept {counts.get(KEPT, 0):,} of {sum(counts.values()):,} frames" + (f" ({dropped})" if dropped else "")


def fingerprint(source: str | os.PathLike) -> str:
    """SHA-256 of a file, or of the names and contents of a folder's."""
    path = Path(source)
    files = bag_files(path) if is_bag(path) else [path] if path.is_file() else list_images(path)
    if files == [path]:
        return sha256(path)
    digest = hashlib.sha256()
    for file in files:
        digest.update(os.fsencode(f"{file.name} {sha256(file)}\n"))  # a name need not be valid UTF-8
    return digest.hexdigest()


def _measure(path: Path, folder: Path, config: ExtractConfig, where: str, say: Say) -> _Source:
    if not path.exists():
        raise InputError(f"{path} does not exist; give a recording, a video or a folder of images")
    key = fingerprint(path)
    settings = f"{key} {config.topics} {config.max_rate}"
    file = folder / "measures" / f"{hashlib.sha256(settings.encode()).hexdigest()[:16]}.npz"
    if not file.is_file():
        lost: list[str] = []
        rows = []
        for frame in _counted(_frames(path, config, lost.append), f"measuring {where}", say):
            found = measure(frame.pixels)
            size = frame.pixels.shape[:2]
            found = found._replace(signature=found.signature.astype(np.float16))  # half of what an hour takes in memory
            rows.append((frame.camera, frame.stamp, size, frame.depth is not None, *found))
        for line in lost:
            say(line)
        names = ("cameras", "stamps", "sizes", "depth", "signatures", "sharpness", "dark", "bright")
        columns = dict(zip(names, map(np.array, zip(*rows, strict=True)), strict=True))
        with atomic_path(file) as temporary, open(temporary, "wb") as target:
            np.savez(target, lost=np.array(lost, dtype=str), **columns)  # type: ignore[arg-type]
    with np.load(file, allow_pickle=False) as stored:
        measures = dict(stored)
    return _Source(path, key, measures, measures.pop("lost").tolist())


def _without_pauses(stamps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N,) int64 ns since the first frame, in which a pause lasts as long as a usual interval, and (N,) int64 numbers
    of the stretches between pauses.

    Recorders are stopped, and clocks are set while they run: all frames would lie in few blocks of the time.
    """
    order = np.argsort(stamps, kind="stable")
    steps = np.diff(stamps[order], prepend=stamps.min())
    usual = int(np.median(steps[steps > 0])) if steps.any() else 0
    pauses = steps > max(_PAUSE * 1e9, _PAUSE * usual)
    passed, stretches = np.empty((2, len(stamps)), np.int64)
    passed[order], stretches[order] = np.cumsum(np.where(pauses, usual, steps)), np.cumsum(pauses)
    return passed, stretches


def _held_back(passed: np.ndarray, share: float) -> np.ndarray:
    """(N,) bool: frames of the blocks of time that are held back, evenly spread, never the first one."""
    if share in (0.0, 1.0):
        return np.full(len(passed), share == 1.0)
    every = max(2, round(1 / share))
    whole = int(passed.max())
    blocks = max(_BLOCKS, every, int(whole / 1e9 / _BLOCK))
    return (passed / (whole + 1) * blocks).astype(int) % every == every // 2


def _pairs(held: np.ndarray, cameras: np.ndarray, stretches: np.ndarray) -> list[int]:
    """Frames to be written of those held back: neighbours in time of one camera, evenly spread."""
    pairs: list[tuple[int, int]] = []
    for camera in dict.fromkeys(cameras.tolist()):
        own = np.flatnonzero(cameras == camera)
        pairs += [(int(a), int(b)) for a, b in pairwise(own) if held[a] and held[b] and stretches[a] == stretches[b]]
    places = np.linspace(0, len(pairs) - 1, min(len(pairs), _HELD_FRAMES // 2)).round().astype(int)
    return sorted({index for place in places for index in pairs[place]})


def _frames(path: Path, config: ExtractConfig, say: Say) -> Iterator[Frame]:
    return open_footage(path, topics=config.topics, max_rate=config.max_rate, say=say)


def _counted(frames: Iterator[Frame], what: str, say: Say) -> Iterator[Frame]:
    """Tells from time to time how many there were."""
    start = last = time.monotonic()
    count = 0
    for count, frame in enumerate(frames, 1):
        yield frame
        if (now := time.monotonic()) - last >= _PROGRESS:
            last = now
            say(f"{what}: {count:,} frames, {count / (now - start):.0f} per second")
    say(f"{what}: {count:,} frames")


def _rows(sources: Sequence[_Source], why: Sequence[str], judged: set[int]) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for source in sources:
        table = source.measures
        for index in range(len(source)):
            camera, reason = str(table["cameras"][index]), why[len(rows)]
            slug = re.sub(r"[^A-Za-z0-9._-]+", "_", camera).strip("_.") or "camera"
            name = f"{slug}/{source.sha256[:8]}_{index:06d}"
            folder = IMAGES if reason == KEPT else HELD_BACK if len(rows) in judged else ""
            rows.append(
                {
                    "file": f"{folder}/{name}.jpg" if folder else None,
                    "depth": f"{DEPTH}/{name}.png" if folder == IMAGES and table["depth"][index] else None,
                    "why": reason,
                    "camera": camera,
                    "stamp": int(table["stamps"][index]),
                    "size": table["sizes"][index].tolist(),
                    "sharpness": round(float(table["sharpness"][index].mean()), 2),
                    "source": source.path.name,
                    "sha256": source.sha256,
                    "index": index,
                }
            )
    return rows


def _remove_others(folder: Path, kept: set[str]) -> None:
    for file in [*(folder / IMAGES).glob("*/*.jpg"), *(folder / HELD_BACK).glob("*/*.jpg")]:
        if re.fullmatch(r"[0-9a-f]{8}_\d{6}", file.stem) and file.relative_to(folder).as_posix() not in kept:
            file.unlink()
            (folder / DEPTH / file.parent.name / f"{file.stem}.png").unlink(missing_ok=True)


def _write_frames(
    sources: Sequence[_Source], rows: list[dict[str, Any]], folder: Path, config: ExtractConfig, say: Say
) -> None:
    """Write what is not there yet; reads only sources of which something is missing."""
    state = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    sheet = Sheet(rows)
    offset = 0
    for source in sources:
        own = rows[offset : offset + len(source)]
        missing = any(row[name] and not (folder / row[name]).is_file() for row in own for name in ("file", "depth"))
        if missing or not sheet.is_of(folder / SHEET, state):
            frames = _counted(_frames(source.path, config, lambda line: None), f"writing {source.path}", say)
            for index, (row, frame) in enumerate(zip(own, frames, strict=True), offset):
                sheet.add(index, frame.pixels)
                if row["file"] and not (folder / row["file"]).is_file():
                    _write(folder / row["file"], frame.encoded or _encode(".jpg", frame.pixels[..., ::-1], config))
                if row["depth"] and frame.depth is not None and not (folder / row["depth"]).is_file():
                    millimetres = np.nan_to_num(np.clip(frame.depth * 1000, 0, 65535)).round().astype(np.uint16)
                    _write(folder / row["depth"], _encode(".png", millimetres, config))
        offset += len(source)
    if not sheet.is_of(folder / SHEET, state):
        _write(folder / SHEET, sheet.draw(state))


def _encode(ending: str, pixels: np.ndarray, config: ExtractConfig) -> bytes:
    options = [cv2.IMWRITE_JPEG_QUALITY, config.quality] if ending == ".jpg" else []
    return cv2.imencode(ending, pixels, options)[1].tobytes()


def _write(path: Path, data: bytes) -> None:
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)
