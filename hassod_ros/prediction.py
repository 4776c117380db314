"""A model over photos, a video or a recording: pictures, a video and COCO JSON, without ROS."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import cv2
import numpy as np

from hassod_ros.coco import to_coco
from hassod_ros.commands import reached
from hassod_ros.drawing import draw, side_by_side
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path, make_folder
from hassod_ros.footage.kinds import is_bag, is_video
from hassod_ros.footage.sources import open_footage
from hassod_ros.images import keep_apart, name_images, picture_names, read_image, write_image
from hassod_ros.instances import Instances, Level
from hassod_ros.progress import progress, say
from hassod_ros.runtime.segmenter import ImageSegmenter
from hassod_ros.runtime.selection import Selection
from hassod_ros.runtime.tracking import Tracker

PREDICTIONS = "predictions.json"
_LONGEST_STILL = 2.0  # s that one frame of a video is shown at most, however long the gap after it


@dataclass
class Outcome:
    """What became of a source.

    Attributes:
        images: How many were segmented.
        levels: Instances of each level, by its value.
        failures: One sentence for each image, or topic of a recording, that could not be read.
        written: Files and folders with the results.

    """

    images: int = 0
    levels: Counter[int] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    written: list[Path] = field(default_factory=list)

    def __str__(self) -> str:
        kinds = ", ".join(f"{self.levels[level]} {level.name.lower()}s" for level in Level)
        text = f"{self.images} images, {self.levels.total()} instances ({kinds}): {', '.join(map(str, self.written))}"
        return f"{text}\ncould not be read: {len(self.failures)}, named above" if self.failures else text


class _Image(NamedTuple):
    name: str  # in the COCO file
    pixels: np.ndarray  # (H, W, 3) uint8 RGB
    camera: str  # "" for a photo
    seconds: float  # since the first frame


def predict(
    segment: ImageSegmenter,
    source: str | os.PathLike,
    out: str | os.PathLike,
    *,
    model: str = "",
    selection: Selection | None = None,
    panels: bool = False,
    pictures: bool = True,
    draw_scene: bool = False,
    max_rate: float = 0.0,
    save_frames: bool = False,
) -> Outcome:
    """Segment everything in a source and write down what is found.

    `predictions.json` is COCO with `level`, `parent_id` and `score`; of videos and recordings also with `track_id`,
    `frame_index` and `timestamp`. Photos get a picture each in `pictures`, cameras a video each. What is done when the
    run is stopped is kept.

    Args:
        segment: The model.
        source: Photo, folder, list of photos, video, or recording.
        out: Folder to write to.
        model: Name of the model, for the file.
        selection: What is wanted; default: what the model recommends.
        panels: Draw image, wholes, parts and subparts side by side instead of all over the image.
        pictures: Draw at all.
        draw_scene: Draw the outlines of background and supports too; in `predictions.json` they are in any case.
        max_rate: Of videos and recordings: most frames per second, 0 = all.
        save_frames: Also write the frames of a video or recording, to `frames`, for tools that show COCO files.

    Raises:
        InputError: Nothing in the source can be read, or the folder cannot be written.

    """
    out, outcome = Path(out), Outcome()
    selection = selection or Selection()
    segment.configure(selection)
    moves = is_video(source) or is_bag(source)
    if moves:
        images: Iterator[_Image] = _frames(source, max_rate, outcome.failures)
        total = None
    else:
        root, names = name_images(Path(source))
        if Path(source).is_dir():
            keep_apart(out, source)
        keep_apart(out / "pictures", source)
        images, total = _photos(root, names, outcome.failures), len(names)
        drawn_names = dict(zip(names, picture_names(names), strict=True))
    drawn = _Videos(out) if moves else None
    tracks: dict[str, Tracker] = {}
    stop: KeyboardInterrupt | None = None
    with atomic_path(out / PREDICTIONS) as temporary, open(temporary, "w", encoding="utf-8") as text:
        file = _CocoFile(text, model)
        try:
            for image in progress(images, total=total, unit="image"):
                found = selection.apply(segment(image.pixels))
                if drawn:
                    found = tracks.setdefault(image.camera, Tracker()).update(found, image.seconds, image.pixels)
                file.add(image, found)
                if save_frames and drawn:
                    write_image(out / "frames" / image.name, image.pixels)
                if pictures:
                    shown = found if draw_scene else found.select(~found.scene)
                    picture = (side_by_side if panels else draw)(image.pixels, shown)
                    if drawn:
                        drawn.write(image.camera, image.seconds, picture)
                    else:
                        write_image(out / "pictures" / drawn_names[image.name], picture)
                outcome.images += 1
                outcome.levels.update(found.levels.tolist())
                reached(f"{outcome.images} images")
        except KeyboardInterrupt as error:
            stop = error
        if not outcome.images and not stop:
            first = outcome.failures[0] if outcome.failures else "it has no frame"
            raise InputError(f"nothing in {source} can be read: {first}")
        file.finish()
    outcome.written.append(out / PREDICTIONS)
    if drawn:
        outcome.written += drawn.close()
    elif pictures:
        outcome.written.append(out / "pictures")
    if stop:
        raise stop
    return outcome


def _photos(root: Path, names: Iterable[str], failures: list[str]) -> Iterator[_Image]:
    for name in names:
        pixels = _read(root / name, failures)
        if pixels is not None:
            yield _Image(name, pixels, "", 0.0)


def _read(path: Path, failures: list[str]) -> np.ndarray | None:
    try:
        return read_image(path)
    except InputError as error:
        failures.append(str(error))
        say(str(error))
        return None


def _frames(source: str | os.PathLike, max_rate: float, failures: list[str]) -> Iterator[_Image]:
    counts: Counter[str] = Counter()
    first: int | None = None

    def lost(sentence: str) -> None:
        failures.append(sentence)
        say(sentence)

    for frame in open_footage(source, max_rate=max_rate, say=lost):
        first = frame.stamp if first is None else first
        camera = frame.camera.strip("/").replace("/", "_")
        yield _Image(f"{camera}/{counts[camera]:06d}.jpg", frame.pixels, camera, (frame.stamp - first) / 1e9)
        counts[camera] += 1


class _CocoFile:
    """COCO JSON that is written as it comes: a long video does not fill the memory."""

    def __init__(self, file: TextIO, model: str) -> None:
        self._file = file
        self._images: list[dict[str, Any]] = []
        self._count = 0
        info = {"description": "predictions of hassod_ros", "model": model}
        self._file.write(f'{{"info":{json.dumps(info)},"licenses":[],"categories":[{{"id":1,"name":"object"}}],')
        self._file.write('"annotations":[')

    def add(self, image: _Image, instances: Instances) -> None:
        """Write one image's annotations."""
        height, width = instances.image_size
        image_id = len(self._images) + 1
        entry: dict[str, Any] = {"id": image_id, "file_name": image.name, "height": height, "width": width}
        if image.camera:
            entry |= {"frame_index": int(Path(image.name).stem), "timestamp": round(image.seconds, 6)}
        self._images.append(entry)
        for i, annotation in enumerate(to_coco(instances, image_id, first_id=self._count + 1)):
            if image.camera:
                annotation["track_id"] = int(instances.ids[i])
            self._file.write(",\n" * bool(self._count) + json.dumps(annotation, separators=(",", ":")))
            self._count += 1

    def finish(self) -> None:
        """Write the images and end the file."""
        self._file.write(f'],"images":{json.dumps(self._images, separators=(",", ":"))}}}\n')


