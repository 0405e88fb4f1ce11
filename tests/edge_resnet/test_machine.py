"""The state of a machine, off files as Linux and JetPack have them, laid down in a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from edge_resnet.machine import MachineState, machine_state

JETSON = {
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq": "1510400\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "schedutil\n",
    "sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "729600\n",
    "sys/class/devfreq/17000000.gpu/cur_freq": "306000000\n",
    "sys/class/devfreq/17000000.gpu/max_freq": "624750000\n",
    "sys/class/thermal/thermal_zone0/type": "cpu-thermal\n",
    "sys/class/thermal/thermal_zone0/temp": "48562\n",
    "sys/class/thermal/thermal_zone1/type": "cv0-thermal\n",
    "sys/class/thermal/thermal_zone1/temp": "-256000\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_label": "VDD_IN\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/in1_input": "5072\n",
    "sys/bus/i2c/drivers/ina3221/1-0040/hwmon/hwmon1/curr1_input": "1000\n",
    "var/lib/nvpmodel/status": "pmode:0001\n",
    "etc/nvpmodel.conf": "< POWER_MODEL ID=0 NAME=15W >\nCPU_ONLINE CORE_0 1\n< POWER_MODEL ID=1 NAME=7W >\n",
}


@pytest.fixture
def jetson(tmp_path: Path) -> Path:
    for name, text in JETSON.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tmp_path


def test_a_jetson_tells_mode_clocks_temperatures_and_power(jetson: Path) -> None:
    state = machine_state(jetson)
    assert state.cpu_governors == ("schedutil",)
    assert state.cpu_mhz == (1510, 730)
    assert (state.gpu_mhz, state.gpu_max_mhz) == (306, 625)
    assert state.power_mode == "7W"
    assert state.temperatures_c == {"cpu": 48.562}
    assert state.power_w == {"VDD_IN": 5.072}


def test_a_machine_that_tells_nothing_has_nothing(tmp_path: Path) -> None:
    state = machine_state(tmp_path)
    assert (state.power_mode, state.gpu_mhz, state.cpu_mhz, state.temperatures_c) == (None, None, (), {})
    (tmp_path / "var/lib/nvpmodel").mkdir(parents=True)
    (tmp_path / "var/lib/nvpmodel/status").write_text("pmode:0003")
    assert machine_state(tmp_path).power_mode == "3"


BASE = MachineState("a CPU", ("performance",), (2000, 2000), "15W", 600, 625, {"cpu": 40.0}, {"VDD_IN": 5.0})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"power_mode": "7W"}, ("power mode: 15W and 7W",)),
        ({"gpu_mhz": 306}, ("GPU clock: 600 and 306 MHz",)),
        ({"cpu_governors": ("powersave",)}, ("CPU governor: performance and powersave",)),
        ({"cpu_mhz": (1000, 2000)}, ("CPU clock: 2000 and 1500 MHz",)),
        ({"cpu": "another"}, ("processor: a CPU and another",)),
        ({"gpu_mhz": 590, "cpu_mhz": (1990, 1950), "temperatures_c": {"cpu": 70.0}, "power_w": {}}, ()),
        ({"gpu_mhz": None}, ()),
    ],
)
def test_what_makes_times_incomparable(change: dict[str, object], said: tuple[str, ...]) -> None:
    assert BASE.differences(replace(BASE, **change)) == said  # type: ignore[arg-type]
