"""Sparse kernels are allowed where weights are 2:4 sparse and the GPU can skip zeros, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from residual_network import residual_network

from edge_resnet.calibration.sparsity import two_four
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import target_named
from edge_resnet.sparse_kernels import with_sparse_kernels
from edge_resnet.timing_cache import compile_engine


def network(*, sparse: bool) -> bytes:
    model = onnx.load_from_string(residual_network("fp16"))
    for each in model.graph.initializer if sparse else ():
        weight = numpy_helper.to_array(each)
        if weight.ndim == 4 and weight.shape[1] == 16 and weight.dtype == np.int8:
            each.CopyFrom(numpy_helper.from_array(weight * two_four(np.abs(weight.astype(int))), each.name))
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("target", "can"),
    [
        ("jetson-orin-nano", True),
        ("jetson-thor", True),
        ("rtx-30", True),
        ("rtx", True),
        ("jetson-xavier-nx", False),
        ("rtx-20", False),
        ("cpu", False),
    ],
)
def test_from_ampere_on_and_with_sparse_weights_alone(target: str, can: bool) -> None:
    device = target_named(target)
    engine = engine_class(device.kind)
    given = BuildOptions(optimization_level=2)
    assert with_sparse_kernels(given, network(sparse=True), engine, device) == (
        BuildOptions(optimization_level=2, sparse_weights=True) if can else given
    )
    assert with_sparse_kernels(given, network(sparse=False), engine, device) == given


@pytest.mark.parametrize("sparse", [True, False])
def test_the_engine_says_what_it_was_compiled_with(sparse: bool) -> None:
    """TensorRT-RTX, the real one."""
    device = target_named("rtx-30")
    compiled = compile_engine(engine_class(device.kind), network(sparse=sparse), device, BuildOptions())
    assert compiled.versions.get("options") == ("sparse_weights=true" if sparse else None)
