"""The trtexec line, by TensorRT's version: whole lines by hand from its own help, and flags that it has not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from edge_resnet.engines.options import BatchRange, BuildOptions, HardwareCompatibility
from edge_resnet.engines.trtexec import TrtexecFiles, TrtexecInput, trtexec_command
from edge_resnet.errors import EngineError

FRAMES = TrtexecInput("frames", 224, 200, 3)
ALL = BuildOptions(
    batches=BatchRange(2, 4, 16),
    workspace_mb=1024,
    optimization_level=5,
    hardware_compatibility=HardwareCompatibility.AMPERE_PLUS,
    version_compatible=True,
    refit=True,
    strip_weights=True,
)
NAMES = TrtexecFiles("m.onnx", "m.plan")
PLAIN = BuildOptions(tf32=True)


def line(version: str, precision: str = "int8", options: BuildOptions = PLAIN, files: TrtexecFiles = NAMES) -> str:
    return " ".join(trtexec_command(version, precision, files, FRAMES, options))


SHAPES = "--minShapes=frames:1x224x200x3 --optShapes=frames:1x224x200x3 --maxShapes=frames:8x224x200x3"
FILES = "trtexec --onnx=m.onnx --saveEngine=m.plan"


@pytest.mark.parametrize(
    ("version", "precision", "rest"),
    [
        ("8.5.2", "int8", "--int8 --fp16 --profilingVerbosity=detailed --buildOnly"),
        ("8.5.2", "fp16", "--fp16 --profilingVerbosity=detailed --buildOnly"),
        ("8.6.2", "fp32", "--profilingVerbosity=detailed --skipInference"),
        ("10.3.0", "int8", "--stronglyTyped --profilingVerbosity=detailed --skipInference"),
        ("10.16.2", "fp16", "--stronglyTyped --profilingVerbosity=detailed --skipInference"),
        ("11.4.1", "int8", "--profilingVerbosity=detailed --skipInference"),
    ],
)
def test_the_line_of_each_version(version: str, precision: str, rest: str) -> None:
    assert line(version, precision) == f"{FILES} {SHAPES} {rest}"


def test_every_option() -> None:
    assert line("10.3.0", "fp16", ALL, replace(NAMES, timing_cache="timing.cache")) == (
        f"{FILES} --minShapes=frames:2x224x200x3 --optShapes=frames:4x224x200x3 --maxShapes=frames:16x224x200x3 "
        "--stronglyTyped --profilingVerbosity=detailed --skipInference --memPoolSize=workspace:1024 "
        "--builderOptimizationLevel=5 --timingCacheFile=timing.cache --hardwareCompatibilityLevel=ampere+ "
        "--versionCompatible --refit --stripWeights --noTF32"
    )


def test_dla_takes_one_batch_size_and_the_gpu_what_it_cannot_do() -> None:
    options = BuildOptions(batches=BatchRange(2, 2, 2), dla_core=1, tf32=True)
    shapes = " ".join(f"--{which}Shapes=frames:2x224x200x3" for which in ("min", "opt", "max"))
    assert line("8.5.2", options=options, files=replace(NAMES, calibration_cache="calib.cache")) == (
        f"{FILES} {shapes} --int8 --fp16 --calib=calib.cache --profilingVerbosity=detailed --buildOnly "
        "--useDLACore=1 --allowGPUFallback"
    )
    for version, known in {"10.7.0": True, "10.8.0": False, "10.16.2": False, "11.4.1": True}.items():
        if known:
            assert "--useDLACore=1" in line(version, options=options)
        else:
            with pytest.raises(EngineError, match=rf"TensorRT {version[:-2]} does not know DLA"):
                line(version, options=options)


@pytest.mark.parametrize("version", ["8.5.2", "8.6.2", "10.3.0", "11.4.1"])
def test_sparse_weights_are_enabled_and_never_forced(version: str) -> None:
    """``force`` would overwrite weights (trtexec's own help)."""
    assert "--sparsity=enable" in line(version, options=BuildOptions(sparse_weights=True)).split()
    assert "sparsity" not in line(version)


@pytest.mark.parametrize(
    ("version", "change", "flag", "since"),
    [
        ("8.5.2", {"optimization_level": 3}, "--builderOptimizationLevel", "8.6"),
        ("8.5.2", {"version_compatible": True}, "--versionCompatible", "8.6"),
        ("8.5.2", {"hardware_compatibility": HardwareCompatibility.AMPERE_PLUS}, "--hardwareCompatibilityLevel", "8.6"),
        ("8.6.2", {"strip_weights": True}, "--stripWeights", "10.0"),
    ],
)
def test_a_flag_that_a_version_has_not_is_refused(version: str, change: dict[str, Any], flag: str, since: str) -> None:
    message = f"trtexec of TensorRT {version} has no {flag}, which came with {since}: leave it out"
    with pytest.raises(EngineError, match=message):
        line(version, options=BuildOptions(**change))


@pytest.mark.parametrize(("version", "precision"), [("11.4.1", "int8"), ("8.5.2", "fp16")])
def test_a_calibration_cache_is_for_int8_up_to_version_10(version: str, precision: str) -> None:
    with pytest.raises(EngineError, match="a calibration cache is for INT8 in TensorRT up to 10, not for"):
        line(version, precision, files=replace(NAMES, calibration_cache="c"))


def test_what_else_is_refused() -> None:
    with pytest.raises(EngineError, match="TensorRT 8.6 has no bf16 here: choose one of fp32, fp16, int8"):
        line("8.6.2", "bf16")
    with pytest.raises(EngineError, match="TensorRT 8.4.1 is too old: it does not read the ONNX files made here"):
        line("8.4.1")
    with pytest.raises(EngineError, match="TensorRT's version is '8502': give it with dots, as in 8.5.2"):
        line("8502")
