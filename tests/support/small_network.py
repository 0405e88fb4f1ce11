"""A small quantised network for engines, its frames, and its answers by exact evaluation."""

from __future__ import annotations

from functools import cache

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

SIDE, CHANNELS, CLASSES = 16, 3, 5


@cache
def quantised_network() -> bytes:
    """uint8 N×16×16×3 → INT8 convolution, ReLU, mean, linear → 5 logits."""
    model = onnx.parser.parse_model("""<ir_version: 9, opset_import: ["": 17]>
    network (uint8[N,16,16,3] frames) => (float[N,5] logits) {
        cast = Cast <to=1> (frames) chw = Transpose <perm=[0,3,1,2]> (cast) centred = Sub(chw, offset)
        integers = QuantizeLinear(centred, one, zero) floats = DequantizeLinear(integers, one, zero)
        weights = DequantizeLinear <axis=0> (conv_w, conv_scale)
        conv = Conv(floats, weights, conv_b) relu = Relu(conv) mean = GlobalAveragePool(relu)
        linear = Conv(mean, linear_w) logits = Flatten(linear)
    }""")
    random = np.random.default_rng(0)
    arrays = {
        "offset": np.float32(128),
        "one": np.float32(1),
        "zero": np.int8(0),
        "conv_w": random.integers(-127, 128, (16, 3, 3, 3)).astype(np.int8),
        "conv_scale": random.uniform(1e-5, 3e-5, 16).astype(np.float32),
        "conv_b": random.standard_normal(16).astype(np.float32),
        "linear_w": random.standard_normal((5, 16, 1, 1)).astype(np.float32),
    }
    model.graph.initializer.extend(numpy_helper.from_array(np.asarray(a), name) for name, a in arrays.items())
    return model.SerializeToString()


def frames(batch: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, SIDE, SIDE, CHANNELS), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    (logits,) = _exact().run(None, {"frames": images})
    return logits


@cache
def _exact() -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(quantised_network(), options, providers=["CPUExecutionProvider"])
