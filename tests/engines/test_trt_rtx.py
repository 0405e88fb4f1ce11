"""TensorRT-RTX for real: a small quantised residual network is compiled here, without a GPU."""

from __future__ import annotations

import dataclasses
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType

import onnx
import pytest
import tensorrt_rtx
from residual_network import CONVOLUTIONS, FLOAT_TYPES, residual_network

from edge_resnet.engines import cuda
from edge_resnet.engines._tensorrt_log import logger_of
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.targets import Target, target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.errors import EngineError, UnavailableError

RTX_30 = target_named("rtx-30")
RTX_INT8 = target_named("rtx").at("int8")

needs_no_gpu = pytest.mark.skipif(cuda.gpu_sm() is not None, reason="this host has an NVIDIA GPU")


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
        TensorRtRtxEngine.compile(failing, target_named("rtx-20"), progress=progress)
    assert convolutions(TensorRtRtxEngine.compile(model, RTX_30), "int8") == CONVOLUTIONS


def test_progress_counts_every_phase_to_its_end() -> None:
    counts: dict[str, list[tuple[int, int]]] = {}

    def progress(phase: str, done: int, steps: int) -> None:
        counts.setdefault(phase, []).append((done, steps))

    TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, progress=progress)
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
        TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, progress=progress)
    assert caught.value is failure
    assert len(calls) == 1
    assert "BuildCanceled" in logger_of(tensorrt_rtx).errors[0]
    assert TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30).layers


def test_what_progress_raises_at_the_very_end_is_not_lost() -> None:
    def progress(phase: str, done: int, steps: int) -> None:
        if phase == "Building engine" and done == steps:
            raise ValueError("no terminal")

    with pytest.raises(ValueError, match="no terminal"):
        TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, progress=progress)


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
    jetpack_5 = ModuleType("tensorrt")
    jetpack_5.__dict__["__version__"] = "8.5.2"
    monkeypatch.setitem(sys.modules, "tensorrt", jetpack_5)
    with pytest.raises(UnavailableError, match="^TensorRT 8.5.2 is not supported: install a newer one"):
        TensorRtEngine(b"")


REFUSED = {
    "hardware_compatibility": BuildOptions(hardware_compatibility=HardwareCompatibility.AMPERE_PLUS),
    "dla_core": BuildOptions(batches=BatchRange(1, 1, 1), dla_core=0),
    "timing_cache": BuildOptions(timing_cache=b""),
    "version_compatible": BuildOptions(version_compatible=True),
}


@pytest.mark.parametrize("option", REFUSED)
def test_what_tensorrt_rtx_would_ignore_or_cannot_do_is_refused(option: str) -> None:
    version = tensorrt_rtx.__version__
    with pytest.raises(EngineError, match=f"^TensorRT-RTX {version} has no option {option}, and it is ") as caught:
        TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30, REFUSED[option])
    assert str(caught.value).endswith(
        "(there are: batches, optimization_level, refit, strip_weights, tf32, workspace_mb)"
    )


def test_a_workspace_that_is_too_small_is_told_in_the_compilers_words() -> None:
    words = "no tactics to implement the operation within workspace limit"
    with pytest.raises(EngineError, match=f"^TensorRT-RTX cannot compile the model for rtx-30: .*{words}"):
        TensorRtRtxEngine.compile(residual_network("fp32", quantised=False), RTX_30, BuildOptions(workspace_mb=1))
    assert TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30).layers, "and the next build is as it should be"


BESIDE_A_GPU = {"refit": BuildOptions(refit=True), "strip_weights": BuildOptions(strip_weights=True)}


@needs_no_gpu
@pytest.mark.parametrize("option", BESIDE_A_GPU)
def test_what_needs_a_gpu_is_refused_where_there_is_none(option: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnavailableError) as caught:
        TensorRtRtxEngine.check_options(BESIDE_A_GPU[option])
    assert str(caught.value) == (
        f"TensorRT-RTX {tensorrt_rtx.__version__} has {option} only where there is an NVIDIA GPU, and this host has none: "
        "leave it out, or compile on a machine with one"
    )
    monkeypatch.setattr("edge_resnet.engines.trt_rtx.gpu_sm", lambda: 86)
    with pytest.raises(
        EngineError, match=r"CHECK\(status == CUDA_SUCCESS\) failed"
    ):  # else it would be refused for nothing
        TensorRtRtxEngine.compile(residual_network("fp32", quantised=False), RTX_30, BESIDE_A_GPU[option])
    assert TensorRtRtxEngine.compile(residual_network("fp32"), RTX_30).layers, "and the next build is as it should be"


def test_batches_are_those_of_the_engine_and_options_are_written_down() -> None:
    model = residual_network("fp16")
    options = BuildOptions(batches=BatchRange(2, 2, 2), workspace_mb=64, optimization_level=1, tf32=True)
    compiled = TensorRtRtxEngine.compile(model, RTX_30, options)
    assert compiled.versions["options"] == "batches=2,2,2 workspace_mb=64 optimization_level=1 tf32=true"
    assert "options" not in TensorRtRtxEngine.compile(model, RTX_30).versions
    layers = logger_of(tensorrt_rtx).layers
    TensorRtRtxEngine.compile(model, RTX_30, options)
    fixed = logger_of(tensorrt_rtx).layers
    assert "Dimensions: [-1,32,32,3]" in layers and "Dimensions: [2,32,32,3]" in fixed


def test_the_log_holds_the_layers_and_every_count_is_of_them() -> None:
    compiled = TensorRtRtxEngine.compile(residual_network("fp16"), RTX_30)
    assert "\nLayers:\n" in compiled.log and compiled.log.endswith("\n")
    assert "[WARNING] (foreignNode) Converting conv activation scales to fp32." in compiled.log.split("\n")
    assert all(layer.name in compiled.log for layer in compiled.layers)
    assert sum(compiled.layers_by_precision.values()) == len(compiled.layers)
    assert compiled.layers_by_precision["int8"] >= 3
