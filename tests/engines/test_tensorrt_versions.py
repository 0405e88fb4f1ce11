"""Compiling with each version of TensorRT that is supported, played by the real TensorRT-RTX behind a mask."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import onnx
import pytest
from masked_tensorrt import INTERFACES, MaskedModule, interface_of
from residual_network import CONVOLUTIONS, residual_network

from edge_resnet.calibration.float_weights import float_weights
from edge_resnet.engines import trt as trt_module
from edge_resnet.engines._tensorrt_config import default_workspace_mb
from edge_resnet.engines._tensorrt_versions import TENSORRT, TENSORRT_RTX, Line, line_of
from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.targets import JetPack, target_named
from edge_resnet.engines.trt import TensorRtEngine
from edge_resnet.engines.trtexec import knows_dla
from edge_resnet.errors import EngineError, UnavailableError

VERSIONS = ("8.6.1", "10.3.0", "10.13.3", "10.16.1", "11.4.0")
ORIN = target_named("jetson-orin-nano")
JETSONS = ("jetson-orin-nano", "jetson-agx-xavier", "jetson-thor")

Tensorrt = Callable[..., MaskedModule]

pytestmark = [
    pytest.mark.skipif(not INTERFACES.is_dir(), reason=f"TensorRT's interfaces are not here: {INTERFACES}"),
    pytest.mark.filterwarnings("ignore:.*[Tt]iming cache"),
]


@pytest.fixture
def tensorrt(monkeypatch: pytest.MonkeyPatch) -> Tensorrt:
    """Puts a version in the place of TensorRT's package, on a device that it compiles for."""

    def install(version: str, **replies: object) -> MaskedModule:
        masked = MaskedModule(version, 86, {tuple(name.split("__", 1)): value for name, value in replies.items()})
        monkeypatch.setitem(sys.modules, "tensorrt", masked)
        monkeypatch.setattr(trt_module, "why_not_gpu", lambda target: None)
        monkeypatch.setattr("edge_resnet.engines._tensorrt.default_workspace_mb", lambda target: None)
        monkeypatch.setattr("edge_resnet.engines.cuda.gpu_sm", lambda: 87)
        return masked

    return install


def model_for(version: str, precision: str) -> bytes:
    """The residual network as the version takes it."""
    form = line_of("TensorRT", TENSORRT, version).form
    if precision != "int8":
        return residual_network(precision, quantised=False)
    model = onnx.load_from_string(residual_network(form.floats))
    return (model if form.stored_weights else float_weights(model)).SerializeToString()


WITHHELD = {
    ("8.6.1", "fp32"): ["Builder.create_network(NetworkDefinitionCreationFlag.EXPLICIT_BATCH)"],
    ("8.6.1", "fp16"): [
        "Builder.create_network(NetworkDefinitionCreationFlag.EXPLICIT_BATCH)",
        "IBuilderConfig.set_flag(BuilderFlag.FP16)",
    ],
    ("8.6.1", "int8"): [
        "Builder.create_network(NetworkDefinitionCreationFlag.EXPLICIT_BATCH)",
        "IBuilderConfig.set_flag(BuilderFlag.FP16)",
        "IBuilderConfig.set_flag(BuilderFlag.INT8)",
    ],
}
"""What a version is told that TensorRT-RTX does not know: nothing, but for the weakly typed."""


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("version", VERSIONS)
def test_compiles_with_the_names_that_the_version_has(tensorrt: Tensorrt, version: str, precision: str) -> None:
    masked = tensorrt(version)
    compiled = TensorRtEngine.compile(model_for(version, precision), ORIN)
    covered = {node for layer in compiled.layers if layer.precision == precision for node in layer.sources}
    assert covered >= CONVOLUTIONS
    assert masked.withheld == WITHHELD.get((version, precision), [])
    assert ("NetworkDefinitionCreationFlag.STRONGLY_TYPED" in masked.used) == (version != "8.6.1")
    assert ("IBuilderConfig.progress_monitor" in masked.used) == (version != "8.6.1")
    assert compiled.versions["tensorrt"] == version and compiled.timing_cache is None


