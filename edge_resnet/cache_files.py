"""What TensorRT's calibration cache needs when an ONNX file is not ours: the names that the file itself has.

TensorRT reads the FP32 ONNX file as it is and looks tensors up by its names. A foreign file's image is a graph input of
any name; in our form of it, what the preprocessing gives (``NORMALISED``) is that image.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from edge_resnet.adoption.head import image_input
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.trt_cache import CalibrationCache, read_cache
from edge_resnet.errors import CalibrationError
from edge_resnet.graph_writer import NORMALISED
from edge_resnet.limits import check_file
from edge_resnet.onnx_file import read_onnx, takes_frames
from edge_resnet.preprocessing import Preprocessing


@dataclass(frozen=True)
class FileNames:
    """Names of tensors in an FP32 ONNX file, and in the network that was made of it."""

    image: str
    """The file's name of what the network has as ``NORMALISED``."""
    tensors: frozenset[str]
    """All that the file has."""

    def in_file(self, table: CalibrationTable) -> CalibrationTable:
        """A network's table, by the file's names."""
        ranges = {self.image if name == NORMALISED else name: found for name, found in table.ranges.items()}
        return replace(table, ranges=ranges)

    def in_network(self, cache: CalibrationCache) -> CalibrationCache:
        """A file's cache, by the network's names."""
        amax = {NORMALISED if name == self.image else name: value for name, value in cache.amax.items()}
        return replace(cache, amax=amax)

    def unknown(self, names: Iterable[str]) -> list[str]:
        """Those that the file does not have; TensorRT takes no notice of them."""
        return [name for name in names if name not in self.tensors]


def open_cache(path: Path) -> CalibrationCache:
    """Reads a calibration cache.

    Raises:
        CalibrationError: the file is missing or holds something else.
    """
    if not path.is_file():
        raise CalibrationError(f"no calibration cache at {path}: TensorRT's calibrator writes one")
    check_file(path, "document_bytes", CalibrationError)
    return read_cache(path.read_text(encoding="utf-8", errors="replace"), str(path))


def file_names(path: Path, preprocessing: Preprocessing) -> FileNames:
    """Reads the names of an FP32 ONNX file, ours or foreign.

    Raises:
        ModelError: the file cannot be used.
    """
    model = read_onnx(path)
    image = NORMALISED if takes_frames(model) else image_input(model, preprocessing, str(path)).name
    return FileNames(image, frozenset(_tensors(model)))


def _tensors(model: onnx.ModelProto) -> Iterable[str]:
    yield from (source.name for source in model.graph.input)
    for node in model.graph.node:
        yield from node.output
