"""A taught part: learned from a few good pictures, kept in one file with them.

No bad picture is needed. Every limit comes from the good ones: each is held against the others (leave one out), the
worst of that times a margin is the limit, and how often a good part will be beyond it is stated.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path
from hassod_ros.inspection.align import Aligner, Keypoints
from hassod_ros.inspection.band import CellBand, PixelBand, odd, usual_limit
from hassod_ros.inspection.inventory import Component, seen_share, take_inventory
from hassod_ros.inspection.look import ComponentBand, Likeness, agreements
from hassod_ros.inspection.places import learn_wander
from hassod_ros.inspection.settings import Settings
from hassod_ros.inspection.texture import Texture
from hassod_ros.inspection.view import Observe, blank, see, smoothed

SCHEMA = 7
KEY = "hassod_ros_reference"
LEAST = 3  # good pictures
MOST = 100
_CANDIDATES = 8  # good pictures that may become the reference picture
LEAST_TRUST = 0.19  # of an alignment, see `Alignment.trust`
_BLUR, _COMMON = 1.0, 4.0  # of the bands of cells
_RANGE = 1e-3
_EDGE = 2 / 3  # of the tolerance of position, for single edges; surroundings may lie off by all of it together
# Limits are at least: of pixels, in the floor of the band, what noise, JPEG and half a pixel make; of colours, in grey
# levels, what light makes; of components, in the unlikeness that they may always have, how far off they look in other
# light.
_LEAST = {"pixels": 3.0, "colours": 12.0, "likeness": 1.5}
# Percent of changed light among the good pictures, up to which so much of that is enough for colours.
_STEADY = (1.5, 0.75)
# Of the margin: colours change with the light, and a few good pictures rarely show how far; the worst of all
# cells of a texture is already far out.
_SHARES = {"colours": 1.5, "colour_looks": 3.0, "texture": 0.5}
_ARRAYS = ("ideal", "mask", "channels", "wander", "seen", "trust", "agreement", "light")
_BANDS = {
    "pixels": PixelBand,
    "colours": CellBand,
    "network": CellBand,
    "colour_looks": ComponentBand,
    "likeness": Likeness,
}


@dataclass(frozen=True)
class Reference:
    """What a good part looks like.

    Attributes:
        name: For people.
        pictures: The K good pictures, (H', W', 3) uint8 RGB.
        names: Their names.
        settings: As taught.
        model_sha256: Of the detector whose features are in here; "" without one.
        ideal: (H, W, 3) uint8 RGB, the region of the medoid of the good pictures.
        mask: (H, W) uint8, 0 where it is not looked at.
        pixels: Their band.
        colours: Band of the colours of cells.
        network: Band of the features of cells; None without a detector that gives them.
        colour_looks: How the components look by colour; None where there are none.
        likeness: Whether they are there, by features and the detector; None likewise.
        channels: (2, C) float32 mean and deviation that features are evened out with.
        components: The inventory, the largest first.
        wander: (N,) how far off they lie in good pictures, see `learn_wander`.
        seen: See `seen_share`.
        trust: (K,) how well the good pictures lie over the reference, see `Alignment.trust`.
        agreement: (K,) how much of them looks like it, see `Alignment.agreement`.
        light: (K,) percent that their light was changed by.
        texture: In place of all this where the method is "texture".
        disagree: Names of good pictures that are odd.

    """

    name: str
    pictures: tuple[np.ndarray, ...]
    names: tuple[str, ...]
    settings: Settings
    model_sha256: str
    ideal: np.ndarray
    mask: np.ndarray
    pixels: PixelBand | None
    colours: CellBand | None
    network: CellBand | None
    colour_looks: ComponentBand | None
    likeness: Likeness | None
    channels: np.ndarray
    components: tuple[Component, ...]
    wander: np.ndarray
    seen: np.ndarray
    trust: np.ndarray
    agreement: np.ndarray
    light: np.ndarray
    texture: Texture | None
    disagree: tuple[str, ...]

    @property
    def picture_size(self) -> tuple[int, int]:
        """(H', W') of the good pictures."""
        height, width = self.pictures[0].shape[:2]
        return height, width

    def scores(self) -> dict[str, np.ndarray]:
        """(K,) leave-one-out scores of the good pictures, for each way of measuring."""
        if self.texture is not None:
            return {"texture": self.texture.scores}
        bands = {name: getattr(self, name) for name in _BANDS}
        return {name: band.scores for name, band in bands.items() if band is not None}

    def limits(self, margin: float) -> dict[str, float]:
        """The limit of each way of measuring; see `_SHARES`."""
        limits = {}
        for name, scores in self.scores().items():
            share = 1 + (margin - 1) * _SHARES.get(name, 1.0)
            least = _LEAST.get(name, 0.0)
            if name == "colours" and self.light.max() <= _STEADY[0]:
                least *= _STEADY[1]
            limits[name] = usual_limit(scores, share, least)
        return limits

    def false_alarm_rate(self, margin: float) -> tuple[float, float]:
        """Share of good parts that will be called bad: what is sure, and what is likely.

        The first holds for any parts that are like the good ones, without the margin: the next of K + 1 is the worst
        with a chance of 1 in K + 1, or with D that set no limit among the D + 1 worst. The second takes the logarithms
        of the scores as normal and counts the margin, with Student's distribution for what K pictures leave unknown.
        """
        limits = self.limits(margin)
        relative = np.max([each * margin / max(limits[name], 1e-9) for name, each in self.scores().items()], axis=0)
        logs = np.log(np.maximum(relative, _RANGE))
        k = len(logs)
        spread = max(float(logs.std(ddof=1)) * math.sqrt(1 + 1 / k), 1e-6)
        sure = (1 + len(self.disagree)) / (k + 1)
        return sure, min(sure, _student_tail((math.log(margin) - float(logs.mean())) / spread, k - 1))


def learn(
    pictures: Sequence[np.ndarray],
    settings: Settings,
    *,
    name: str,
    names: Sequence[str] = (),
    observe: Observe | None = None,
    model_sha256: str = "",
    report: Callable[[str], None] = lambda line: None,
) -> Reference:
    """A reference from good pictures.

    Args:
        pictures: K >= 3 of (H, W, 3) uint8 RGB; of one size, unless the method is "texture". What is there twice
            counts once: it shows nothing of how good parts differ.
        settings: What to look at and how.
        name: Of the reference.
        names: Of the pictures, for messages.
        observe: The detector with its features (`Segmenter.observe` of one picture); without one only pixels and
            colours are compared, and there are no components.
        model_sha256: Of the detector's file.
        report: Takes a line of progress at a time.

    Raises:
        InputError: Too few pictures, or some that cannot be of one part; the sentence names them.

    """
    names = tuple(names) or tuple(f"picture {i + 1}" for i in range(len(pictures)))
    pictures, names = _without_copies(pictures, names, report)
    _check(pictures, names, settings)
    empty = np.zeros((0, 0), np.float32)
    common: dict[str, Any] = {
        "name": name,
        "pictures": tuple(pictures),
        "names": names,
        "settings": settings,
        "model_sha256": model_sha256 if observe is not None else "",
    }
    if settings.method == "texture":
        report(f"learning the texture of {len(pictures)} pictures")
        texture = Texture.learn([_region(each, settings) for each in pictures], observe)
        disagree = tuple(names[i] for i in np.flatnonzero(odd(texture.scores)))
        no_bands: dict[str, Any] = dict.fromkeys(_BANDS)
        return Reference(
            **common,
            ideal=pictures[0],
            mask=settings.mask(pictures[0].shape[:2]) if settings.roi or settings.ignore else _all_of(pictures[0]),
            **no_bands,
            channels=empty,
            components=(),
            wander=np.zeros(0, np.float32),
            seen=empty,
            trust=np.ones(len(pictures), np.float32),
            agreement=np.ones(len(pictures), np.float32),
            light=np.zeros(len(pictures), np.float32),
            texture=texture,
            disagree=disagree,
        )
    report(f"aligning {len(pictures)} pictures")
    medoid, placed = _align(pictures, names, settings)
    x, y, columns, rows = settings.window((pictures[0].shape[0], pictures[0].shape[1]))
    ideal = np.ascontiguousarray(pictures[medoid][y : y + rows, x : x + columns])
    mask = settings.mask((pictures[0].shape[0], pictures[0].shape[1]))
    report("comparing them")
    views = [see(picture, alignment, ideal, mask, observe) for picture, alignment in zip(pictures, placed, strict=True)]
    covered = [view.covered for view in views]
    cells = [view.covered_cells for view in views]
    pixels = PixelBand.learn([view.pixels for view in views], covered, max(1, round(_EDGE * settings.position)))
    colours = CellBand.learn([view.colours for view in views], cells, blur=_BLUR, common=_COMMON)
    network, channels = None, empty
    maps = [view.network for view in views if view.network is not None]
    if maps:
        stacked = np.stack(maps)
        deviation = stacked.std(axis=(0, 2, 3)) + 1e-3
        channels = np.stack([stacked.mean(axis=(0, 2, 3)), deviation * math.sqrt(len(deviation))]).astype(np.float32)
        maps = [even_out(each, channels) for each in maps]
        network = CellBand.learn(maps, cells, blur=_BLUR, common=_COMMON)
    found = [view.instances for view in views if view.instances is not None]
    size = (mask.shape[0], mask.shape[1])
    components = take_inventory(found, size) if found else []
    colour_looks, likeness = None, None
    if components:
        colour_looks = ComponentBand.learn([view.colours for view in views], components, size)
    if components and maps:
        masks = [each.full(size) for each in components]
        seen = [agreements(view.detector, masks, components) for view in views]
        raw = [view.network for view in views if view.network is not None]
        likeness = Likeness.learn(raw, covered, seen, components, size)
    reference = Reference(
        **common,
        ideal=ideal,
        mask=mask,
        pixels=pixels,
        colours=colours,
        network=network,
        channels=channels,
        colour_looks=colour_looks,
        likeness=likeness,
        components=tuple(components),
        wander=learn_wander([view.pixels for view in views], smoothed(ideal), components),
        seen=seen_share(found, size),
        trust=np.array([each.trust for each in placed], np.float32),
        agreement=np.array([each.agreement for each in placed], np.float32),
        light=np.array([view.light.change for view in views], np.float32),
        texture=None,
        disagree=(),
    )
    unlike = np.logical_or.reduce([odd(each, _LEAST.get(name, 0.0)) for name, each in reference.scores().items()])
    return replace(reference, disagree=tuple(names[i] for i in np.flatnonzero(unlike)))


def even_out(features: np.ndarray, channels: np.ndarray) -> np.ndarray:
    """(C, h, w) features, each channel by its mean and deviation (2, C)."""
    evened: np.ndarray = (features - channels[0][:, None, None]) / channels[1][:, None, None]
    return evened


def _without_copies(
    pictures: Sequence[np.ndarray], names: Sequence[str], report: Callable[[str], None]
) -> tuple[list[np.ndarray], tuple[str, ...]]:
    first: dict[bytes, int] = {}
    for index, picture in enumerate(pictures):
        same = first.setdefault(hashlib.sha256(np.ascontiguousarray(picture).data).digest(), index)
        if same != index:
            report(f"{names[index]} is the same as {names[same]}; it counts once")
    kept = list(first.values())
    return [pictures[index] for index in kept], tuple(names[index] for index in kept)


def _check(pictures: Sequence[np.ndarray], names: Sequence[str], settings: Settings) -> None:
    if len(pictures) < LEAST:
        raise InputError(
            f"{len(pictures)} good pictures are too few to learn limits from; give at least {LEAST} that differ"
        )
    if len(pictures) > MOST:
        raise InputError(f"{len(pictures)} good pictures are more than a reference holds; give at most {MOST}")
    size = pictures[0].shape
    for picture, name in zip(pictures, names, strict=True):
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            raise InputError(f"{name} is no uint8 colour picture ({picture.dtype} {picture.shape}); convert it")
        if blank(picture):
            raise InputError(f"{name} is blank (all black, or one colour); take it again with light and lens cap off")
        if settings.method == "aligned" and picture.shape != size:
            sizes = f"{picture.shape[1]} x {picture.shape[0]}, {names[0]} is {size[1]} x {size[0]}"
            raise InputError(f"{name} is {sizes}; give good pictures of one camera at one resolution")
        settings.mask((picture.shape[0], picture.shape[1]))


def _align(pictures: Sequence[np.ndarray], names: Sequence[str], settings: Settings) -> tuple[int, list[Any]]:
    """The index of the medoid, and how all pictures lie over it."""
    keypoints = [Keypoints(each) for each in pictures]
    size = (pictures[0].shape[0], pictures[0].shape[1])
    x, y, columns, rows = settings.window(size)
    mask = settings.mask(size)
    step = max(1, len(pictures) // _CANDIDATES)
    best: tuple[float, int, list[Any]] | None = None
    for i in range(0, len(pictures), step):
        aligner = Aligner(np.ascontiguousarray(pictures[i][y : y + rows, x : x + columns]), mask)
        placed = [aligner.place(each) for each in keypoints]
        trusts = np.array([each.trust for each in placed])
        if best is None or trusts.mean() > best[0]:
            best = (float(trusts.mean()), i, placed)
    assert best is not None
    _, medoid, placed = best
    strange = [name for name, each in zip(names, placed, strict=True) if each.trust < LEAST_TRUST]
    if strange:
        raise InputError(
            f"{', '.join(strange)} cannot be laid over {names[medoid]}: another product, or taken too differently; "
            "leave them out or take them again"
        )
    unsure = [name for name, each in zip(names, placed, strict=True) if not each.sure]
    if unsure:
        raise InputError(
            f"{', '.join(unsure)} looks the same when it is moved along: nothing tells where the part lies; take in an "
            'edge or a mark of it, or use the method "texture"'
        )
    return medoid, placed


def _region(picture: np.ndarray, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    size = (picture.shape[0], picture.shape[1])
    x, y, columns, rows = settings.window(size)
    return picture[y : y + rows, x : x + columns], settings.mask(size)


def _all_of(picture: np.ndarray) -> np.ndarray:
    return np.full(picture.shape[:2], 255, np.uint8)


def _student_tail(t: float, freedom: int) -> float:
    """Chance that a variable of Student's distribution is above t."""
    angle = np.linspace(math.atan(t / math.sqrt(freedom)), math.pi / 2, 2001)
    density = np.cos(angle) ** (freedom - 1)  # substituting t = sqrt(freedom) tan(angle)
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(math.pi)
    return float(scale * np.sum((density[1:] + density[:-1]) / 2) * (angle[1] - angle[0]))


