"""FP32 ONNX + table + frames → refined and quantized ONNX: the arrows between ranges and engines, in their order."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from edge_resnet.calibration.bias import correct_biases
from edge_resnet.calibration.qdq import QuantizedModel, insert_qdq
from edge_resnet.calibration.refine import Refined, exact_input
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.errors import CalibrationError

EFFORTS: dict[str, int] = {"fast": 0, "standard": 128, "best": 512}
"""Frames that bias correction measures, by the name that ``--effort`` takes."""
MEMORY = 1 << 29
"""Bytes that the tensors between two layers may take while biases are corrected; bounds the frames."""


def frames_wanted(effort: str, input_shape: tuple[int, int, int]) -> int:
    """How many calibration frames H×W×C ``quantize`` makes use of.

    Raises:
        CalibrationError: the effort is unknown.
    """
    if effort not in EFFORTS:
        raise CalibrationError(f"unknown effort '{effort}': choose one of {', '.join(EFFORTS)}")
    height, width, _ = input_shape
    between = 96 * 4 * height * width  # six float32 tensors of 16 values a pixel: a ResNet's widest, in both forms
    return min(EFFORTS[effort], max(16, MEMORY // between))


def quantize(
    model: onnx.ModelProto,
    table: CalibrationTable,
    scheme: Scheme,
    frames: npt.NDArray[np.uint8] | None,
    keep_float: tuple[str, ...] = (),
) -> QuantizedModel:
    """Refines a network for a scheme, then inserts Q/DQ.

    Args:
        model: FP32 ONNX that takes uint8 frames.
        table: its ranges.
        scheme: what to lower to.
        frames: calibration frames N×H×W×C for bias correction; None or none leaves the biases as they are.
        keep_float: names of nodes that stay float.
    """
    table.check_fits(model)
    first = model.graph.node and next((node.name for node in model.graph.node if node.op_type == "Conv"), None)
    refined = Refined(model, table) if first in keep_float else exact_input(model, table)
    if frames is not None and len(frames):
        refined = correct_biases(refined, scheme, frames, keep_float)
    return insert_qdq(refined.model, refined.table, scheme, keep_float)
