"""Exact evaluation of a Q/DQ graph: what an INT8 engine answers, with no such engine at hand.

ONNX Runtime with its graph optimisations off executes QuantizeLinear and DequantizeLinear as they are written. A
convolution of dequantized INT8 tensors is then integer arithmetic times scales, up to float32 rounding of the sums.
Layers that an engine runs in FP16 are evaluated in FP32 here: their part is a prediction.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

from edge_resnet.errors import ModelError


def exact_session(model: onnx.ModelProto, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session that runs each node as it is written.

    Raises:
        ModelError: ONNX Runtime refuses the model.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _session(model, options, threads)


def fast_session(model: onnx.ModelProto, threads: int = 0) -> onnxruntime.InferenceSession:
    """A session with every optimisation, for FP32 graphs."""
    return _session(model, onnxruntime.SessionOptions(), threads)


def _session(model: onnx.ModelProto, options: onnxruntime.SessionOptions, threads: int) -> onnxruntime.InferenceSession:
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status, with no common base
        raise ModelError(f"ONNX Runtime refuses the model: {str(error).splitlines()[0]}") from error


def run_frames(session: onnxruntime.InferenceSession, frames: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Logits N×classes of frames N×H×W×C."""
    outputs: Sequence[npt.NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: frames})
    return outputs[0]
