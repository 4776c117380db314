"""Checkpoint -> ONNX file, which is written only if every gate is passed."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import onnx
import torch

from hassod_ros.deploy.accuracy import average_recall
from hassod_ros.deploy.export_options import TARGETS, ExportOptions
from hassod_ros.deploy.half_storage import store_half
from hassod_ros.deploy.parity import ParityLimits, compare
from hassod_ros.deploy.photographs import load_batches
from hassod_ros.deploy.quantization import quantize
from hassod_ros.deploy.tensorrt_support import offences
from hassod_ros.detection.base import Detector
from hassod_ros.detection.cascade.model import CascadeMaskRCNN
from hassod_ros.detection.cascade.static_graph import StaticDetector, with_limits
from hassod_ros.detection.mask2former.model import Mask2Former
from hassod_ros.detection.mask2former.static_graph import StaticMask2Former
from hassod_ros.errors import InputError
from hassod_ros.files import atomic_path
from hassod_ros.images import list_images
from hassod_ros.runtime.backends.onnxruntime_backend import OnnxRuntimeBackend
from hassod_ros.runtime.backends.torch_backend import TorchBackend, describe
from hassod_ros.runtime.model_info import ModelInfo, read_model_info

OPSET = 18
CALIBRATION_IMAGES = 64
PARITY_IMAGES = 8
MAX_DROP = 1.0  # points of AR


def export_onnx(
    model: Detector,
    destination: str | os.PathLike,
    options: ExportOptions,
    *,
    weights_sha256: str,
    report: Callable[[str], None] = print,
) -> ModelInfo:
    """Export a detector, or write nothing.

    Gates, in this order: onnx.checker, TensorRT's support table, parity of the float32 graph with the detector run by
    torch on photographs, and for fp16 and int8 the loss of average recall on an annotated set.

    Args:
        model: Trained detector.
        destination: The `.onnx` file.
        options: See there.
        weights_sha256: Of the checkpoint.
        report: Takes a line of progress at a time.

    Returns:
        The metadata in the file.

    Raises:
        InputError: An option cannot be, or a gate is not passed; the message names it, the first offending node or the
            limit.

    """
    model = _limited(model, options)
    try:
        info = describe(
            model,
            input_size=options.input_size,
            batch=options.batch,
            weights_sha256=weights_sha256,
            recipe=options.recipe,
            score_thresholds=options.score_thresholds,
            level_source=options.level_source,
            parent_coverage=options.parent_coverage,
            color_weight=options.color_weight,
            evidence=options.evidence,
        )
    except ValueError as error:
        raise InputError(f"{error}; see to_onnx --help") from error
    paths = list_images(options.images)
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "fp32.onnx"
        report(f"exporting {info.architecture} at {options.input_size[0]}x{options.input_size[1]}, opset {OPSET}")
        graph = trace(static_detector(model, batch=options.batch, input_size=options.input_size), info)
        check_graph(graph, report)
        onnx.save(graph, plain)
        limits = ParityLimits()
        batches = load_batches(paths[: PARITY_IMAGES * options.batch], info)
        report(f"parity of torch and ONNX Runtime, {limits}")
        found = OnnxRuntimeBackend.load(plain, provider="cpu", features=True)
        parity = compare(TorchBackend(model, info, features=True), found, batches, limits)
        report(f"  {parity}")
        result = plain
        if options.precision != "fp32":
            info = replace(info, precision=options.precision)
            result = Path(folder) / f"{options.precision}.onnx"
            if options.precision == "fp16":
                detector = static_detector(model, batch=options.batch, input_size=options.input_size, half=True)
                graph = trace(detector, info)
                check_graph(graph, report)
                onnx.save(graph, result)
            else:
                _quantize(plain, result, paths, info, options.target, report)
            check_recall(plain, result, options.annotations, options.annotated_images, report, name=options.precision)
        elif options.store_half:
            result = Path(folder) / "half.onnx"
            store_half(graph)
            check_graph(graph, report)
            onnx.save(graph, result)
            check_recall(plain, result, options.annotations, options.annotated_images, report, name="stored as fp16")
        with atomic_path(destination) as temporary:
            shutil.copyfile(result, temporary)
    report(f"wrote {destination}")
    return info


def quantize_exported(
    source: str | os.PathLike,
    destination: str | os.PathLike,
    images: str | os.PathLike,
    annotations: str | os.PathLike,
    annotated_images: str | os.PathLike,
    *,
    target: str = TARGETS[0],
    report: Callable[[str], None] = print,
) -> ModelInfo:
    """Write an exported float32 detector as int8, or write nothing.

    Args:
        source: A file of `export_onnx`.
        destination: The int8 file.
        images: Photographs that value ranges are taken from, see `list_images`.
        annotations: COCO file of an annotated set that the loss of recall is measured on.
        annotated_images: Folder of its images.
        target: See `ExportOptions`.
        report: Takes a line of progress at a time.

    Raises:
        InputError: The file is not float32, or a gate is not passed.

    """
    info = read_model_info(source)
    if info.precision != "fp32":
        raise InputError(f"{source} is {info.precision}; give the float32 file that it came from")
    info = replace(info, precision="int8")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "int8.onnx"
        _quantize(Path(source), result, list_images(images), info, target, report)
        check_recall(Path(source), result, annotations, annotated_images, report)
        with atomic_path(destination) as temporary:
            shutil.copyfile(result, temporary)
    report(f"wrote {destination}")
    return info


def _quantize(
    plain: Path, result: Path, paths: Sequence[Path], info: ModelInfo, target: str, report: Callable[[str], None]
) -> None:
    used = paths[:: max(1, len(paths) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES]
    report(f"calibrating int8 for {target} on {len(used)} images")
    quantize(plain, result, load_batches(used, info), target=target)
    graph = onnx.load(result)
    set_info(graph, info)
    # uint8 activations are for x86 alone; their float32 graph has passed TensorRT's table.
    check_graph(graph, report, for_tensorrt=target == "tensorrt")
    onnx.save(graph, result)


def _limited(model: Detector, options: ExportOptions) -> Detector:
    """A copy that finds no more than is wanted.

    Raises:
        InputError: An option that this kind of detector does not have.

    """
    if isinstance(model, CascadeMaskRCNN):
        return with_limits(model, proposals=options.proposals, detections=options.detections)
    assert isinstance(model, Mask2Former)
    if options.precision == "fp16":
        raise InputError("a Mask2Former is not exported in fp16; choose fp32 or int8")
    if options.color_weight or options.evidence:
        raise InputError("color_weight and evidence are for masks in boxes; leave them out for a Mask2Former")
    limited = Mask2Former(model.config.changed(detections=options.detections))
    limited.load_state_dict(model.state_dict())
    return limited.eval()


def static_detector(
    model: Detector, *, batch: int, input_size: tuple[int, int], half: bool = False
) -> StaticDetector | StaticMask2Former:
    """The graph of a detector for one batch and input size; `half` is for a cascade alone."""
    if isinstance(model, Mask2Former):
        return StaticMask2Former(model, batch=batch, input_size=input_size)
    assert isinstance(model, CascadeMaskRCNN)
    return StaticDetector(model, batch=batch, input_size=input_size, half=half)


def trace(detector: StaticDetector | StaticMask2Former, info: ModelInfo) -> onnx.ModelProto:
    """The graph of a static detector, with our metadata and without those that tell of the exporting machine."""
    images = torch.zeros((info.batch, *info.input_size, 3), dtype=torch.uint8)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the exporter's own, about names it replaces
        program = torch.onnx.export(
            detector.eval(),
            (images,),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=list(detector.outputs),
            verbose=False,
        )
    assert program is not None
    graph = program.model_proto
    for value in (*graph.graph.node, *graph.graph.value_info, *graph.graph.input, *graph.graph.output, graph.graph):
        del value.metadata_props[:]
    set_info(graph, info)
    return graph


def set_info(graph: onnx.ModelProto, info: ModelInfo) -> None:
    """Replace the model's metadata."""
    onnx.helper.set_model_props(graph, info.to_metadata())


