"""The network that a hand-over is made of: a bundle's, an ONNX file's, or an FP32 ONNX with its calibration table."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from edge_resnet.bundle import BUNDLE_SUFFIX, QDQ_MEMBER, open_bundle
from edge_resnet.calibration.float_weights import float_weights
from edge_resnet.calibration.strip import strip_qdq
from edge_resnet.calibration.tensorrt_form import refuse_misread
from edge_resnet.calibration.trt_cache import write_cache, write_scales
from edge_resnet.compiling import lowered_from_bundle, lowered_from_onnx, require_not_refused
from edge_resnet.engines.engine import Engine
from edge_resnet.errors import EngineError
from edge_resnet.onnx_file import parse_onnx, read_metadata, serialise
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.quantize_files import open_calibrated, open_table
from edge_resnet.trust import refuse_trust


@dataclass(frozen=True)
class HandedNetwork:
    """A network as TensorRT shall read it, and what belongs to it."""

    model: bytes
    """Serialised ONNX."""
    cache: str | None
    """TensorRT's calibration cache for it; None where the graph says itself what is INT8."""
    precision: str
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None


@dataclass(frozen=True)
class _Source:
    """What a bundle or an ONNX file holds."""

    model: onnx.ModelProto
    """FP32, with Q/DQ where it is INT8."""
    typed: bytes
    """The same with the engine's types, as TensorRT 10 and newer take them."""
    precision: str
    labels: tuple[str, ...] | None
    preprocessing: Preprocessing | None


def handed_network(source: Path, engine: type[Engine], trust: Path | None = None, *, typed: bool) -> HandedNetwork:
    """A bundle's or an ONNX file's network, with Q/DQ where it is INT8.

    Args:
        source: a bundle, or an ONNX file of ours.
        engine: the kind of engine that it becomes.
        trust: of a bundle, as ``open_bundle`` takes it.
        typed: whether the graph has the engine's types, as TensorRT 10 and newer take them; else it is FP32, weights
            included, and flags say what the engine shall be.

    Raises:
        TrustError: no trusted key has signed the bundle.
        EngineError: the bundle has nothing for this kind of engine.
        GateError: the bundle's own gate refused its network.
        ModelError: the ONNX file is missing, cannot be used, or has Q/DQ that TensorRT would misread.
    """
    found = _open(source, engine, trust)
    return HandedNetwork(
        found.typed if typed else _untyped(found), None, found.precision, found.labels, found.preprocessing
    )


def _untyped(found: _Source) -> bytes:
    return serialise(float_weights(found.model) if found.precision == "int8" else found.model)


def stripped_network(source: Path, engine: type[Engine], version: str, trust: Path | None = None) -> HandedNetwork:
    """The same network without Q/DQ, its scales in a calibration cache for TensorRT of a version in digits.

    Raises:
        EngineError: it is not INT8; and what ``handed_network`` raises.
    """
    found = _open(source, engine, trust)
    if found.precision != "int8":
        raise EngineError(f"{source} is {found.precision}: a calibration cache is for INT8; leave it out")
    stripped = strip_qdq(found.model)
    cache = write_scales(stripped.quantized | stripped.between, version)
    return HandedNetwork(serialise(stripped.model), cache, "int8", found.labels, found.preprocessing)


def _open(source: Path, engine: type[Engine], trust: Path | None) -> _Source:
    if source.suffix != BUNDLE_SUFFIX:
        refuse_trust(source, trust)
        lowered = lowered_from_onnx(source, engine)
        known = read_metadata(lowered.evaluated_as, str(source))
        refuse_misread(lowered.evaluated_as)
        return _Source(
            lowered.evaluated_as, lowered.compiled_from, lowered.precision, known.labels, known.preprocessing
        )
    bundle = open_bundle(source, trust)
    require_not_refused(source, bundle, engine)
    manifest = bundle.manifest
    lowered = lowered_from_bundle(source, bundle, engine)
    member = QDQ_MEMBER if manifest.precision == "int8" else bundle.compiled_member
    model = parse_onnx(bundle.read(member), member)
    spec = Preprocessing.from_json(manifest.preprocessing)
    return _Source(model, lowered.compiled_from, manifest.precision, manifest.labels, spec)


def calibrated_network(source: Path, table: Path, version: str) -> HandedNetwork:
    """An FP32 network as it is, its table's ranges in a calibration cache for TensorRT of a version in digits.

    Raises:
        CalibrationError: the table is missing, or another network's.
        ModelError: the ONNX file cannot be used.
    """
    ranges = open_table(table)
    network = open_calibrated(source, ranges)
    cache = write_cache(ranges, version)
    return HandedNetwork(serialise(network.model), cache, "int8", network.labels, network.preprocessing)
