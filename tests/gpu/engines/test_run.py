"""Engines run on a GPU, against ONNX Runtime running the same graph without any optimisation."""

from __future__ import annotations

import dataclasses

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

from edge_resnet.engines import cuda
from edge_resnet.engines._tensorrt import TensorRtFamily
from edge_resnet.engines._tensorrt_build import MAX_BATCH
from edge_resnet.engines.engine import Engine
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError

SM = cuda.gpu_sm()

pytestmark = pytest.mark.skipif(SM is None, reason="needs an NVIDIA GPU")


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
    return np.random.default_rng(seed).integers(0, 256, (batch, 16, 16, 3), dtype=np.uint8)


def expected(images: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(quantised_network(), options, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"frames": images})
    return logits


def this_host(kind: str) -> Target:
    """A target of the kind that is exactly the GPU here."""
    name = {"tensorrt": "jetson-agx-orin", "tensorrt-rtx": "rtx"}[kind]
    return dataclasses.replace(target_named(name), name="this-host", sms=(SM or 0,))


@pytest.fixture(params=[TensorRtEngine, TensorRtRtxEngine], ids=["tensorrt", "tensorrt-rtx"])
def engine_class(request: pytest.FixtureRequest) -> type[TensorRtFamily]:
    engine: type[TensorRtFamily] = request.param
    target = this_host(engine.kind)
    reason = engine.why_not_compile(target) or engine.why_not_run(target)
    if reason is not None:
        pytest.skip(reason)
    return engine


@pytest.fixture
def engine(engine_class: type[TensorRtFamily]) -> Engine:
    return engine_class(engine_class.compile(quantised_network(), this_host(engine_class.kind)).data)


@pytest.mark.parametrize("batch", [1, 3, MAX_BATCH])
def test_logits_are_those_of_the_graph(engine: Engine, batch: int) -> None:
    with engine:
        logits = engine.run(frames(batch, seed=batch))
    assert logits.dtype == np.float32
    # TensorRT may multiply what is left in FP32 as TF32, which has 10 bits of mantissa.
    np.testing.assert_allclose(logits, expected(frames(batch, seed=batch)), rtol=2e-3, atol=5e-3)


def test_a_later_batch_neither_changes_an_earlier_answer_nor_sees_its_frames(engine: Engine) -> None:
    with engine:
        first = engine.run(frames(MAX_BATCH, seed=1))
        kept = first.copy()
        second = engine.run(frames(2, seed=2))
    np.testing.assert_array_equal(first, kept)
    np.testing.assert_allclose(second, expected(frames(2, seed=2)), rtol=2e-3, atol=5e-3)


def test_what_it_takes_is_read_off_the_engine(engine: Engine) -> None:
    with engine:
        assert dataclasses.astuple(engine.input) == (16, 16, 3, MAX_BATCH, 1)
        assert engine.output == (5,)
        with pytest.raises(EngineError, match=f"a batch of {MAX_BATCH + 1} frames"):
            engine.run(frames(MAX_BATCH + 1, seed=0))


def test_bytes_that_are_no_engine_are_refused_in_one_line(engine_class: type[TensorRtFamily]) -> None:
    with pytest.raises(EngineError, match="cannot load the engine: ") as caught:
        engine_class(b"not an engine")
    assert "\n" not in str(caught.value)


def test_closing_frees_and_may_be_done_twice(engine: Engine) -> None:
    engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.run(frames(1, seed=0))


def test_a_copy_to_the_gpu_and_back_is_the_same() -> None:
    size = 1000
    sent, received = cuda.PinnedArray((size,), np.uint8), cuda.PinnedArray((size,), np.uint8)
    buffer, stream = cuda.DeviceBuffer(size), cuda.Stream()
    sent.array[:] = np.arange(size) % 251
    received.array[:] = 0
    stream.upload(sent.array, buffer)
    stream.download(buffer, received.array)
    stream.synchronize()
    np.testing.assert_array_equal(received.array, sent.array)
    for resource in (stream, buffer, received, sent):
        resource.close()


def test_more_memory_than_the_gpu_has_is_an_engine_error() -> None:
    with pytest.raises(EngineError, match="cudaMalloc failed: cudaErrorMemoryAllocation"):
        cuda.DeviceBuffer(1 << 50)
