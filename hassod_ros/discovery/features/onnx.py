"""A ViT exported by `features_to_onnx`, run by ONNX Runtime (or through it by TensorRT): discovery without torch."""

from __future__ import annotations

import json
import os
from typing import Any

import numpy as np
import onnxruntime

from hassod_ros.discovery.features.base import check_images
from hassod_ros.errors import InputError

METADATA_KEY = "hassod_ros_features"
SCHEMA = 1
_PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")


class OnnxFeatures:
    """See `Features`. Images must have exactly the exported size.

    Args:
        path: The `.onnx` file.
        providers: ONNX Runtime's, best first. Default: TensorRT, CUDA, CPU, whichever are installed.
        threads: Of the CPU. Default: ONNX Runtime's choice.

    Attributes:
        heap: What is known of a head of HEAP that the file holds as well; None where it holds none.
        size: (H, W) of the images.
        batch: Images of a call of the graph.

    Raises:
        InputError: The file is missing, damaged, or holds something else.

    """

    def __init__(self, path: str | os.PathLike, providers: tuple[str, ...] = _PROVIDERS, threads: int = 0) -> None:
        chosen = [each for each in providers if each in onnxruntime.get_available_providers()]
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors; they are raised as well
        options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(path), options, providers=chosen)
        except Exception as error:  # ONNX Runtime's errors share no base class of their own
            raise InputError(f"ONNX Runtime cannot load {path} ({error}); check the path or export it again") from error
        metadata = self._session.get_modelmeta().custom_metadata_map
        values = json.loads(metadata.get(METADATA_KEY, "{}"))
        if values.get("schema") != SCHEMA:
            raise InputError(f"{path} was not exported by this version's features_to_onnx; export it again")
        self.name: str = values["name"]
        self.patch_size: int = values["patch_size"]
        self.dim: int = values["dim"]
        self.weights_sha256: str = values["weights_sha256"]
        self.heap: dict[str, Any] | None = values.get("heap")
        self.size: tuple[int, int] = tuple(self._session.get_inputs()[0].shape[1:3])
        self.batch: int = self._session.get_inputs()[0].shape[0]
        self._shape = tuple(self._session.get_inputs()[0].shape)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """(B, H, W, 3) uint8 RGB -> (B, C, h, w) float32; see `Features`."""
        return self.run(images, ["keys"])[0]

    def run(self, images: np.ndarray, outputs: list[str]) -> list[np.ndarray]:
        """Outputs of the graph by name, of as many images as are given."""
        check_images(images, self.patch_size)
        batch, height, width, _ = self._shape
        if images.shape[1:3] != (height, width):
            raise InputError(
                f"{self.name} was exported for {width}x{height} images, got {images.shape[2]}x{images.shape[1]}; "
                "export it for this size, or set the size of discovery to it"
            )
        found: list[list[np.ndarray]] = []
        for start in range(0, len(images), batch):
            chunk = images[start : start + batch]
            missing = batch - len(chunk)
            padded = np.concatenate([chunk, np.repeat(chunk[:1], missing, axis=0)]) if missing else chunk
            found.append([each[: len(chunk)] for each in self._session.run(outputs, {"images": padded})])
        return [np.concatenate(each) for each in zip(*found, strict=True)]
