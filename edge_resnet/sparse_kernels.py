"""Whether a compiler may choose kernels that skip zeros: where weights are 2:4 sparse, on Ampere and newer GPUs."""

from __future__ import annotations

from dataclasses import replace

import onnx

from edge_resnet.calibration.sparsity import sparse_convolutions
from edge_resnet.engines.compiler import Compiler
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target


def with_sparse_kernels(options: BuildOptions, model: bytes, engine: Compiler, target: Target) -> BuildOptions:
    """The options and, where it is of use, the leave for sparse kernels.

    Args:
        options: what was asked for.
        model: serialised ONNX, as it is compiled.
        engine: compiles it.
        target: the device.
    """
    if not engine.has_sparse_kernels(target) or not sparse_convolutions(onnx.load_model_from_string(model)):
        return options
    return replace(options, sparse_weights=True)
