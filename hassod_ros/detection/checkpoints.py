"""Weights in and out: Detectron2's files (HASSOD, CutLER), DINO's trunks, our own.

Nothing is unpickled freely: `.pkl` files go through a reader that builds numpy arrays and plain containers only, all
others through `torch.load(weights_only=True)` or safetensors. What does not fit is listed, and an error unless the
caller allows it.
"""

from __future__ import annotations

import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from hassod_ros.detection.base import Detector
from hassod_ros.detection.cascade.config import DetectorConfig
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.onnx_weights import tensors_of
from hassod_ros.detection.mask2former.config import Mask2FormerConfig
from hassod_ros.detection.mask2former.model import Mask2Former
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path

CASCADE, MASK2FORMER = "cascade", "mask2former"  # kinds of detectors
CONFIGS: Mapping[str, type[Any]] = {CASCADE: DetectorConfig, MASK2FORMER: Mask2FormerConfig}
NETWORKS = {"student": "modelStudent.", "teacher": "modelTeacher."}  # prefixes in files of Mean Teacher training
FAULTS = ("missing", "unknown", "misshapen")
_TRUNK = "backbone.bottom_up."
_SHOWN = 8  # names that an error message lists


@dataclass(frozen=True)
class LoadReport:
    """What became of a file's tensors.

    Attributes:
        loaded: Names in the model that got their value from the file.
        missing: Names in the model that the file lacks: they keep their value.
        unknown: Names in the file that the model lacks: not used.
        misshapen: "name: shape in the file, shape in the model": not used.

    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unknown: tuple[str, ...]
    misshapen: tuple[str, ...]

    def __str__(self) -> str:
        faults = (f"{len(getattr(self, fault))} {fault}" for fault in FAULTS)
        return f"{len(self.loaded)} tensors loaded, {', '.join(faults)}"


def build_detector(config: DetectorConfig | Mask2FormerConfig) -> Detector:
    """The detector of a config, with random weights from torch's state."""
    return Mask2Former(config) if isinstance(config, Mask2FormerConfig) else CascadeMaskRCNN(config)


def load_weights(
    model: Detector,
    path: str | os.PathLike,
    *,
    network: str = "student",
    allow: Collection[str] = (),
    trunk_of_others: bool = False,
) -> LoadReport:
    """Put a file's weights into `model`: a whole detector's, or a trunk's alone.

    A trunk may have the names of Detectron2 (`dino_RN50_pretrain_d2_format.pkl`), torchvision (DINO's ResNet-50 `.pth`)
    or timm (ViT); everything else in the model then keeps its value.

    Args:
        model: Built from the config that suits the file.
        path: Detectron2's `.pth` or `.pkl`, ours, `.safetensors`, or an export (`.onnx`, see `onnx_weights`).
        network: "student" or "teacher", where the file holds both.
        allow: Which of `FAULTS` to accept. Counters of batches (`num_batches_tracked`) are listed but never an error:
            nothing depends on them.
        trunk_of_others: A detector of another kind gives its trunk instead of an error.

    Raises:
        InputError: The file cannot be read, holds a detector of another kind, expects other pixel statistics or
            anchors, or does not fit.

    """
    own = model.state_dict()
    exported = Path(path).suffix == ".onnx"
    content = {} if exported else _read(Path(path))
    kind = CASCADE if exported else _kind_of(content)
    other = kind not in (None, _kind(model.config))
    if other and not trunk_of_others:
        raise InputError(f"{path} holds a {kind} detector, wanted is a {_kind(model.config)}; give one of that kind")
    found = tensors_of(path, model) if exported else _tensors(content, path)
    tensors = _pick_network(found, network)
    tensors = {_inner_name(model, own, name): value for name, value in tensors.items()}
    if other:
        tensors = {name: value for name, value in tensors.items() if name.startswith(_TRUNK)}
    _check_constants(model, path, tensors)
    fitting, unknown, misshapen = {}, [], []
    for name, value in tensors.items():
        if name not in own:
            unknown.append(name)
        elif value.shape != own[name].shape:
            misshapen.append(f"{name}: {tuple(value.shape)}, {tuple(own[name].shape)}")
        else:
            fitting[name] = value
    missing = [name for name in own if name not in tensors]
    trunk_alone = other or (bool(fitting) and all(name.startswith(_TRUNK) for name in fitting))
    wanted = [name for name in missing if name.startswith(_TRUNK) or not trunk_alone]
    for fault, names in zip(FAULTS, (wanted, unknown, misshapen), strict=True):
        if fault not in allow:
            _refuse(path, fault, names)
    model.load_state_dict(fitting, strict=False)
    return LoadReport(tuple(fitting), tuple(missing), tuple(unknown), tuple(misshapen))


