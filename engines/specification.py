"""Published figures of devices, for estimates: one frozen value each, read from one TOML file each in ``hardware/``.

A figure that has no source is not in a file; a device without peak or bandwidth has no file.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from edge_resnet.engines.roofline import OperatingPoint
from edge_resnet.engines.targets import all_targets
from edge_resnet.errors import EngineError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_HARDWARE = Path(__file__).with_name("hardware")


@dataclass(frozen=True)
class Mode:
    """A power mode: what it caps clocks at."""

    name: str
    gpu_mhz: float
    bandwidth_gbs: float
    sms: int | None = None
    """SMs that are on; None: all."""


@dataclass(frozen=True)
class Hardware:
    """One product, or the one that stands for a family."""

    name: str
    description: str
    sm: int
    """Compute capability × 10."""
    sms: int
    operations_per_clock: Mapping[str, int]
    """Dense, of one SM, by precision; a multiply-add is two. FP32 is what TensorRT uses for it: TF32 where there is."""
    modes: tuple[Mode, ...]
    """The fastest first."""
    target: str | None = None
    """The target that engines for it are compiled for; None: known for the sake of its measurements."""
    unmeasured: tuple[str, ...] = ()
    """Precisions that the target has, but of whose speed there nobody has published a measurement."""
    caveats: tuple[str, ...] = ()
    """What to say with every estimate."""
    memory_gb: float = 0
    """Of the module or card, as sold."""
    l2_mb: float = 0
    """10⁶ bytes; 0: not known."""

    def mode(self, name: str | None) -> Mode:
        """Looks a power mode up; None is the fastest. Case, hyphens and underscores do not matter.

        Raises:
            EngineError: it has no such mode, or none whose clocks are published.
        """
        if name is None:
            return self.modes[0]
        known = {_plain(mode.name): mode for mode in self.modes}
        if _plain(name) not in known:
            raise EngineError(
                f"the clocks of power mode '{name}' of {self.description} are not known: "
                f"choose one of {', '.join(mode.name for mode in self.modes)}"
            )
        return known[_plain(name)]

    def at(self, mode: Mode) -> OperatingPoint:
        """Peak and bandwidth in a mode."""
        clocks = (mode.sms or self.sms) * mode.gpu_mhz * 1e6
        return OperatingPoint(
            sm=self.sm,
            hertz=mode.gpu_mhz * 1e6,
            operations={precision: rate * clocks for precision, rate in self.operations_per_clock.items()},
            bandwidth=mode.bandwidth_gbs * 1e9,
            l2_bytes=self.l2_mb * 1e6,
        )


def all_hardware() -> dict[str, Hardware]:
    """Every device with published figures, by name."""
    return dict(_hardware())


def hardware_named(name: str) -> Hardware:
    """Looks up a device that engines can be compiled for.

    Raises:
        EngineError: there are no published figures of it; the message has the nearest name.
    """
    known = {_plain(each.name): each for each in _hardware().values() if each.target is not None}
    if _plain(name) not in known:
        targets = {_plain(target) for target in all_targets()}
        near = [] if _plain(name) in targets else difflib.get_close_matches(_plain(name), known, n=1)
        guess = f"did you mean '{known[near[0]].name}'? " if near else ""
        raise EngineError(
            f"no estimate can be made for '{name}': {guess}peak and bandwidth with a source are known of "
            f"{', '.join(each.name for each in known.values())}; what runs here is measured by `edge-resnet bench`"
        )
    return known[_plain(name)]


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


@cache
def _hardware() -> dict[str, Hardware]:
    return {path.stem: _read(path) for path in sorted(_HARDWARE.glob("*.toml"), key=lambda path: path.stem)}


def _read(path: Path) -> Hardware:
    facts: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    facts |= {key: tuple(facts.get(key, ())) for key in ("unmeasured", "caveats")}
    return Hardware(path.stem, modes=tuple(Mode(**mode) for mode in facts.pop("mode")), **facts)
