"""The targets, as this machine sees them: which it is, which it compiles for and runs, and what to do about the others."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_resnet.engines.jetpacks import never_with_python, without_python
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.specification import Hardware, all_hardware
from edge_resnet.engines.targets import JetPack, Target, all_targets
from edge_resnet.engines.this_device import ThisDevice, this_device


@dataclass(frozen=True)
class DeviceStatus:
    """One target and this machine."""

    target: Target
    this: bool
    """Whether this machine is one."""
    jetpack: JetPack | None
    """What is installed here, where this machine is one."""
    why_not_compile: str | None
    why_not_run: str | None
    instead: str | None
    """How the target is served where it has no Python for this package."""

    @property
    def modules(self) -> tuple[Hardware, ...]:
        """The products of the target whose figures are published, for `edge-resnet estimate`."""
        return tuple(each for each in all_hardware().values() if each.target == self.target.name)

    @property
    def why_not(self) -> str | None:
        """Both reasons as one, each said once."""
        reasons = [why for why in (self.why_not_compile, self.why_not_run) if why]
        said = [why for why in dict.fromkeys(reasons) if not any(why in other for other in reasons if other != why)]
        return "; ".join(said) or None

    def to_json(self) -> dict[str, Any]:
        """An element of what ``devices --json`` prints."""
        return {
            "target": self.target.name,
            "kind": self.target.kind,
            "can_compile": self.why_not_compile is None,
            "can_run": self.why_not_run is None,
            "why_not": self.why_not,
            "this": self.this,
            "jetpack": None if self.jetpack is None else asdict(self.jetpack),
            "jetpacks": [asdict(release) for release in self.target.jetpacks],
            "instead": self.instead,
            "precisions": list(self.target.precisions),
            "description": self.target.description,
            "sms": list(self.target.sms),
            "dla_cores": self.target.dla_cores,
            "modules": [
                {
                    "name": each.name,
                    "description": each.description,
                    "memory_gb": each.memory_gb,
                    "power_modes": [mode.name for mode in each.modes],
                }
                for each in self.modules
            ],
        }


def device_statuses(root: Path = Path("/")) -> list[DeviceStatus]:
    """Every target, in alphabetical order; ``root`` is where this machine's files lie."""
    here = this_device(root)
    return [_status(target, here) for target in all_targets().values()]


def _status(target: Target, here: ThisDevice) -> DeviceStatus:
    engine, installed = engine_class(target.kind), here.jetpack(target)
    old = never_with_python(target) if installed is None else without_python(installed)
    instead = f"served without Python there: edge-resnet export-trtexec BUNDLE --target {target.name} -o FOLDER"
    return DeviceStatus(
        target,
        here.is_one(target),
        installed,
        engine.why_not_compile(target),
        engine.why_not_run(target),
        instead if old else None,
    )
