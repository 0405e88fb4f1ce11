"""The devices that an engine can be built for: one frozen value each, read from one TOML file each in ``devices/``.

A fact that has no source is left out of the file, and is None here.
"""

from __future__ import annotations

import difflib
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from edge_resnet.errors import EngineError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_DEVICES = Path(__file__).with_name("devices")


@dataclass(frozen=True)
class JetPack:
    """One release of NVIDIA's system image for Jetson, and the versions it brings."""

    version: str
    l4t: str
    cuda: str
    tensorrt: str
    python: str


@dataclass(frozen=True)
class Target:
    """A device, or a family of devices, that one engine runs on."""

    name: str
    description: str
    kind: str
    """The engine kind that runs there; :func:`edge_resnet.engines.registry.engine_class` knows them."""
    sms: tuple[int, ...]
    """GPU generations that one engine must run on, as compute capability × 10: 86 is 8.6. Empty for a CPU."""
    precisions: tuple[str, ...]
    """Precisions that an engine's convolutions can have there, of ``fp32``, ``fp16``, ``bf16``, ``int8`` and ``fp8``."""
    sms_at: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """The SMs of an engine of some precision, where they are fewer than ``sms``."""
    dla_cores: int | None = None
    """Deep-learning accelerators beside the GPU; None: not known."""
    jetpacks: tuple[JetPack, ...] = ()
    """Releases of JetPack that support it, oldest first; empty for what is not a Jetson."""

    @property
    def shares_memory(self) -> bool:
        """Whether the GPU has no memory of its own, as on every Jetson."""
        return bool(self.jetpacks)

    def at(self, precision: str) -> Target:
        """The target as an engine of this precision serves it: with the SMs that have the precision.

        Raises:
            EngineError: no device of the target has it.
        """
        if precision not in self.precisions:
            raise EngineError(f"target '{self.name}' has no {precision}: choose one of {', '.join(self.precisions)}")
        return replace(self, sms=self.sms_at.get(precision, self.sms))

    def check_dla(self, core: int | None) -> None:
        """Refuses a deep-learning accelerator that the device does not have; None asks for none.

        Raises:
            EngineError: it does not.
        """
        if core is None or self.dla_cores is None or core < self.dla_cores:
            return
        if not self.dla_cores:
            raise EngineError(f"{self.name} has no DLA: leave --dla out")
        raise EngineError(f"dla_core is {core}, and {self.name} has {self.dla_cores}: give 0 to {self.dla_cores - 1}")


def all_targets() -> dict[str, Target]:
    """Every target by name, in alphabetical order."""
    return dict(_targets())


def target_named(name: str) -> Target:
    """Looks a target up; hyphens, underscores and case do not matter.

    Raises:
        EngineError: no target has this name; the message has the nearest one and the list.
    """
    known = {_plain(known): target for known, target in _targets().items()}
    if _plain(name) in known:
        return known[_plain(name)]
    near = difflib.get_close_matches(_plain(name), known, n=1)
    guess = f"did you mean '{known[near[0]].name}'? " if near else ""
    raise EngineError(f"unknown target '{name}': {guess}choose one of {', '.join(_targets())}")


def _plain(name: str) -> str:
    return name.lower().replace("-", "").replace("_", "")


@cache
def _targets() -> dict[str, Target]:
    return {path.stem: _read(path) for path in sorted(_DEVICES.glob("*.toml"), key=lambda path: path.stem)}


def _read(path: Path) -> Target:
    facts: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    return Target(
        name=path.stem,
        description=facts["description"],
        kind=facts["kind"],
        sms=tuple(facts.get("sms", ())),
        precisions=tuple(facts["precisions"]),
        sms_at={precision: tuple(sms) for precision, sms in facts.get("sms_at", {}).items()},
        dla_cores=facts.get("dla_cores"),
        jetpacks=tuple(JetPack(**release) for release in facts.get("jetpack", ())),
    )
