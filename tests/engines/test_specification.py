"""Published figures of devices: the rates in the files give the peaks that the vendor prints."""

from __future__ import annotations

import pytest

from edge_resnet.engines.specification import all_hardware, hardware_named
from edge_resnet.engines.targets import all_targets, target_named
from edge_resnet.errors import EngineError

DENSE_TOPS = {
    ("jetson-orin-nano", "MAXN_SUPER", "int8"): 33,
    ("jetson-orin-nx", "MAXN_SUPER", "int8"): 38,
    ("jetson-orin-nx", "MAXN", "int8"): 30,  # 50 of the module less 20 of its DLAs
    ("jetson-agx-orin", "MAXN", "int8"): 85,
    ("jetson-agx-orin", "MAXN", "fp16"): 42.5,
    ("jetson-agx-orin-32gb", "MAXN", "int8"): 54,
    ("jetson-agx-orin-32gb", "MAXN", "fp16"): 27,
    ("jetson-agx-xavier", "MAXN", "int8"): 22,
    ("jetson-agx-xavier", "MAXN", "fp16"): 11,
    ("jetson-agx-xavier", "MAXN", "fp32"): 1.4,
    ("rtx-20", "boost", "int8"): 215.2,
    ("rtx-20", "boost", "fp16"): 107.6,
    ("rtx-20", "boost", "fp32"): 13.4,
    ("rtx-30", "boost", "int8"): 284,
    ("rtx-30", "boost", "fp16"): 142,
    ("rtx-30", "boost", "fp32"): 35.6,
    ("rtx-40", "boost", "int8"): 660.6,
    ("rtx-40", "boost", "fp16"): 330.3,
    ("rtx-40", "boost", "fp32"): 82.6,
    ("rtx-50", "boost", "int8"): 838,
    ("rtx-50", "boost", "fp16"): 419,
    ("rtx-50", "boost", "fp32"): 104.8,
    ("l4", "boost", "int8"): 242.5,
    ("a100", "boost", "int8"): 624,
    ("a100", "boost", "fp32"): 156,
}
"""As data sheets and whitepapers print them, dense; where they print sparse figures only, half of that."""


@pytest.mark.parametrize(("device", "mode", "precision"), DENSE_TOPS)
def test_rates_and_clocks_give_the_published_peak(device: str, mode: str, precision: str) -> None:
    hardware = all_hardware()[device]
    peak = hardware.at(hardware.mode(mode)).operations[precision] / 1e12
    assert peak == pytest.approx(DENSE_TOPS[device, mode, precision], rel=0.03)


def test_every_device_belongs_to_its_target_and_lists_its_fastest_mode_first() -> None:
    for name, hardware in all_hardware().items():
        assert hardware.name == name
        assert max(hardware.modes, key=lambda mode: mode.gpu_mhz) is hardware.modes[0]
        if hardware.target is not None:
            assert name.startswith(hardware.target)
            assert hardware.sm in target_named(hardware.target).sms
    assert set(all_targets()) - set(all_hardware()) == {"cpu", "jetson-thor", "rtx"}


def test_a_mode_with_fewer_sms_has_less_of_both() -> None:
    xavier = hardware_named("jetson-agx-xavier")
    full, low = xavier.at(xavier.mode(None)), xavier.at(xavier.mode("10w"))
    assert low.operations["int8"] / full.operations["int8"] == pytest.approx(520 / 1377 / 2)


def test_names_are_looked_up_without_hyphens_and_case() -> None:
    assert hardware_named("Jetson_Orin_Nano").mode("maxn-super").gpu_mhz == 1020


@pytest.mark.parametrize("name", ["cpu", "jetson-thor", "rtx", "l4", "toaster"])
def test_what_has_no_published_figures_or_no_target_is_refused(name: str) -> None:
    with pytest.raises(EngineError, match=f"no estimate can be made for '{name}': .* jetson-orin-nano, .*bench"):
        hardware_named(name)


def test_a_name_that_is_no_target_has_the_nearest_and_one_that_is_has_none() -> None:
    with pytest.raises(EngineError, match="'orin-nano': did you mean 'jetson-orin-nano'\\? peak"):
        hardware_named("orin-nano")
    with pytest.raises(EngineError, match="^no estimate can be made for 'jetson-thor': peak"):
        hardware_named("jetson-thor")


def test_an_unknown_mode_lists_the_known_ones() -> None:
    with pytest.raises(EngineError) as refused:
        hardware_named("jetson-orin-nano").mode("40W")
    assert str(refused.value) == (
        "the clocks of power mode '40W' of Jetson Orin Nano 8GB are not known: choose one of MAXN_SUPER, 25W, 15W, 7W"
    )