def save(reference: Reference, path: str | os.PathLike) -> None:
    """Write a reference atomically, as `.npz` without pickled objects.

    Raises:
        InputError: The folder cannot be written or the disk is full.

    """
    arrays: dict[str, np.ndarray] = {}
    for i, picture in enumerate(reference.pictures):
        coded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1]
        arrays[f"picture{i}"] = coded.ravel()
    for i, component in enumerate(reference.components):
        arrays[f"component{i}"] = component.mask
    for name in _ARRAYS:
        arrays[name] = getattr(reference, name)
    for name in (*_BANDS, "texture"):
        band = getattr(reference, name)
        if band is not None:
            arrays |= {f"{name}.{each.name}": np.asarray(getattr(band, each.name)) for each in fields(band)}
    record = {
        "schema": SCHEMA,
        "name": reference.name,
        "names": reference.names,
        "settings": asdict(reference.settings),
        "model_sha256": reference.model_sha256,
        "components": [
            {"box": each.box, "present": each.present, "overlap": each.overlap, "parent": each.parent}
            for each in reference.components
        ],
        "disagree": reference.disagree,
    }
    arrays[KEY] = np.frombuffer(json.dumps(record).encode(), np.uint8)
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load(path: str | os.PathLike) -> Reference:
    """Read what `save` wrote.

    Raises:
        InputError: No such file, damaged, not a reference, or of another schema.

    """
    path = Path(path)
    again = "learn it again with learn_reference"
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path, or {again}") from error
    except Exception as error:  # zipfile, zlib, numpy and struct each have errors of their own for damage
        raise InputError(f"{path} is damaged or is no reference ({error}); {again}") from error
    if KEY not in arrays:
        raise InputError(f"{path} is no reference of an inspection; {again}")
    try:
        record = json.loads(arrays[KEY].tobytes())
        if record["schema"] != SCHEMA:
            raise InputError(f"{path} has schema {record['schema']}, this version reads {SCHEMA}; {again}")
        return _build(record, arrays)
    except InputError:
        raise
    except Exception as error:
        raise InputError(f"{path} is damaged ({type(error).__name__}: {error}); {again}") from error