def check_graph(graph: onnx.ModelProto, report: Callable[[str], None], *, for_tensorrt: bool = True) -> None:
    """onnx.checker, and TensorRT's support table.

    Raises:
        InputError: The graph is invalid, or TensorRT would refuse a node; the first one is named.

    """
    try:
        onnx.checker.check_model(graph, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise InputError(f"the exported graph is not valid ONNX ({error}); nothing was written") from error
    report(f"  onnx.checker passed: {len(graph.graph.node)} nodes")
    if for_tensorrt:
        found = list(offences(graph))
        if found:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            raise InputError(f"TensorRT would refuse the graph: {found[0]}{more}; nothing was written")
        report("  TensorRT's support table passed, all shapes are static")


def check_recall(
    plain: Path,
    result: Path,
    annotations: str | os.PathLike | None,
    annotated_images: str | os.PathLike | None,
    report: Callable[[str], None],
    *,
    name: str = "int8",
    max_drop: float = MAX_DROP,
) -> None:
    """Loss of average recall of a result, called `name`, against float32.

    Raises:
        InputError: It is larger than `max_drop` points.

    """
    if annotations is None or annotated_images is None:
        raise ValueError("an annotated set is needed")
    before, after = (average_recall(path, annotations, annotated_images) for path in (plain, result))
    drop = 100 * (before - after)
    report(f"  AR@100 of masks: fp32 {100 * before:.2f}, {name} {100 * after:.2f}; at most {max_drop} less")
    if not drop <= max_drop:
        raise InputError(f"{name} loses {drop:.2f} points of AR, at most {max_drop} are allowed; nothing was written")
