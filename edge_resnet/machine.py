"""The state of this machine while something is measured on it, read off Linux's files.

CPU: ``cpufreq``. Jetson: the power mode off nvpmodel's files, the GPU's clock off ``devfreq``, temperatures off
``thermal``, power off the INA3221 monitors. What is not there is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_resnet.engines.processor import cpu_name

_MODE = re.compile(r"pmode:(\d+)")
_MODES = re.compile(r"<\s*POWER_MODEL\s+ID=(\d+)\s+NAME=(\S+?)\s*>")
CLOCK_TOLERANCE = 0.05
"""Two runs whose clocks differ by no more are at the same clocks."""


@dataclass(frozen=True)
class MachineState:
    """One moment. None or empty where the machine does not say."""

    cpu: str
    cpu_governors: tuple[str, ...]
    """Each once, sorted."""
    cpu_mhz: tuple[int, ...]
    """Of each core."""
    power_mode: str | None
    """A Jetson's, as nvpmodel names it."""
    gpu_mhz: int | None
    gpu_max_mhz: int | None
    temperatures_c: dict[str, float]
    power_w: dict[str, float]

    def to_json(self) -> dict[str, Any]:
        """The state as values that JSON knows."""
        return asdict(self)

    def differences(self, other: MachineState) -> tuple[str, ...]:
        """What makes times of two moments incomparable, each in words."""
        pairs: dict[str, tuple[object, object]] = {
            "processor": (self.cpu, other.cpu),
            "CPU governor": (self.cpu_governors, other.cpu_governors),
            "power mode": (self.power_mode, other.power_mode),
        }
        found = [f"{what}: {_said(one)} and {_said(two)}" for what, (one, two) in pairs.items() if one != two]
        for what, one, two in (("GPU clock", self.gpu_mhz, other.gpu_mhz), ("CPU clock", _mean(self), _mean(other))):
            if one and two and abs(one - two) > CLOCK_TOLERANCE * max(one, two):
                found.append(f"{what}: {one} and {two} MHz")
        return tuple(found)


def machine_state(root: Path = Path("/")) -> MachineState:
    """Looks at this machine now; ``root`` is where its files lie."""
    cpus = sorted(root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq"))
    governors = {text for text in (_text(cpu / "scaling_governor") for cpu in cpus) if text}
    clocks = [_number(cpu / "scaling_cur_freq") for cpu in cpus]
    gpu = next(iter(sorted(root.glob("sys/class/devfreq/*.g[pa]*"))), None)
    hertz = [None if gpu is None else _number(gpu / name) for name in ("cur_freq", "max_freq")]
    now, most = (None if value is None else round(value / 1e6) for value in hertz)
    return MachineState(
        cpu=cpu_name(),
        cpu_governors=tuple(sorted(governors)),
        cpu_mhz=tuple(round(clock / 1e3) for clock in clocks if clock is not None),
        power_mode=_power_mode(root),
        gpu_mhz=now,
        gpu_max_mhz=most,
        temperatures_c=dict(_temperatures(root)),
        power_w=dict(_power(root)),
    )


def _power_mode(root: Path) -> str | None:
    status = _MODE.search(_text(root / "var/lib/nvpmodel/status") or "")
    if status is None:
        return None
    number = int(status[1])
    names: dict[int, str] = {int(each): name for each, name in _MODES.findall(_text(root / "etc/nvpmodel.conf") or "")}
    return names.get(number, str(number))


def _temperatures(root: Path) -> Iterator[tuple[str, float]]:
    for zone in sorted(root.glob("sys/class/thermal/thermal_zone*")):
        kind, value = _text(zone / "type"), _number(zone / "temp")
        if kind and value is not None and value > 0:  # a zone that is off gives a negative temperature
            yield kind.removesuffix("-thermal"), value / 1000


def _power(root: Path) -> Iterator[tuple[str, float]]:
    for label in sorted(root.glob("sys/bus/i2c/drivers/ina3221*/*/hwmon/hwmon*/in[0-9]_label")):
        channel = label.name.removeprefix("in").removesuffix("_label")
        millivolts = _number(label.with_name(f"in{channel}_input"))
        milliamperes = _number(label.with_name(f"curr{channel}_input"))
        if millivolts is not None and milliamperes is not None:
            yield str(_text(label)), round(millivolts * milliamperes / 1e6, 3)


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return None


def _number(path: Path) -> float | None:
    try:
        return float(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _mean(state: MachineState) -> int | None:
    return round(sum(state.cpu_mhz) / len(state.cpu_mhz)) if state.cpu_mhz else None


def _said(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
