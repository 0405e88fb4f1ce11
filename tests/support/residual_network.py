"""A small residual network as text, quantised or not, in each type that floats may have."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

CONVOLUTIONS = {"conv1", "conv2", "conv3"}
FLOAT_TYPES = {"fp32": (np.float32, 17), "fp16": (np.float16, 19)}
"""Type of all float tensors → numpy's type and the opset that allows it in Q/DQ."""


def residual_network(
    precision: str, *, quantised: bool = True, head: str = "Conv(mean, head_w)", zero_point: int = 0
) -> bytes:
    """uint8 N×32×32×3 → a convolution, a residual block of two → logits. Each node is named as its output."""
    dtype, opset = FLOAT_TYPES[precision]
    code = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    pair = "{0}_q = QuantizeLinear({0}, scale, zero) {0}_dq = DequantizeLinear({0}_q, scale, zero)"
    pair = pair if quantised else "{0}_dq = Identity({0})"
    weight = "{0}_dq = DequantizeLinear <axis=0> ({0}, {0}_scale)" if quantised else "{0}_dq = Identity({0})"
    text = f"""<ir_version: 9, opset_import: ["": {opset}]>
    residual (uint8[N,32,32,3] frames) => (float[N,10] logits) {{
        cast = Cast <to={code}> (frames) chw = Transpose <perm=[0,3,1,2]> (cast) centred = Sub(chw, offset)
        {pair.format("centred")} {weight.format("conv1_w")}
        conv1 = Conv <pads=[1,1,1,1]> (centred_dq, conv1_w_dq, bias) relu1 = Relu(conv1)
        {pair.format("relu1")} {weight.format("conv2_w")}
        conv2 = Conv <pads=[1,1,1,1]> (relu1_dq, conv2_w_dq, bias) relu2 = Relu(conv2)
        {pair.format("relu2")} {weight.format("conv3_w")}
        conv3 = Conv <pads=[1,1,1,1]> (relu2_dq, conv3_w_dq, bias)
        sum = Add(conv3, relu1_dq) relu3 = Relu(sum) mean = GlobalAveragePool(relu3)
        flat = Flatten(mean) head = {head} flat_head = Flatten(head) logits = Cast <to=1> (flat_head)
    }}"""
    model = onnx.parser.parse_model(text)
    for node in model.graph.node:
        node.name = node.output[0]
    used = {name for node in model.graph.node for name in node.input}
    arrays = parameters(np.random.default_rng(0), dtype, quantised, zero_point)
    model.graph.initializer.extend(numpy_helper.from_array(a, name) for name, a in arrays.items() if name in used)
    onnx.checker.check_model(model)
    return model.SerializeToString()


def parameters(
    random: np.random.Generator, dtype: npt.DTypeLike, quantised: bool, zero_point: int
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {
        "offset": np.asarray(128, dtype),
        "scale": np.asarray(1, dtype),
        "zero": np.asarray(zero_point, np.int8),
        "bias": random.standard_normal(16).astype(dtype),
        "head_w": random.standard_normal((10, 16, 1, 1)).astype(dtype),
        "matrix": random.standard_normal((16, 10)).astype(dtype),
    }
    for name, channels in (("conv1_w", 3), ("conv2_w", 16), ("conv3_w", 16)):
        integers = random.integers(-127, 128, (16, channels, 3, 3)).astype(np.int8)
        arrays[name] = integers if quantised else (integers * 0.001).astype(dtype)
        arrays[f"{name}_scale"] = random.uniform(0.0005, 0.0015, 16).astype(dtype)
    return arrays
