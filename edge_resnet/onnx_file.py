"""ONNX files on disk, and what edge-resnet writes into their metadata."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, numpy_helper

from edge_resnet.errors import ModelError
from edge_resnet.output import write_atomically
from edge_resnet.preprocessing import Preprocessing

ARCHITECTURE_KEY = "edge_resnet.architecture"
CALIBRATION_KEY = "edge_resnet.calibration"
LABELS_KEY = "edge_resnet.labels"
PREPROCESSING_KEY = "edge_resnet.preprocessing"

LOGITS, FEATURES = "logits", "features"
"""Names of the one output: a classifier's, float32 batch×classes, and a feature extractor's, batch×channels or ×h×w."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)


@dataclass(frozen=True)
class Metadata:
    """What an ONNX file says about itself; None where it is silent."""

    architecture: str | None
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    calibration: dict[str, Any] | None
    """Method and image hashes of the table that quantized it."""


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file and checks it.

    Raises:
        ModelError: the file is missing, is no valid ONNX, does not take uint8 frames, or has weights that are NaN.
    """
    if not path.is_file():
        raise ModelError(f"no ONNX file at {path}: export one with `edge-resnet export`")
    try:
        return parse_onnx(path.read_bytes(), str(path))
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}: make it readable") from error


def gives_features(model: onnx.ModelProto) -> bool:
    """Whether a network is a feature extractor."""
    return str(model.graph.output[0].name) == FEATURES


def load_fp32(path: Path) -> onnx.ModelProto:
    """``load_onnx`` for a network that is not quantized yet.

    Raises:
        ModelError: as ``load_onnx``, and when it has Q/DQ.
    """
    model = load_onnx(path)
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise ModelError(f"{path} is quantized already: give the FP32 ONNX that it was made from")
    return model


def parse_onnx(data: bytes, name: str) -> onnx.ModelProto:
    """``load_onnx`` for bytes; ``name`` is for messages."""
    try:
        model = onnx.load_model_from_string(data)
        onnx.checker.check_model(model)
    except Exception as error:  # protobuf and the checker raise unrelated classes
        raise ModelError(f"{name} is no valid ONNX model: {_first_line(error)}: export it again") from error
    sources = list(model.graph.input)
    kind = sources[0].type.tensor_type.elem_type if len(sources) == 1 else None
    if kind != TensorProto.UINT8:
        raise ModelError(
            f"{name} does not take uint8 frames: make it with `edge-resnet export`, which puts the preprocessing in"
        )
    for weight in model.graph.initializer:
        if weight.data_type in _FLOATS and not np.isfinite(numpy_helper.to_array(weight)).all():
            raise ModelError(f"{name}: '{weight.name}' has NaN or infinite values: export a model that has none")
    return model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def save_onnx(model: onnx.ModelProto, path: Path) -> None:
    """Writes an ONNX file, whole or not at all."""
    write_atomically(path, serialise(model))


def serialise(model: onnx.ModelProto) -> bytes:
    """The bytes of an ONNX file; the same model gives the same bytes."""
    data: bytes = model.SerializeToString(deterministic=True)
    return data


def read_metadata(model: onnx.ModelProto, name: str) -> Metadata:
    """Reads what ``write_metadata`` wrote.

    Raises:
        ModelError: an entry is damaged.
        RecipeError: its preprocessing is not one that this version knows.
    """
    found = {entry.key: entry.value for entry in model.metadata_props}
    try:
        parsed = {
            key: json.loads(found[key]) for key in (PREPROCESSING_KEY, LABELS_KEY, CALIBRATION_KEY) if key in found
        }
    except ValueError as error:
        raise ModelError(f"{name}: damaged metadata ({error}): export the model again") from error
    preprocessing, labels = parsed.get(PREPROCESSING_KEY), parsed.get(LABELS_KEY)
    return Metadata(
        architecture=found.get(ARCHITECTURE_KEY),
        preprocessing=None if preprocessing is None else Preprocessing.from_json(preprocessing),
        labels=None if labels is None else tuple(labels),
        calibration=parsed.get(CALIBRATION_KEY),
    )


def write_metadata(model: onnx.ModelProto, metadata: Metadata) -> None:
    """Replaces the model's metadata."""
    values = {
        ARCHITECTURE_KEY: metadata.architecture,
        PREPROCESSING_KEY: None if metadata.preprocessing is None else json.dumps(metadata.preprocessing.to_json()),
        LABELS_KEY: None if metadata.labels is None else json.dumps(list(metadata.labels)),
        CALIBRATION_KEY: None if metadata.calibration is None else json.dumps(metadata.calibration),
    }
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {key: value for key, value in values.items() if value is not None})
