"""TensorRT-RTX for real: a small quantised residual network is compiled here, without a GPU."""

from __future__ import annotations

import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import numpy as np
import numpy.typing as npt
import onnx
import pytest
import tensorrt_rtx
from onnx import numpy_helper

from edge_resnet.engines import cuda
from edge_resnet.engines._tensorrt_log import logger_of
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError, UnavailableError

CONVOLUTIONS = {"conv1", "conv2", "conv3"}
FLOAT_TYPES = {"fp32": (np.float32, 17), "fp16": (np.float16, 19)}
"""Type of all float tensors → numpy's type and the opset that allows it in Q/DQ."""
RTX_30 = target_named("rtx-30")
RTX_INT8 = target_named("rtx").at("int8")

needs_no_gpu = pytest.mark.skipif(cuda.gpu_sm() is not None, reason="this host has an NVIDIA GPU")


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


def convolutions(compiled: CompiledEngine, precision: str) -> set[str]:
    """The convolutions of which a layer has this precision."""
    return CONVOLUTIONS & {node for layer in compiled.layers if layer.precision == precision for node in layer.sources}


@pytest.mark.parametrize("precision", FLOAT_TYPES)
@pytest.mark.parametrize("target", [RTX_30, RTX_INT8], ids=["rtx-30", "rtx"])
def test_quantised_convolutions_are_int8(target: Target, precision: str) -> None:
    compiled = TensorRtRtxEngine.compile(residual_network(precision), target)
    assert convolutions(compiled, "int8") == CONVOLUTIONS
    assert {layer.precision for layer in compiled.layers if "head" in layer.sources} == {precision}
    assert compiled.kind == "tensorrt-rtx"
    assert len(compiled.data) > 10_000
    assert compiled.versions["sms"] == ",".join(map(str, target.sms))
    assert compiled.versions["tensorrt_rtx"].startswith("1.")


@pytest.mark.parametrize("precision", FLOAT_TYPES)
@pytest.mark.parametrize("target", ["rtx-20", "rtx"])
def test_with_turing_among_the_sms_no_convolution_is_int8(target: str, precision: str) -> None:
    compiled = TensorRtRtxEngine.compile(residual_network(precision), target_named(target))
    assert "int8" not in {layer.precision for layer in compiled.layers}
    assert convolutions(compiled, precision) == CONVOLUTIONS


@pytest.mark.parametrize("precision", FLOAT_TYPES)
def test_without_q_dq_nothing_is_int8(precision: str) -> None:
    compiled = TensorRtRtxEngine.compile(residual_network(precision, quantised=False), RTX_30)
    assert {layer.precision for layer in compiled.layers} <= {precision, "fp32"}
    assert convolutions(compiled, precision) == CONVOLUTIONS


def test_every_sm_of_the_target_is_in_the_header_of_the_engine() -> None:
    model = residual_network("fp32")
    targets = [dataclasses.replace(RTX_30, sms=sms) for sms in ((86,), (86, 89), (86, 120), (80, 86, 89))]
    assert len({TensorRtRtxEngine.compile(model, target).data[:64] for target in targets}) == len(targets)


FP32_PRODUCT = residual_network("fp32", head="MatMul(flat, matrix)")
BAD_MODELS = {
    "not ONNX": (b"\x80\x04 not a model", "^TensorRT-RTX cannot read the model: .*Failed to parse the ONNX model"),
    "empty": (b"", "^the network takes nothing and gives nothing: it must take one uint8 N×H×W×C"),
    "a zero point": (residual_network("fp32", zero_point=3), "cannot read the model: QuantizeLinear 'centred_q': "),
    "FP32 product on Turing": (
        FP32_PRODUCT,
        "^TensorRT-RTX cannot compile the model for rtx-20: .*'head.*' for Turing.*FP32 GEMM is not supported",
    ),
}


@pytest.mark.parametrize(("model", "message"), BAD_MODELS.values(), ids=BAD_MODELS)
def test_a_model_that_is_refused_is_refused_in_one_line(model: bytes, message: str) -> None:
    with pytest.raises(EngineError, match=message) as caught:
        TensorRtRtxEngine.compile(model, target_named("rtx-20"))
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("was", "now", "message"),
    [
        ("uint8[N,32,32,3] x", "float[N,32,32,3] x", "takes 'x' float N×32×32×3 and gives 'y' float N×3"),
        ("uint8[N,32,32,3] x", "uint8[1,32,32,3] x", "takes 'x' uint8 1×32×32×3 and gives 'y' float 1×3"),
        ("uint8[N,32,32,3] x", "uint8[N,H,32,3] x", "takes 'x' uint8 N×N×32×3"),
        ("float[N,3] y", "float[N,3] y, float[N,32,32,3] f", "gives 'y' float N×3, 'f' float N×32×32×3"),
    ],
)
def test_a_network_with_another_input_or_output_is_refused_with_what_it_has(was: str, now: str, message: str) -> None:
    text = """<ir_version: 8, opset_import: ["": 17]> g (uint8[N,32,32,3] x) => (float[N,3] y) {
        f = Cast <to=1> (x) y = ReduceMean <axes=[1,2], keepdims=0> (f)
    }"""
    model = onnx.parser.parse_model(text.replace(was, now)).SerializeToString()
    with pytest.raises(EngineError, match=message):
        TensorRtRtxEngine.compile(model, RTX_30)