ALL = BuildOptions(
    batches=BatchRange(1, 2, 4),
    workspace_mb=256,
    optimization_level=2,
    hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
    timing_cache=b"",
)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_option_is_set_under_the_names_of_the_version(tensorrt: Tensorrt, version: str) -> None:
    masked = tensorrt(version)
    compiled = TensorRtEngine.compile(model_for(version, "fp32"), ORIN, ALL)
    assert compiled.versions["options"] == (
        "batches=1,2,4 workspace_mb=256 optimization_level=2 hardware_compatibility=ampere-plus"
    )
    assert compiled.timing_cache is not None
    assert masked.used >= {
        "MemoryPoolType.WORKSPACE",
        "IBuilderConfig.builder_optimization_level",
        "HardwareCompatibilityLevel.AMPERE_PLUS",
        "ITimingCache.serialize",
        "BuilderFlag.TF32",
    }
    assert "setHardwareCompatibilityLevel() is unsupported" in compiled.log, "it reached the real library"


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize("version", VERSIONS)
def test_sparse_weights_are_told_where_they_are(tensorrt: Tensorrt, version: str, asked: bool) -> None:
    masked = tensorrt(version)
    TensorRtEngine.compile(model_for(version, "int8"), ORIN, BuildOptions(sparse_weights=asked))
    assert ("BuilderFlag.SPARSE_WEIGHTS" in masked.used) == asked


@pytest.mark.parametrize("asked", [False, True])
def test_tf32_is_cleared_but_where_it_was_asked_for(tensorrt: Tensorrt, asked: bool) -> None:
    masked = tensorrt("10.3.0")
    TensorRtEngine.compile(model_for("10.3.0", "fp32"), ORIN, BuildOptions(tf32=asked))
    assert ("IBuilderConfig.clear_flag" in masked.used) == ("BuilderFlag.TF32" in masked.used) == (not asked)


FLAGS = {
    "version_compatible": ("VERSION_COMPATIBLE", BuildOptions(version_compatible=True)),
    "refit": ("REFIT", BuildOptions(refit=True)),
    "strip_weights": ("STRIP_PLAN", BuildOptions(strip_weights=True)),
}


@pytest.mark.parametrize("option", FLAGS)
@pytest.mark.parametrize("version", VERSIONS)
def test_flags_reach_the_compiler_whose_own_words_come_back(tensorrt: Tensorrt, version: str, option: str) -> None:
    masked = tensorrt(version)
    flag, options = FLAGS[option]
    if option not in line_of("TensorRT", TENSORRT, version).options:
        message = f"^TensorRT {version} has no option {option}, and it is true: leave it out \\(there are: batches, "
        with pytest.raises(EngineError, match=message):
            TensorRtEngine.check_options(options)
        assert flag not in interface_of(version)["BuilderFlag"]["enum"]
        return
    with pytest.raises(EngineError, match="cannot compile the model for jetson-orin-nano: IBuilder::build"):
        TensorRtEngine.compile(model_for(version, "fp32"), ORIN, options)
    assert f"BuilderFlag.{flag}" in masked.used


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_the_same_compute_capability_came_later(tensorrt: Tensorrt, version: str) -> None:
    tensorrt(version)
    options = BuildOptions(hardware_compatibility=HardwareCompatibility.SAME_COMPUTE_CAPABILITY)
    message = f"{version} has no hardware_compatibility same-compute-capability: choose one of none, ampere-plus$"
    with pytest.raises(EngineError, match=message):
        TensorRtEngine.compile(model_for(version, "fp32"), ORIN, options)


DLA = BuildOptions(batches=BatchRange(1, 1, 1), dla_core=1)


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0", "11.4.0"])
def test_a_network_for_a_dla_is_typed_as_the_version_takes_it(tensorrt: Tensorrt, version: str) -> None:
    masked = tensorrt(version, Builder__num_DLA_cores=2)
    compiled = TensorRtEngine.compile(model_for(version, "fp16"), ORIN, DLA)
    strong = version == "11.4.0"
    assert ("NetworkDefinitionCreationFlag.STRONGLY_TYPED" in masked.used) == strong
    assert ("IBuilderConfig.set_flag(BuilderFlag.FP16)" in masked.withheld) == (not strong)
    assert ("OnnxParserFlag.ADJUST_FOR_DLA" in masked.used) == strong
    assert {"DeviceType.DLA", "IBuilderConfig.DLA_core", "BuilderFlag.GPU_FALLBACK"} <= masked.used
    assert {"conv1", "conv2"} <= set(compiled.beside_dla), "there is no DLA here: all runs beside it"


