"""A bundle's engine for NVIDIA's Triton Inference Server: one model of its model repository.

    REPOSITORY/NAME/config.pbtxt   what the model takes and gives, batching
    REPOSITORY/NAME/labels.txt     what each logit stands for
    REPOSITORY/NAME/1/model.plan   or model.onnx: the version's own file

The layout and the keys are those of Triton's "Model Repository" and "Model Configuration"; the types of the keys those of
its ``model_config.proto``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import FP32_MEMBER, Bundle, open_bundle
from edge_resnet.companion import KeptEngine, engine_of
from edge_resnet.engines.options import DEFAULTS
from edge_resnet.engines.targets import target_named
from edge_resnet.errors import BundleError, EngineError, OutputError
from edge_resnet.golden import read_golden
from edge_resnet.onnx_file import parse_onnx
from edge_resnet.output import check_new, write_folder
from edge_resnet.triton_config import Enum, text_format

CONFIG, LABELS = "config.pbtxt", "labels.txt"
QUEUE_DELAY_US = 100
"""Triton's documentation starts its tuning there."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


@dataclass(frozen=True)
class Backend:
    """One of Triton's: its name for the platform, its name for the model's file, and what runs it."""

    platform: str
    file: str
    device: str


_ONNX_ON_GPU = Backend("onnxruntime_onnx", "model.onnx", "KIND_GPU")
_BACKENDS = {
    "tensorrt": Backend("tensorrt_plan", "model.plan", "KIND_GPU"),
    "onnxruntime": Backend("onnxruntime_onnx", "model.onnx", "KIND_CPU"),
}
"""By engine kind; TensorRT-RTX has none in Triton."""


@dataclass(frozen=True)
class Batching:
    """How Triton puts requests together."""

    max_batch: int = DEFAULTS.batches.largest
    queue_delay_us: int = QUEUE_DELAY_US
    """How long a request may wait for others."""


@dataclass(frozen=True)
class TritonModel:
    """A model of a repository, before it is written."""

    name: str
    backend: Backend
    data: bytes
    """The engine, or the ONNX."""
    config: str
    labels: tuple[str, ...] | None


def triton_model(
    bundle_path: Path, target: str | None, batching: Batching, name: str | None = None, trust: Path | None = None
) -> TritonModel:
    """Makes a model of a bundle's engine.

    Args:
        bundle_path: the bundle; an engine compiled later lies beside it.
        target: whose engine; None takes the FP32 ONNX, for ONNX Runtime on a GPU.
        batching: the largest batch must be one that the engine was compiled for.
        name: the model's; None is the bundle's.
        trust: of the bundle, as ``open_bundle`` takes it; of an engine beside it too.

    Raises:
        TrustError: no trusted key has signed it.
        BundleError: the bundle cannot be used, or its name is none for a folder.
        EngineError: Triton has no back end for this kind of engine.
        UnavailableError: the bundle has no engine for the target yet.
    """
    bundle = open_bundle(bundle_path, trust)
    called = bundle.manifest.name if name is None else name
    if not _NAME.fullmatch(called):
        raise BundleError(
            f"'{called}' is no name for a model of Triton: give --name of letters, digits, '.', '_' and '-'"
        )
    backend = _ONNX_ON_GPU if target is None else _backend(target)
    engine = (
        KeptEngine(bundle.read(bundle.compiled_member), None, {})
        if target is None
        else engine_of(bundle_path, bundle, target)
    )
    config = _config(called, backend, bundle, engine, batching)
    return TritonModel(called, backend, engine.data, config, bundle.manifest.labels)


def _backend(target: str) -> Backend:
    found = target_named(target)
    if found.kind not in _BACKENDS:
        raise EngineError(
            f"Triton has no back end for {found.kind}, which {found.name} needs: give --onnx, which runs FP32 in ONNX "
            f"Runtime on the GPU, or a --target with TensorRT"
        )
    return _BACKENDS[found.kind]


def _config(name: str, backend: Backend, bundle: Bundle, engine: KeptEngine, batching: Batching) -> str:
    """The model's configuration, in protobuf's text format."""
    is_onnx = backend.file.endswith(".onnx")
    graph = parse_onnx(engine.data if is_onnx else bundle.read(FP32_MEMBER), bundle.manifest.name).graph
    answer: dict[str, str | Enum | list[int]] = {
        "name": graph.output[0].name,
        "data_type": Enum("TYPE_FP32"),
        "dims": [*read_golden(bundle, "fp32").shape[1:]],
    }
    if bundle.manifest.labels is not None:
        answer["label_filename"] = LABELS
    return text_format(
        {
            "name": name,
            "platform": backend.platform,
            "max_batch_size": batching.max_batch,
            "input": [
                {
                    "name": graph.input[0].name,
                    "data_type": Enum("TYPE_UINT8"),
                    "dims": [*(bundle.manifest.input_shape if engine.frames is None else engine.frames.shape)],
                }
            ],
            "output": [answer],
            "instance_group": [{"count": 1, "kind": Enum(backend.device)}],
            "dynamic_batching": {"max_queue_delay_microseconds": batching.queue_delay_us},
            "parameters": [_frames(bundle, engine)],
        }
    )


def _frames(bundle: Bundle, engine: KeptEngine) -> dict[str, Any]:
    """How a client makes the frames that the model takes: by a preprocessing, or as its camera gives them."""
    key, value = (
        ("preprocessing", bundle.manifest.preprocessing)
        if engine.frames is None
        else ("frames", engine.frames.to_json())
    )
    return {"key": key, "value": {"string_value": json.dumps(value, sort_keys=True)}}


def write_triton(repository: Path, model: TritonModel, version: int = 1) -> Path:
    """Writes a model, or one more version of a model that is there, whole or not at all; gives the version's folder.

    Raises:
        OutputError: the version exists, or the model's configuration there is another; or the place cannot be written.
    """
    folder = repository / model.name
    place = folder / str(version)
    check_new(place)
    file = {model.backend.file: model.data}
    common = {CONFIG: model.config.encode()}
    if model.labels is not None:
        common[LABELS] = ("\n".join(model.labels) + "\n").encode()
    if folder.is_dir():
        _check_same(folder, common)
        write_folder(place, file)
    else:
        files = {f"{version}/{name}": data for name, data in file.items()} | common
        if repository.is_dir():
            write_folder(folder, files)
        else:
            write_folder(repository, {f"{model.name}/{name}": data for name, data in files.items()})
    return place


def _check_same(folder: Path, common: Mapping[str, bytes]) -> None:
    """All versions of a model share these files."""
    for name, data in common.items():
        there = folder / name
        if not there.is_file() or there.read_bytes() != data:
            raise OutputError(
                f"cannot add a version to '{folder}': its {name} is missing or another; give another --name or repository"
            )
