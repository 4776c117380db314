"""What a model file says about itself; the runtime reads this and nothing else."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, BinaryIO

from hassod_ros.errors import InputError
from hassod_ros.instances import Level
from hassod_ros.runtime.evidence import Evidence

SCHEMA = 1
METADATA_KEY = "hassod_ros"
LEVEL_SOURCES = ("head", "coverage")
PRECISIONS = ("fp32", "fp16", "int8")

_METADATA_PROPS = 14  # field of ModelProto (onnx.proto)
_LENGTH_DELIMITED, _VARINT = 2, 0
_RENAMED = {"cover": "parent_coverage"}  # of files that are older still
_ADDED = (
    "parent_coverage",
    "color_weight",
    "evidence",
    "feature_stride",
    "rpn_nms",
    "mask_stride",
)  # older files lack it: they take the default


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """Metadata of an exported detector, stored in the ONNX file as one JSON object under the key `hassod_ros`.

    Attributes:
        architecture: Name of the detector, for people.
        input_size: (H, W) of the network's input in pixels.
        batch: Images per call, fixed.
        layout: Always "NHWC", uint8.
        color_order: Always "RGB".
        mean: Per channel, 0..255; subtracted inside the graph. Padding is filled with it.
        std: Per channel; divided by inside the graph.
        levels: Names in the order of `Level`.
        proposals: K, regions that the cascade refines.
        detections: D, rows of each output.
        mask_size: Side of a mask's probability map, usually 28; without meaning where `mask_stride` is not 0.
        mask_stride: Pixels of the input a cell of a mask is wide where masks span the input and the file has the output
            `ancestors`; 0 where masks lie in boxes.
        score_thresholds: Recommended least score for each level, in [0, 1].
        mask_threshold: Probability from which a pixel belongs to the mask.
        level_source: "head", or "coverage" where the masks tell levels better than the level head does.
        parent_coverage: Recommended share of a mask that its parent must contain, in (0, 1].
        color_weight: Recommended weight with which outlines follow the colours of the image, from 0.
        evidence: Constants of `Evidence`, for models whose scores, scenes and parents are judged by the picture.
        feature_stride: Pixels of the input a cell of the output `features`, the finest pyramid level, is wide; 0 where
            the file has no such output.
        nms_threshold: IoU above which the lower-scored detection was dropped.
        rpn_nms: Likewise of proposals; 0 where the file does not say, or its detector has none.
        precision: "fp32", "fp16" or "int8".
        weights_sha256: Of the checkpoint that was exported.
        recipe: Name of the training recipe, "" if unknown.
        revision: Git revision of the exporting code.
        created: ISO 8601 time of the export, UTC.
        schema: Version of this record.

    """

    architecture: str
    input_size: tuple[int, int]
    batch: int
    proposals: int
    detections: int
    weights_sha256: str
    revision: str
    created: str
    recipe: str = ""
    precision: str = "fp32"
    mean: tuple[float, ...] = (123.675, 116.28, 103.53)
    std: tuple[float, ...] = (58.395, 57.12, 57.375)
    score_thresholds: tuple[float, ...] = (0.5, 0.5, 0.5)
    mask_threshold: float = 0.5
    level_source: str = "head"
    parent_coverage: float = 0.75
    color_weight: float = 0.0
    evidence: Evidence | None = None
    feature_stride: int = 0
    nms_threshold: float = 0.5
    rpn_nms: float = 0.0
    mask_size: int = 28
    mask_stride: int = 0
    layout: str = "NHWC"
    color_order: str = "RGB"
    levels: tuple[str, ...] = tuple(level.name.lower() for level in Level)
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        rules = {
            "schema": self.schema == SCHEMA,
            "input_size": len(self.input_size) == 2 and min(self.input_size) >= 1,
            "batch": self.batch >= 1,
            "proposals": self.proposals >= 1,
            "detections": self.detections >= 1,
            "mask_size": self.mask_size >= 1,
            "precision": self.precision in PRECISIONS,
            "mean": len(self.mean) == 3 and all(0 <= value <= 255 for value in self.mean),
            "std": len(self.std) == 3 and all(value > 0 for value in self.std),
            "levels": self.levels == tuple(level.name.lower() for level in Level),
            "score_thresholds": len(self.score_thresholds) == len(Level)
            and all(0 <= value <= 1 for value in self.score_thresholds),
            "mask_threshold": 0 < self.mask_threshold < 1,
            "level_source": self.level_source in LEVEL_SOURCES,
            "parent_coverage": 0 < self.parent_coverage <= 1,
            "color_weight": 0 <= self.color_weight < math.inf,
            "feature_stride": self.feature_stride >= 0,
            "mask_stride": self.mask_stride >= 0,
            "nms_threshold": 0 < self.nms_threshold <= 1,
            "rpn_nms": 0 <= self.rpn_nms <= 1,
            "layout": self.layout == "NHWC",
            "color_order": self.color_order == "RGB",
        }
        for name, holds in rules.items():
            if not holds:
                raise ValueError(f"{name} cannot be {getattr(self, name)!r}")

    @property
    def fill(self) -> tuple[int, int, int]:
        """RGB that the input is padded with: what becomes 0 in the network, up to rounding."""
        return round(self.mean[0]), round(self.mean[1]), round(self.mean[2])

    def to_metadata(self) -> dict[str, str]:
        """The key and JSON text to store in the model file."""
        return {METADATA_KEY: json.dumps(asdict(self), separators=(",", ":"))}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str], name: str) -> ModelInfo:
        """Read what `to_metadata` wrote.

        Args:
            metadata: Key-value pairs of the model file.
            name: The file, for error messages.

        Raises:
            InputError: Not exported by hassod_ros, by another schema version, or with a value that cannot be.

        """
        if METADATA_KEY not in metadata:
            raise InputError(f"{name} was not exported by hassod_ros (no `{METADATA_KEY}` metadata); use to_onnx")
        try:
            values: dict[str, Any] = json.loads(metadata[METADATA_KEY])
            schema = values.get("schema")
        except (ValueError, AttributeError) as error:
            raise InputError(f"{name} has unreadable metadata ({error}); export it again") from error
        if schema != SCHEMA:
            newer = isinstance(schema, int) and schema > SCHEMA
            remedy = "install a newer hassod_ros, or export it with this one" if newer else "export it again"
            raise InputError(f"{name} has metadata schema {schema}, this version reads {SCHEMA}; {remedy}")
        values = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
        for old, name_now in _RENAMED.items():
            if old in values:
                values.setdefault(name_now, values.pop(old))
        try:
            if values.get("evidence") is not None:
                values["evidence"] = Evidence.from_mapping(values["evidence"])
            names = [field.name for field in fields(cls) if field.name in values or field.name not in _ADDED]
            return cls(**{name: values.pop(name) for name in names})
        except KeyError as error:
            raise InputError(f"{name} lacks the metadata {error}; export it again") from error
        except (AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{name} has wrong metadata ({error}); export it again") from error


def read_model_info(path: str | os.PathLike) -> ModelInfo:
    """Read an ONNX file's `ModelInfo` without loading its graph.

    Raises:
        InputError: See `read_metadata`; or it is not one of ours.

    """
    return ModelInfo.from_metadata(read_metadata(path), str(path))


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """Read an ONNX file's named texts without loading its graph.

    Only the outermost protobuf fields are walked, weights are skipped over, so that a file of any size takes
    milliseconds and one cut short is noticed at once.

    Raises:
        InputError: No such file, or not a whole ONNX file.

    """
    path = Path(path)
    metadata: dict[str, str] = {}
    try:
        size = path.stat().st_size
        if not size:
            raise InputError(f"{path} is empty; copy or export it again")
        with path.open("rb") as file:
            while file.tell() < size:
                number, value = _read_field(file, size, keep=_METADATA_PROPS)
                if number == _METADATA_PROPS and value is not None:
                    metadata.update([_read_pair(value)])
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path and its permissions") from error
    except (EOFError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is cut short or is not an ONNX file ({error}); copy or export it again") from error
    return metadata


def _read_field(file: BinaryIO, end: int, keep: int) -> tuple[int, bytes | None]:
    """The next protobuf field's number and, for field `keep`, its bytes; other fields are skipped."""
    tag = _read_varint(file)
    number, wire = tag >> 3, tag & 7
    if wire == _VARINT:
        _read_varint(file)
        return number, None
    if wire != _LENGTH_DELIMITED:
        raise EOFError(f"unexpected protobuf wire type {wire}")
    length = _read_varint(file)
    if file.tell() + length > end:
        raise EOFError(f"{file.tell() + length - end} bytes are missing")
    if number == keep:
        return number, file.read(length)
    file.seek(length, os.SEEK_CUR)
    return number, None


def _read_varint(file: BinaryIO) -> int:
    value = 0
    for shift in range(0, 64, 7):
        byte = file.read(1)
        if not byte:
            raise EOFError("a number is missing at its end")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise EOFError("a number is too long")


def _read_pair(message: bytes) -> tuple[str, str]:
    """Key and value of a StringStringEntryProto."""
    file, pair = io.BytesIO(message), {1: "", 2: ""}
    while file.tell() < len(message):
        tag = _read_varint(file)
        length = _read_varint(file)
        pair[tag >> 3] = file.read(length).decode("utf-8")
    return pair[1], pair[2]
