"""ONNX files on disk, and what edge-resnet writes into their metadata."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import ExternalDataInfo, uses_external_data

from edge_resnet.errors import ModelError
from edge_resnet.limits import check, check_file, parse_json
from edge_resnet.output import write_atomically
from edge_resnet.preprocessing import Preprocessing

ARCHITECTURE_KEY = "edge_resnet.architecture"
CALIBRATION_KEY = "edge_resnet.calibration"
LABELS_KEY = "edge_resnet.labels"
PREPROCESSING_KEY = "edge_resnet.preprocessing"

LOGITS, FEATURES = "logits", "features"
"""Names of the one output: a classifier's, float32 batch×classes, and a feature extractor's, batch×channels or ×h×w."""

_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE)
_CHECKPOINT = "a checkpoint by its name: make ONNX of it with `edge-resnet export --arch ARCH --weights {0} -o F.onnx`"
_OTHER_KINDS = {
    **dict.fromkeys((".pt", ".pth", ".th", ".bin", ".ckpt", ".tar", ".safetensors", ".h5", ".keras"), _CHECKPOINT),
    ".toml": "a recipe by its name: build it with `edge-resnet build {0}`, and give the bundle",
    ".edge": "a bundle by its name: give the ONNX that it was made from, or one that `edge-resnet export` writes",
    ".json": "a calibration table by its name: give the ONNX that it belongs to",
    ".engine": "a compiled engine by its name: give the ONNX or the bundle that it was made from",
}
"""Suffix → what a file that is no ONNX then is, and what to do."""
_LARGEST = 2**31
"""Bytes that a protobuf message, and so an ONNX file, cannot have."""


@dataclass(frozen=True)
class Metadata:
    """What an ONNX file says about itself; None where it is silent."""

    architecture: str | None
    preprocessing: Preprocessing | None
    labels: tuple[str, ...] | None
    calibration: dict[str, Any] | None
    """Method and image hashes of the table that quantized it."""


def load_onnx(path: Path) -> onnx.ModelProto:
    """Reads an ONNX file of ours and checks it.

    Raises:
        ModelError: the file is missing, is no valid ONNX, does not take uint8 frames, or has weights that are NaN.
    """
    model = read_onnx(path)
    _check_frames(model, str(path))
    return model


def read_onnx(path: Path) -> onnx.ModelProto:
    """Reads anybody's ONNX file, with tensors that lie in other files of its folder.

    Raises:
        ModelError: the file is missing, is no valid ONNX, is larger than 2 GB, or has weights that are NaN.
    """
    if not path.is_file():
        raise ModelError(f"no ONNX file at {path}: export one with `edge-resnet export`")
    check_file(path, "onnx_bytes", ModelError)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read: {error.strerror}: make it readable") from error
    return _parsed(data, str(path), path.parent)


def class_count(model: onnx.ModelProto) -> int:
    """The classes of a classifier of ours: the width of its logits."""
    return int(model.graph.output[0].type.tensor_type.shape.dim[1].dim_value)


def gives_features(model: onnx.ModelProto) -> bool:
    """Whether a network is a feature extractor."""
    return str(model.graph.output[0].name) == FEATURES


def parse_onnx(data: bytes, name: str) -> onnx.ModelProto:
    """``load_onnx`` for bytes; ``name`` is for messages."""
    model = _parsed(data, name, None)
    _check_frames(model, name)
    return model


def _parsed(data: bytes, name: str, folder: Path | None) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
        _check_size(model, name)
        if folder is not None:
            beside = sum(_bytes_beside(tensor, folder) for tensor in _tensors(model.graph))
            check(len(data) + beside, "onnx_bytes", f"{name} with the files beside it", ModelError, "bytes")
            onnx.load_external_data_for_model(model, str(folder))  # refuses paths that lead out of the folder
        onnx.checker.check_model(model)
    except ModelError:
        raise
    except Exception as error:  # protobuf and the checker raise unrelated classes
        other = _OTHER_KINDS.get(PurePath(name).suffix.lower())
        if other is not None:
            raise ModelError(f"{name} is no ONNX model, but {other.format(name)}") from error
        raise ModelError(f"{name} is no valid ONNX model: {_in_words(error)}: export it again") from error
    check_finite(model, name)
    return model


def _check_size(model: onnx.ModelProto, name: str) -> None:
    size = sum(
        math.prod(weight.dims) * helper.tensor_dtype_to_np_dtype(weight.data_type).itemsize
        for weight in model.graph.initializer
    )
    if size >= _LARGEST:
        raise ModelError(f"{name} has {size / 1e9:.1f} GB of weights: ONNX models of less than 2 GB are taken")
    check(size, "onnx_bytes", name, ModelError, "bytes of weights")


def _tensors(graph: onnx.GraphProto) -> Iterator[TensorProto]:
    """All that a graph holds: weights, and what stands in nodes and in the graphs inside them."""
    yield from graph.initializer
    for attribute in (attribute for node in graph.node for attribute in node.attribute):
        yield from (attribute.t, *attribute.tensors)
        for inner in (attribute.g, *attribute.graphs):
            yield from _tensors(inner)


def _bytes_beside(tensor: TensorProto, folder: Path) -> int:
    """How much of a file beside the model will be read for a tensor: what it says, or all that there is."""
    if not uses_external_data(tensor):
        return 0
    found = ExternalDataInfo(tensor)
    place = folder / found.location
    there = place.stat().st_size if place.is_file() else 0
    return there if found.length is None else min(there, int(found.length))


def takes_frames(model: onnx.ModelProto) -> bool:
    """Whether the only input is uint8, as every network of ours has it."""
    sources = list(model.graph.input)
    return len(sources) == 1 and sources[0].type.tensor_type.elem_type == TensorProto.UINT8


def _check_frames(model: onnx.ModelProto, name: str) -> None:
    if not takes_frames(model):
        raise ModelError(
            f"{name} does not take uint8 frames: `edge-resnet calibrate` and `quantize` bring it into that form"
        )


def check_fp32(model: onnx.ModelProto, name: str) -> None:
    """Refuses a network that has Q/DQ already.

    Raises:
        ModelError: it has.
    """
    if any(node.op_type == "DequantizeLinear" for node in model.graph.node):
        raise ModelError(f"{name} is quantized already: give the FP32 ONNX that it was made from")


def check_float32(model: onnx.ModelProto, name: str) -> None:
    """Refuses a network of ours in which something has become float16 since.

    Raises:
        ModelError: something has.
    """
    if any(weight.data_type == TensorProto.FLOAT16 for weight in model.graph.initializer):
        raise ModelError(
            f"{name} has been converted to float16: give the FP32 file that it was made from, of which `edge-resnet "
            "compile` and `build` make FP16 engines too"
        )


def check_finite(model: onnx.ModelProto, name: str) -> None:
    """Refuses weights that are NaN or infinite.

    Raises:
        ModelError: one is, or has not as many values as its shape says; it is named.
    """
    for weight in model.graph.initializer:
        if weight.data_type not in _FLOATS:
            continue
        try:
            finite = bool(np.isfinite(numpy_helper.to_array(weight)).all())
        except ValueError as error:  # which the checker lets pass
            raise ModelError(f"{name}: '{weight.name}' has not as many values as its shape: export it again") from error
        if not finite:
            raise ModelError(f"{name}: '{weight.name}' has NaN or infinite values: export a model that has none")


def described(value: onnx.ValueInfoProto) -> str:
    """An input or output in words: ``frames: uint8 batch×224×224×3``."""
    held = value.type.tensor_type
    shape = "×".join(
        dim.dim_param or (str(dim.dim_value) if dim.HasField("dim_value") else "?") for dim in held.shape.dim
    )
    return f"{value.name}: {type_name(held.elem_type)} {shape}"


def type_name(kind: int) -> str:
    """An element type in words; a damaged file has numbers that are none."""
    known: bool = kind in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(kind)).lower() if known else f"the unknown type {kind}"


def _in_words(error: Exception) -> str:
    if "topologically sorted" in str(error):
        return "its nodes are not in the order of computation, as a conversion to float16 may leave them"
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
            key: parse_json(found[key].encode())
            for key in (PREPROCESSING_KEY, LABELS_KEY, CALIBRATION_KEY)
            if key in found
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
