"""Estimates: the shipped constants are what the fit gives, and every number can be traced to a published one."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from edge_resnet import estimate as module
from edge_resnet.engines.roofline import Launch, live_bytes, weight_bytes
from edge_resnet.engines.specification import all_hardware
from edge_resnet.errors import EngineError, ModelError
from edge_resnet.estimate import RUNTIME_MB, constants, estimate
from edge_resnet.launches import architecture_launches

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
UNNEEDED = ("resnet101", "resnet152")
"""Take no part in the fit, are not the worst of their generation, and take longest to export."""
REPORTED = ("latency_ms", "per_second", "memory_mb", "build_memory_mb")


@pytest.fixture(scope="module")
def fitting() -> Iterator[ModuleType]:
    """``benchmarks/estimate_fit.py``, which is no package's module."""
    spec = importlib.util.spec_from_file_location("estimate_fit", BENCHMARKS / "estimate_fit.py")
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules["estimate_fit"] = loaded  # its dataclasses look themselves up
    spec.loader.exec_module(loaded)
    yield loaded
    del sys.modules["estimate_fit"]


@pytest.fixture(scope="module")
def resnet18() -> tuple[Launch, ...]:
    return architecture_launches("resnet18")


@pytest.fixture
def of_resnet18(resnet18: tuple[Launch, ...], monkeypatch: pytest.MonkeyPatch) -> Callable[..., module.Estimate]:
    """``estimate`` of a ResNet-18 that is not exported again each time."""
    monkeypatch.setattr(module, "_launches", lambda model, trust: (None, resnet18))
    return lambda target, **options: estimate("resnet18", target, **options)


@pytest.mark.slow
def test_constants_ranges_and_documented_errors_are_what_the_fit_gives(fitting: Any) -> None:
    rows = [row for row in fitting.read_rows() if row.network not in UNNEEDED]
    fitted = fitting.fit([row for row in rows if row.use == "fit"])
    assert dataclasses.astuple(constants()) == pytest.approx(dataclasses.astuple(fitted), rel=1e-3)
    errors = fitting.errors_left_out(rows, fitted)
    assert fitting.as_toml(fitted, errors) == fitting.CONSTANTS.read_text(encoding="utf-8")
    shown = (BENCHMARKS.parent / "docs" / "estimate.md").read_text(encoding="utf-8")
    assert all(fitting.table_line(row, fitted, error) in shown for row, error in errors.items())
    assert all(abs(error) <= fitting.AIM for row, error in errors.items() if row.use == "fit")


def test_the_fit_finds_constants_again_that_made_the_times(fitting: Any, resnet18: tuple[Launch, ...]) -> None:
    true = fitting.Constants(7_000.0, 30_000.0, 0.4)
    fitting.network = lambda name, size: resnet18
    made = [
        dataclasses.replace(row, ms=fitting.predicted_ms(row, true)) for row in fitting.read_rows() if row.use == "fit"
    ]
    assert dataclasses.astuple(fitting.fit(made)) == pytest.approx(dataclasses.astuple(true), rel=1e-6)


def test_every_measurement_is_of_a_known_device_and_says_where_it_stands(fitting: Any) -> None:
    for row in fitting.read_rows():
        hardware = all_hardware()[row.device]
        assert row.power in {mode.name for mode in hardware.modes}
        assert row.precision in hardware.operations_per_clock
        assert row.ms > 0
    lines = fitting.MEASUREMENTS.read_text(encoding="utf-8").splitlines()[1:]
    assert all(any(host in line for host in ("github.com/", "docs.nvidia.com")) for line in lines)


def test_the_memory_that_was_measured_is_the_memory_estimated(resnet18: tuple[Launch, ...]) -> None:
    # NVIDIA-AI-IOT/jetson-intro-to-distillation: ResNet-18, FP16, batch 8 on an Orin Nano adds 315 MB
    launches = [launch.batched(8) for launch in resnet18]
    counted = (weight_bytes(launches, "fp16") + live_bytes(launches, "fp16")) / 1e6
    assert counted + RUNTIME_MB == pytest.approx(315, abs=1)


def test_slower_modes_larger_batches_and_wider_types_take_longer(of_resnet18: Callable[..., module.Estimate]) -> None:
    orin = "jetson-orin-nano"
    by_mode = [of_resnet18(orin, power=mode).latency_ms.estimate for mode in ("MAXN_SUPER", "25W", "15W", "7W")]
    assert by_mode == sorted(by_mode)
    by_type = [of_resnet18(orin, precision=each).latency_ms.estimate for each in ("int8", "fp16", "fp32")]
    assert by_type == sorted(by_type)
    one, eight = of_resnet18(orin), of_resnet18(orin, batch=8)
    assert one.latency_ms.estimate < eight.latency_ms.estimate < 8 * one.latency_ms.estimate
    assert eight.per_second.estimate == pytest.approx(8e3 / eight.latency_ms.estimate)
    assert eight.memory_mb.estimate > one.memory_mb.estimate


@pytest.mark.parametrize("target", [name for name, each in all_hardware().items() if each.target is not None])
def test_every_figure_lies_within_its_range(of_resnet18: Callable[..., module.Estimate], target: str) -> None:
    found = of_resnet18(target)
    for name in REPORTED:
        between = getattr(found, name)
        assert 0 < between.low <= 0.81 * between.estimate < 1.22 * between.estimate <= between.high
    assert sum(layer.ms for layer in found.layers) == pytest.approx(found.latency_ms.estimate)
    assert found.basis[0].startswith("an estimate, not a measurement")


def test_without_a_wish_the_precision_is_the_lowest_and_the_mode_the_fastest(
    of_resnet18: Callable[..., module.Estimate],
) -> None:
    found = of_resnet18("jetson-orin-nano")
    assert (found.precision, found.power, found.batch) == ("int8", "MAXN_SUPER", 1)


def test_int8_of_tensorrt_rtx_is_refused_since_nobody_measured_it(of_resnet18: Callable[..., module.Estimate]) -> None:
    assert of_resnet18("rtx-40").precision == "fp16"
    assert any("none of TensorRT-RTX" in line for line in of_resnet18("rtx-40").basis)
    with pytest.raises(EngineError, match="no int8 estimate can be made for 'rtx-40': .*--precision fp16"):
        of_resnet18("rtx-40", precision="int8")


@pytest.mark.parametrize("precision", ["fp32", "int8", "bf16"])
def test_a_precision_that_the_target_lacks_is_refused(
    of_resnet18: Callable[..., module.Estimate], precision: str
) -> None:
    with pytest.raises(EngineError, match=f"'rtx-20' has no {precision}: choose one of fp16"):
        of_resnet18("rtx-20", precision=precision)


def test_a_bundle_is_estimated_at_its_own_precision(demo_bundle: Path) -> None:
    found = estimate(str(demo_bundle), "jetson-agx-orin")
    assert found.precision == "int8"
    assert sum(layer.mmac for layer in found.layers) == pytest.approx(31.1, abs=1)  # ResNet-20 at 28×28, one channel


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown architecture 'resnet51'"):
        estimate("resnet51", "jetson-orin-nano")
    with pytest.raises(ModelError, match="no ONNX file at missing.onnx"):
        estimate("missing.onnx", "jetson-orin-nano")
    with pytest.raises(
        ModelError, match="^'r18.pth' is no architecture, ONNX or bundle: give one of them; of a checkpoint"
    ):
        estimate("r18.pth", "jetson-orin-nano")