@pytest.mark.parametrize("stop", ["refused", "cancelled"])
def test_a_build_that_fails_leaves_nothing_for_the_next(stop: str) -> None:
    model = residual_network("fp32")

    def cancel(phase: str, done: int, steps: int) -> None:
        raise InterruptedError(phase)

    failing, progress = (model, cancel) if stop == "cancelled" else (FP32_PRODUCT, None)
    with pytest.raises((EngineError, InterruptedError)):
        TensorRtRtxEngine.compile(failing, target_named("rtx-20"), progress)
    assert convolutions(TensorRtRtxEngine.compile(model, RTX_30), "int8") == CONVOLUTIONS


def test_progress_counts_every_phase_to_its_end() -> None:
    counts: dict[str, list[tuple[int, int]]] = {}

    def progress(phase: str, done: int, steps: int) -> None:
        counts.setdefault(phase, []).append((done, steps))

    TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, progress)
    assert [done for done, _ in counts["Building engine"][:3]] == [0, 1, 2]
    assert all(0 <= done <= steps for phase in counts.values() for done, steps in phase)
    assert all(phase[-1][0] == phase[-1][1] for phase in counts.values())


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), ValueError("no terminal")], ids=["Ctrl-C", "error"])
def test_what_progress_raises_stops_the_build_and_nothing_else(failure: BaseException) -> None:
    calls = []

    def progress(phase: str, done: int, steps: int) -> None:
        calls.append(phase)
        raise failure

    with pytest.raises(type(failure)) as caught:
        TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, progress)
    assert caught.value is failure
    assert len(calls) == 1
    assert "BuildCanceled" in logger_of(tensorrt_rtx).errors[0]
    assert TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30).layers


def test_what_progress_raises_at_the_very_end_is_not_lost() -> None:
    def progress(phase: str, done: int, steps: int) -> None:
        if phase == "Building engine" and done == steps:
            raise ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal"):
        TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, progress)


def test_builds_in_several_threads_do_not_mix_their_layers() -> None:
    models = [residual_network("fp16", quantised=quantised) for quantised in (True, False) * 3]
    with ThreadPoolExecutor(len(models)) as pool:
        compiled = list(pool.map(lambda model: TensorRtRtxEngine.compile(model, RTX_30), models))
    assert [convolutions(one, "int8") for one in compiled] == [CONVOLUTIONS, set()] * 3


@needs_no_gpu
def test_without_a_gpu_an_engine_cannot_be_opened() -> None:
    data = TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30).data
    with pytest.raises(UnavailableError, match="^needs an NVIDIA GPU: ") as caught:
        TensorRtRtxEngine(data)
    assert caught.value.exit_code == 4


@needs_no_gpu
def test_says_why_a_host_without_a_gpu_cannot_compile_or_run() -> None:
    rtx, orin = target_named("rtx"), target_named("jetson-orin-nano")
    assert TensorRtRtxEngine.why_not_compile(rtx) is None
    assert TensorRtRtxEngine.why_not_run(rtx) == (
        "needs an NVIDIA GPU with SM 75, 80, 86, 89, 120 or 121 (this host has none)"
    )
    assert TensorRtEngine.why_not_run(orin) == "needs an NVIDIA GPU with SM 87 (this host has none)"
    why = "TensorRT compiles only on the device itself: needs an NVIDIA GPU with SM 87 (this host has none)"
    assert TensorRtEngine.why_not_compile(orin) == why
    with pytest.raises(
        UnavailableError, match="^cannot compile for jetson-orin-nano: TensorRT compiles only"
    ) as caught:
        TensorRtEngine.compile(b"", orin)
    assert caught.value.exit_code == 4


def test_a_compiler_without_one_of_the_sms_says_so() -> None:
    target = dataclasses.replace(RTX_30, sms=(86, 87, 110))
    why = TensorRtRtxEngine.why_not_compile(target)
    assert why is not None
    assert why.startswith("TensorRT-RTX 1.")
    assert why.endswith("does not compile for SM 87, 110")


def test_a_missing_package_is_named_with_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    why = "tensorrt_rtx is not installed: pip install 'edge-resnet[rtx]'"
    assert TensorRtRtxEngine.why_not_compile(RTX_30) == why
    with pytest.raises(UnavailableError) as compiling:
        TensorRtRtxEngine.compile(b"", RTX_30)
    with pytest.raises(UnavailableError) as opening:
        TensorRtRtxEngine(b"")
    assert str(compiling.value) == f"cannot compile for rtx-30: {why}"
    assert str(opening.value) == why


def test_a_tensorrt_that_is_too_old_is_refused_by_its_version(monkeypatch: pytest.MonkeyPatch) -> None:
    jetpack_6_0 = ModuleType("tensorrt")
    jetpack_6_0.__dict__["__version__"] = "8.6.2"
    monkeypatch.setitem(sys.modules, "tensorrt", jetpack_6_0)
    with pytest.raises(UnavailableError, match="^TensorRT 8.6.2 is too old: install 10.3 or newer"):
        TensorRtEngine(b"")