def open_detector(
    path: str | os.PathLike, config: DetectorConfig | Mask2FormerConfig | None = None, *, network: str = "student"
) -> Detector:
    """A detector in evaluation mode, built and filled from a file.

    Args:
        path: See `load_weights`.
        config: What to build; default: what the file says. Only our own files say it.
        network: See `load_weights`.

    Raises:
        InputError: See `load_weights`; or neither `config` nor the file says what to build.

    """
    if config is None:
        config = read_config(path)
    model = build_detector(config)
    report = load_weights(model, path, network=network)
    _refuse(path, "missing", report.missing)  # a trunk alone detects nothing
    return model.eval()


def open_cascade(
    path: str | os.PathLike, config: DetectorConfig | None = None, *, network: str = "student"
) -> CascadeMaskRCNN:
    """`open_detector` for what only a cascade can do, such as export.

    Raises:
        InputError: See `open_detector`; or it is a detector of another kind.

    """
    model = open_detector(path, config, network=network)
    if not isinstance(model, CascadeMaskRCNN):
        raise InputError(f"{path} holds a {_kind(model.config)} detector, this works with a {CASCADE} only; give one")
    return model


def save_weights(model: Detector, path: str | os.PathLike) -> None:
    """Write a `.pth` that Detectron2 loads (`{"model": ...}` under its names), with our config beside the weights.

    Raises:
        InputError: The file cannot be written.

    """
    tensors = OrderedDict(
        (_outer_name(model, name), value.detach().cpu().contiguous()) for name, value in model.state_dict().items()
    )
    kind = _kind(model.config)
    named = {} if kind == CASCADE else {"detector": kind}
    write_tensors(path, {"model": tensors, "detector_config": asdict(model.config)} | named)