@pytest.mark.parametrize("version", ["8.6.1", "10.3.0"])
def test_a_dla_that_takes_no_q_dq_is_not_given_any(tensorrt: Tensorrt, version: str) -> None:
    tensorrt(version, Builder__num_DLA_cores=2)
    with pytest.raises(EngineError, match=f"^TensorRT {version} gives no DLA a network with Q/DQ: build fp16"):
        TensorRtEngine.compile(model_for(version, "int8"), ORIN, DLA)


@pytest.mark.parametrize(
    ("version", "known"),
    [
        *((version, True) for version in ("8.5.2", "8.6.1", "10.3.0", "10.7.0", "11.4.1")),
        *((version, False) for version in ("10.8.0", "10.12.0", "10.16.2", "11.0.0", "11.3.1")),
    ],
)
def test_dla_is_known_where_nvidia_says_so(version: str, known: bool) -> None:
    """NVIDIA's "Working with DLA" of TensorRT 11.4.1; the compiler's options and trtexec's line say the same."""
    line = None if version == "8.5.2" else line_of("TensorRT", TENSORRT, version)
    assert knows_dla(version) == known
    assert line is None or ("dla_core" in line.options) == (line.dla_typing is not None) == known


def test_a_dla_that_is_not_there_is_refused(tensorrt: Tensorrt) -> None:
    tensorrt("10.3.0", Builder__num_DLA_cores=1)
    with pytest.raises(EngineError, match="^dla_core is 1, and TensorRT 10.3.0 finds 1 here: leave it out$"):
        TensorRtEngine.compile(model_for("10.3.0", "fp16"), ORIN, DLA)
    tensorrt("10.13.3")
    with pytest.raises(EngineError, match="^TensorRT 10.13.3 has no option dla_core, and it is 1"):
        TensorRtEngine.compile(model_for("10.13.3", "fp16"), ORIN, DLA)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_model_that_cannot_be_read_is_refused_with_its_node_where_it_is_known(
    tensorrt: Tensorrt, version: str
) -> None:
    tensorrt(version)
    node = "" if version == "8.6.1" else "QuantizeLinear 'centred_q': "
    with pytest.raises(EngineError, match=f"^TensorRT cannot read the model: {node}[A-Z]") as caught:
        TensorRtEngine.compile(residual_network("fp32", zero_point=3), ORIN)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("lines", [TENSORRT, TENSORRT_RTX])
def test_lines_follow_each_other(lines: tuple[Line, ...]) -> None:
    for line, after in pairwise(lines):
        assert line.first < line.before <= after.first


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        ("8.5.2", "install a newer one (JetPack 6.0 or newer)"),
        ("10.0.1", "install another"),
        ("12.0", "install another"),
    ],
)
def test_a_version_that_nobody_looked_at_is_refused(tensorrt: Tensorrt, version: str, advice: str) -> None:
    with pytest.raises(
        UnavailableError, match=re.escape(f"TensorRT {version} is not supported: {advice}; known are 8.6")
    ):
        line_of("TensorRT", TENSORRT, version)


@pytest.mark.parametrize("jetpack", [release for name in JETSONS for release in target_named(name).jetpacks])
def test_every_jetpack_but_the_oldest_is_supported(jetpack: JetPack) -> None:
    supported = any(line.first <= tuple(map(int, jetpack.tensorrt.split(".")))[:2] < line.before for line in TENSORRT)
    assert supported == (jetpack.tensorrt != "8.5.2")


def test_workspace_on_a_jetson_is_half_of_what_linux_can_spare(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal:        7802144 kB\nMemFree:   1 kB\nMemAvailable:    4194304 kB\n")
    assert default_workspace_mb(ORIN, memory) == 2048
    assert default_workspace_mb(target_named("rtx-30"), memory) is None
    assert default_workspace_mb(ORIN, tmp_path / "missing") is None


def test_the_workspace_that_was_chosen_is_set_and_written_down(
    tensorrt: Tensorrt, monkeypatch: pytest.MonkeyPatch
) -> None:
    masked = tensorrt("10.3.0")
    monkeypatch.setattr("edge_resnet.engines._tensorrt.default_workspace_mb", lambda target: 777)
    compiled = TensorRtEngine.compile(model_for("10.3.0", "fp32"), ORIN)
    assert compiled.versions["options"] == "workspace_mb=777"
    assert "IBuilderConfig.set_memory_pool_limit" in masked.used
