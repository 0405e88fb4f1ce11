"""TensorRT's calibration cache: the text that its implicit INT8 (up to version 10, and DLA) reads in place of images.

    TRT-8502-EntropyCalibration2
    images: 3c010a14

The first line says which TensorRT and which of its calibrators it is for; each other line is a tensor's name and its
scale, amax / 127, as the big-endian bytes of a float32 in hex. TensorRT's documentation leaves the format out; NVIDIA's own
MLPerf submissions hold such files, and ModelOpt reads them so.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx

from edge_resnet.calibration.affine import SMALLEST_SCALE
from edge_resnet.calibration.collect import observed_tensors
from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.table import CalibrationTable, model_digest
from edge_resnet.calibration.topology import load_graph, rectified_tensors
from edge_resnet.errors import CalibrationError

ALGORITHM = "EntropyCalibration2"
"""The one calibrator that DLA takes."""

_VERSION = re.compile(r"[0-9]{4,6}")
_HEADER = re.compile(rf"TRT-(?P<version>{_VERSION.pattern})-(?P<algorithm>\w*Calibration2?)")
_LINE = re.compile(r"(?P<tensor>.+): (?P<scale>[0-9a-fA-F]{1,8})")


@dataclass(frozen=True)
class CalibrationCache:
    """What a calibration cache says."""

    version: str
    """TensorRT's, in digits: 8502 is 8.5.2."""
    algorithm: str
    """The calibrator's name: ``EntropyCalibration2``, ``MinMaxCalibration``, …"""
    amax: dict[str, float]
    """By tensor: INT8 covers [−amax, amax]."""


def write_cache(table: CalibrationTable, version: str) -> str:
    """Writes the ranges' amax as the cache of the calibrator that DLA takes, ``ALGORITHM``.

    Args:
        table: its names must be those of the ONNX file that TensorRT reads.
        version: of that TensorRT, in digits; it refuses a cache of another.

    Raises:
        CalibrationError: the version is not in digits, or a tensor's name has a line break.
    """
    return write_scales({tensor: found.amax / 127 for tensor, found in table.ranges.items()}, version)


def write_scales(scales: Mapping[str, float], version: str) -> str:
    """Writes scales by tensor as such a cache; arguments and errors are those of ``write_cache``.

    A scale that FP16 would round to 0 is written as the smallest that it would not (``SMALLEST_SCALE``).
    """
    if not _VERSION.fullmatch(version):
        raise CalibrationError(
            f"TensorRT's version is '{version}': give its digits as in its own caches, 8502 for 8.5.2, 100300 for 10.3.0"
        )
    lines = [f"TRT-{version}-{ALGORITHM}"]
    for tensor, scale in scales.items():
        if "\n" in tensor or "\r" in tensor:
            raise CalibrationError(
                f"tensor {tensor!r} has a line break in its name, which no cache can hold: rename it"
            )
        lines.append(f"{tensor}: {struct.pack('!f', max(scale, SMALLEST_SCALE)).hex()}")
    return "\n".join(lines) + "\n"


def read_cache(text: str, name: str) -> CalibrationCache:
    """Reads a cache of any of TensorRT's calibrators; ``name`` is for messages.

    Raises:
        CalibrationError: a line is not what it should be; the message has its number.
    """
    first, *lines = text.split("\n")
    header = _HEADER.fullmatch(first.rstrip("\r"))
    if header is None:
        raise CalibrationError(
            f"{name} line 1 is '{first[:60].strip()}': a calibration cache begins with TRT-8502-{ALGORITHM} or the like"
        )
    amax: dict[str, float] = {}
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        tensor, value = _entry(line.rstrip("\r"), f"{name} line {number}")
        if tensor in amax:
            raise CalibrationError(f"{name} line {number} names '{tensor}' a second time: remove the one that is wrong")
        amax[tensor] = value
    return CalibrationCache(header["version"], header["algorithm"], amax)


def _entry(line: str, place: str) -> tuple[str, float]:
    """A tensor's name and its amax."""
    found = _LINE.fullmatch(line)
    if found is None:
        raise CalibrationError(f"{place} is '{line[:60].strip()}': it should be a tensor's name, ': ' and 8 hex digits")
    (scale,) = struct.unpack("!f", bytes.fromhex(found["scale"].zfill(8)))
    if not (math.isfinite(scale) and scale >= 0):
        raise CalibrationError(f"{place} gives '{found['tensor']}' the scale {scale}: calibrate again in TensorRT")
    return found["tensor"], 127 * scale


def table_from_cache(
    cache: CalibrationCache, model: onnx.ModelProto, *, images: Mapping[str, Any], preprocessing: Mapping[str, Any]
) -> CalibrationTable:
    """Makes a table of a cache, for the schemes here to quantize with.

    A cache knows amax alone. It stands for what was seen too, and the asymmetric range is [−amax, amax], or [0, amax]
    behind a ReLU.

    Args:
        cache: with names of the model's tensors; others are left aside.
        model: FP32 ONNX that takes uint8 frames.
        images: the manifest of the images that TensorRT calibrated with, for the table.
        preprocessing: theirs, for the table.

    Raises:
        CalibrationError: a tensor that a scheme may quantize is not in the cache; it is named.
    """
    names = observed_tensors(model)
    missing = [name for name in names if name not in cache.amax]
    if missing:
        shown = ", ".join(missing[:5]) + (", …" if len(missing) > 5 else "")
        raise CalibrationError(
            f"the cache lacks {len(missing)} of the {len(names)} tensors that INT8 needs ({shown}): "
            f"give the ONNX file that TensorRT calibrated, or run `edge-resnet calibrate` instead"
        )
    rectified = rectified_tensors(load_graph(model).graph)
    ranges = {name: _range(cache.amax[name], rectified=name in rectified) for name in names}
    return CalibrationTable(
        f"TensorRT {cache.algorithm}", model_digest(model), dict(images), dict(preprocessing), ranges
    )


def _range(amax: float, *, rectified: bool) -> TensorRange:
    low = 0.0 if rectified else -amax
    return TensorRange(minimum=low, maximum=amax, amax=amax, low=low, high=amax)


def version_digits(version: str) -> str:
    """TensorRT's version as its caches have it: 8502 for 8.5.2, 100300 for 10.3.0.

    Raises:
        CalibrationError: it is no version of three numbers.
    """
    try:
        major, minor, patch = (int(part) for part in version.split(".")[:3])
    except ValueError:
        raise CalibrationError(f"TensorRT's version is '{version}': give three numbers, as in 8.5.2") from None
    return f"{major}{minor:02}{patch:02}" if major >= 10 else f"{major}{minor}{patch:02}"