def _build(record: dict[str, Any], arrays: dict[str, np.ndarray]) -> Reference:
    pictures = []
    for i in range(len(record["names"])):
        decoded = cv2.imdecode(arrays[f"picture{i}"], cv2.IMREAD_COLOR)
        if decoded is None:
            raise ValueError(f"picture {i + 1} cannot be read")
        pictures.append(cv2.cvtColor(decoded, cv2.COLOR_BGR2RGB))
    components = tuple(
        Component(tuple(each["box"]), arrays[f"component{i}"], each["present"], each["overlap"], each["parent"])
        for i, each in enumerate(record["components"])
    )

    def part(name: str, kind: Any) -> Any:
        values = {key.split(".")[1]: value for key, value in arrays.items() if key.startswith(f"{name}.")}
        return kind(**{key: value if value.ndim else value.item() for key, value in values.items()}) if values else None

    bands: dict[str, Any] = {name: part(name, kind) for name, kind in _BANDS.items()}
    kept: dict[str, Any] = {name: arrays[name] for name in _ARRAYS}
    settings = record["settings"]
    settings["roi"] = None if settings["roi"] is None else tuple(settings["roi"])
    settings["ignore"] = tuple(tuple((x, y) for x, y in polygon) for polygon in settings["ignore"])
    return Reference(
        name=record["name"],
        pictures=tuple(pictures),
        names=tuple(record["names"]),
        settings=Settings(**settings),
        model_sha256=record["model_sha256"],
        components=components,
        **bands,
        texture=part("texture", Texture),
        disagree=tuple(record["disagree"]),
        **kept,
    )