def write_tensors(path: str | os.PathLike, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values as torch does, atomically; equal contents give equal files.

    Raises:
        InputError: The disk is full or the folder cannot be written; an old file stays as it was.

    """
    # By way of memory: given a path, torch stores its name inside, and reports a full disk as an internal error.
    buffer = io.BytesIO()
    torch.save(dict(content), buffer)
    with atomic_path(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def read_config(path: str | os.PathLike) -> DetectorConfig | Mask2FormerConfig:
    """The config that `save_weights` wrote.

    Raises:
        InputError: The file cannot be read or holds none.

    """
    if Path(path).suffix == ".onnx":
        raise InputError(
            f"{path} is an export, which does not say all of its detector; give the .pth that it came from"
        )
    content = _read(Path(path))
    if "detector_config" not in content:
        raise InputError(f"{path} does not say which detector it holds; give its config")
    kind = content.get("detector", CASCADE)
    if kind not in CONFIGS:
        raise InputError(f"{path} holds a {kind} detector; known are {', '.join(CONFIGS)}")
    values, cls = dict(content["detector_config"]), CONFIGS[kind]
    for name in sorted(values.keys() - {field.name for field in fields(cls)}):
        value = values.pop(name)
        if value != getattr(cls, name, False):  # a constant has its value, what there is not is off
            raise InputError(f"{path} holds a detector with {name} {value}, which cannot be built; train it again")
    config: DetectorConfig | Mask2FormerConfig = cls(**values)
    return config


def read_tensors(path: str | os.PathLike) -> dict[str, Tensor]:
    """All weights of a file under its own names.

    Raises:
        InputError: The file cannot be read or holds something else.

    """
    return _tensors(_read(Path(path)), path)


def _tensors(content: Mapping[str, Any], path: str | os.PathLike) -> dict[str, Tensor]:
    content = content.get("model", content)
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds no weights under 'model'; give a checkpoint")
    tensors = {}
    for name, value in content.items():
        if isinstance(value, np.ndarray) and value.dtype.kind in "fiub":
            value = torch.from_numpy(value.astype(value.dtype.newbyteorder("=")))
        if not isinstance(name, str) or not isinstance(value, Tensor):
            raise InputError(f"{path} holds {name!r}, which is no tensor; give a checkpoint of weights")
        tensors[name] = value
    return tensors


def _read(path: Path) -> dict[str, Any]:
    try:
        if path.suffix == ".pkl":
            with open(path, "rb") as file:
                content = _ArrayUnpickler(file, encoding="latin1").load()
        elif path.suffix == ".safetensors":
            content = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check the path") from error
    except Exception as error:  # damaged bytes may raise anything
        asked = re.search(r"GLOBAL ([\w.]+)", str(error))
        reason = f"it asks for {asked[1]}" if asked else (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"{path} is damaged or no file of weights ({reason}); download or export it anew") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a {type(content).__name__}; give a checkpoint of weights")
    return content


def _empty_array(kind: Any, shape: Any, code: Any) -> np.ndarray:
    """What numpy's own pickles begin with; shape, type and values follow in the array's state."""
    return np.ndarray((0,), np.int8)


def _filled_array(values: Any, kind: np.dtype, shape: tuple[int, ...], order: Any) -> np.ndarray:
    """How pickles of protocol 5 spell arrays."""
    return np.frombuffer(values, kind).reshape(shape, order=order)


def _encode(text: str, encoding: str) -> bytes:
    """How pickles of protocol 2 spell bytes."""
    return text.encode(encoding)


_ALLOWED = {
    ("numpy.core.multiarray", "_reconstruct"): _empty_array,
    ("numpy._core.multiarray", "_reconstruct"): _empty_array,
    ("numpy.core.numeric", "_frombuffer"): _filled_array,
    ("numpy._core.numeric", "_frombuffer"): _filled_array,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
}


class _ArrayUnpickler(pickle.Unpickler):
    """Builds numpy arrays and plain containers, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """The stand-in for a global that the file names."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {module}.{name} is not allowed")
        return _ALLOWED[module, name]


def _pick_network(tensors: dict[str, Tensor], network: str) -> dict[str, Tensor]:
    """One network's tensors without wrapper prefixes."""
    if network not in NETWORKS:
        raise InputError(f"network is {network!r}; choose one of {', '.join(NETWORKS)}")
    tensors = {name.removeprefix("module."): value for name, value in tensors.items()}
    if not any(name.startswith(tuple(NETWORKS.values())) for name in tensors):
        return tensors
    prefix, known = NETWORKS[network], tuple(NETWORKS.values())
    # Whatever belongs to neither network stays in and is reported as unknown.
    return {
        name.removeprefix(prefix): value
        for name, value in tensors.items()
        if name.startswith(prefix) or not name.startswith(known)
    }


def _refuse(path: str | os.PathLike, fault: str, names: Sequence[str]) -> None:
    names = [name for name in names if not name.endswith("num_batches_tracked")]
    if names:
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        raise InputError(
            f"{path} does not fit the model: {len(names)} {fault} tensors ({', '.join(names[:_SHOWN])}{more}); "
            f"use the config it was trained with, or allow {fault!r} explicitly"
        )


def _kind(config: Any) -> str:
    return next(kind for kind, cls in CONFIGS.items() if isinstance(config, cls))


def _kind_of(content: Mapping[str, Any]) -> str | None:
    """The kind of detector that a file holds; None where it does not say so."""
    return content.get("detector", CASCADE) if "detector_config" in content else None


def _check_constants(model: Detector, path: str | os.PathLike, tensors: dict[str, Tensor]) -> None:
    """Take what older files of Detectron2 repeat from its config out of `tensors`; it must be what ours says."""
    if not isinstance(model, CascadeMaskRCNN):
        return
    constants = {"pixel_mean": model.pixel_mean, "pixel_std": model.pixel_std}
    for i in range(len(model.config.anchor_sizes)):
        name = f"proposal_generator.anchor_generator.cell_anchors.{i}"
        constants[name] = model.proposal_generator.get_buffer(f"cells{i}")
    for name, value in constants.items():
        found = tensors.pop(name, None)
        if found is not None and not torch.allclose(found.float().flatten(), value.cpu().flatten(), atol=1e-3):
            remedy = "set anchor_sizes accordingly" if "anchor" in name else "weights of other pixels do not work here"
            raise InputError(f"{path} expects {name} {found.flatten().tolist()}; {remedy}")


_SINGLE_STAGE = re.compile(r"^roi_heads\.(box_head|box_predictor)\.(?=\D)")


def _inner_name(model: Detector, own: Mapping[str, Tensor], name: str) -> str:
    """Our name of a file's tensor, or the file's where we have none."""
    if name in own:
        return name
    if isinstance(model, CascadeMaskRCNN) and len(model.config.stage_ious) == 1 and _SINGLE_STAGE.match(name):
        return _SINGLE_STAGE.sub(r"roi_heads.\1.0.", name)
    for candidate in (_TRUNK + _torchvision_resnet(name), f"{_TRUNK}net.{name}"):
        if candidate in own:
            return candidate
    return name


def _outer_name(model: Detector, name: str) -> str:
    """Detectron2's name of our tensor: with one stage, its heads have no number."""
    if not isinstance(model, CascadeMaskRCNN) or len(model.config.stage_ious) > 1:
        return name
    return re.sub(r"^roi_heads\.(box_head|box_predictor)\.0\.", r"roi_heads.\1.", name)


def _torchvision_resnet(name: str) -> str:
    """Detectron2's name of a tensor of torchvision's ResNet; other names stay."""
    name = re.sub(r"^layer(\d)\.", lambda found: f"res{int(found[1]) + 1}.", name)
    name = re.sub(r"^(conv|bn)1\.", r"stem.\g<1>1.", name)
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    return name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