class _Videos:
    """One video for each camera, in the time of its frames."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._open: dict[str, _Video] = {}

    def write(self, camera: str, seconds: float, picture: np.ndarray) -> None:
        if camera not in self._open:
            self._open[camera] = _Video(self._folder / f"{Path(camera).stem}_overlay.mp4")
        self._open[camera].write(seconds, picture)

    def close(self) -> list[Path]:
        return [video.close() for video in self._open.values()]


class _Video:
    """A video of constant rate: each frame is shown until the next one comes, or for a moment where no time passes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._partial = path.with_name(f".{path.stem}.partial.mp4")
        self._waiting: np.ndarray | None = None  # shown from `_since` on, for a time that the next frame tells
        self._since = 0.0
        self._writer: cv2.VideoWriter | None = None
        self._rate, self._surplus = 10.0, 0.0

    def write(self, seconds: float, picture: np.ndarray) -> None:
        bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
        if self._waiting is not None:
            shown = min(seconds - self._since, _LONGEST_STILL)
            if shown <= 0:  # some cameras never stamp their frames
                shown = 1 / self._rate
            if self._writer is None:
                self._begin(float(np.clip(round(1 / max(shown, 1e-3)), 1, 60)))
            self._show(shown)
            bgr = cv2.resize(bgr, self._waiting.shape[1::-1]) if bgr.shape != self._waiting.shape else bgr
        self._waiting, self._since = bgr, seconds

    def _begin(self, rate: float) -> None:
        assert self._waiting is not None
        self._rate = rate
        make_folder(self._partial.parent)
        kind = cv2.VideoWriter.fourcc(*"mp4v")
        self._writer = cv2.VideoWriter(str(self._partial), kind, rate, self._waiting.shape[1::-1])
        if not self._writer.isOpened():
            raise InputError(f"{self._path} cannot be written; free the disk, or install OpenCV from PyPI")

    def _show(self, seconds: float) -> None:
        assert self._writer is not None
        assert self._waiting is not None
        exact = seconds * self._rate + self._surplus
        for _ in range(count := round(exact)):
            self._writer.write(self._waiting)
        self._surplus = exact - count

    def close(self) -> Path:
        """Show the last frame as long as a frame is shown, and give the file its name."""
        if self._writer is None:
            self._begin(self._rate)
        assert self._writer is not None
        self._show(1 / self._rate)
        self._writer.release()
        os.replace(self._partial, self._path)
        return self._path
