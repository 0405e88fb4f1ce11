"""INT8 quantization of ONNX models: observers, ranges, schemes, Q/DQ insertion, refinement.

Sees arrays and ONNX only. Usable without the rest of edge-resnet.
"""

from edge_resnet.calibration.bias import correct_biases
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.float_types import half_typed
from edge_resnet.calibration.observers import OBSERVERS, Observer, TensorRange
from edge_resnet.calibration.qdq import QuantizedModel, insert_qdq
from edge_resnet.calibration.quantize import EFFORTS, frames_wanted, quantize
from edge_resnet.calibration.refine import Refined, exact_input
from edge_resnet.calibration.schemes import SCHEMES, Scheme
from edge_resnet.calibration.table import CalibrationTable
from edge_resnet.calibration.trt_cache import CalibrationCache, read_cache, table_from_cache, write_cache

__all__ = [
    "EFFORTS",
    "OBSERVERS",
    "SCHEMES",
    "CalibrationCache",
    "CalibrationTable",
    "Observer",
    "QuantizedModel",
    "Refined",
    "Scheme",
    "TensorRange",
    "collect",
    "correct_biases",
    "exact_input",
    "frames_wanted",
    "half_typed",
    "insert_qdq",
    "quantize",
    "read_cache",
    "table_from_cache",
    "write_cache",
]
