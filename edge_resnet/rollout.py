"""Which bundle each device of a fleet should have: the stable one, or the canary for some of them first.

Which devices are canaries depends on their names and on the canary's tag alone: raising the fraction only adds devices,
every run and every machine names the same ones, and the next canary is tried by others.
"""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from edge_resnet.engines.targets import target_named
from edge_resnet.errors import RecipeError
from edge_resnet.registry.content import Registry
from edge_resnet.registry.names import Reference
from edge_resnet.toml_table import Table, parse_toml

RINGS = ("any", "stable", "canary")
"""``any``: by the fraction. ``stable`` and ``canary``: always."""


@dataclass(frozen=True)
class Model:
    """A model of the fleet."""

    stable: str
    """The tag that devices have."""
    canary: str | None = None
    """The tag that some try first."""
    fraction: float = 0.0
    """Share of the devices that try it, 0 to 1."""


@dataclass(frozen=True)
class Device:
    """One device."""

    name: str
    target: str
    model: str
    ring: str = "any"


@dataclass(frozen=True)
class Fleet:
    """An inventory."""

    registry: str
    models: Mapping[str, Model]
    devices: tuple[Device, ...]
    trust: str | None = None
    """Where the devices have the keys of whom they trust, as ``pull`` takes it; not looked at here."""

    def with_fraction(self, fraction: float) -> Fleet:
        """The same with another share of canaries, of every model."""
        return replace(self, models={name: replace(model, fraction=fraction) for name, model in self.models.items()})


@dataclass(frozen=True)
class Assignment:
    """What one device should have."""

    device: str
    target: str
    bundle: str
    """Name and tag in the registry."""
    digest: str
    """The bundle's, as ``info`` and ``verify`` print it."""
    why: str
    command: str
    """What fetches it, on the device."""

    def to_json(self) -> dict[str, Any]:
        """An element of what ``rollout --json`` prints."""
        return asdict(self)


def load_fleet(path: Path) -> Fleet:
    """Reads an inventory.

    Raises:
        RecipeError: it is missing, no TOML, or a key or value in it is not known.
        EngineError: a target is not known.
        RegistryError: a name or tag cannot be one.
    """
    try:
        document = parse_toml(path)
    except OSError as error:
        raise RecipeError(f"{path} cannot be read ({error.strerror}): give a fleet's inventory") from error
    except ValueError as error:
        raise RecipeError(f"{path} is no valid TOML: {error}") from error
    top = Table(path, "the file", document)
    top.check_names([field.name for field in fields(Fleet)])
    registry = top.text("registry")
    models, devices = document.get("models"), document.get("devices")
    if registry is None or not isinstance(models, dict) or not isinstance(devices, list):
        raise RecipeError(f"{path}: an inventory has registry, [models.NAME] and [[devices]]: see docs/fleet.md")
    known = {name: _model(Table(path, f"models.{name}", _table(path, values))) for name, values in models.items()}
    found = tuple(_device(Table(path, "devices", _table(path, values)), known) for values in devices)
    names = [device.name for device in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RecipeError(f"{path}: two devices are called '{twice}': give each a name of its own")
    return Fleet(registry, known, found, top.text("trust"))


def assign(fleet: Fleet, registry: Registry) -> tuple[Assignment, ...]:
    """What each device should have, in the inventory's order.

    Raises:
        RegistryError: the registry has no such tag.
        UnavailableError: it cannot be reached.
    """
    trust = "" if fleet.trust is None else f" --trust {shlex.quote(fleet.trust)}"
    digests: dict[Reference, str] = {}
    found = []
    for device in fleet.devices:
        tag, why = _tag(device, fleet.models[device.model])
        reference = Reference(device.model, tag)
        if reference not in digests:
            digests[reference] = registry.find(reference).digest
        command = f"edge-resnet pull {shlex.quote(fleet.registry)} {reference} -o {device.model}.edge{trust}"
        found.append(Assignment(device.name, device.target, str(reference), digests[reference], why, command))
    return tuple(found)


def _tag(device: Device, model: Model) -> tuple[str, str]:
    if model.canary is None or device.ring == "stable":
        return model.stable, "stable"
    if device.ring == "canary":
        return model.canary, "canary: its ring"
    if place(device, model.canary) < model.fraction:
        return model.canary, f"canary: among the first {100 * model.fraction:g} %"
    return model.stable, "stable"


def place(device: Device, tag: str) -> float:
    """Where a device stands in the order in which a tag comes to devices, from 0 to 1."""
    digest = hashlib.sha256(f"{device.model}:{tag} {device.name}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 256**7


def _table(path: Path, values: object) -> Mapping[str, object]:
    if not isinstance(values, dict):
        raise RecipeError(f"{path}: {values!r:.60} is no table: an inventory has [models.NAME] and [[devices]]")
    return values


def _model(table: Table) -> Model:
    table.check_keys(Model)
    stable, canary, fraction = table.text("stable"), table.text("canary"), table.values.get("fraction", Model.fraction)
    if stable is None:
        raise RecipeError(f"{table.path}: [{table.name}] lacks 'stable': give the tag that devices have")
    if not isinstance(fraction, (int, float)) or isinstance(fraction, bool) or not 0 <= fraction <= 1:
        raise table.wrong("fraction", "give a share of the devices, from 0 to 1")
    for tag in filter(None, (stable, canary)):
        Reference.parse(f"{table.name.removeprefix('models.')}:{tag}")
    return Model(stable, canary, float(fraction))


def _device(table: Table, models: Mapping[str, Model]) -> Device:
    table.check_keys(Device)
    name, target, model = (table.text(key) for key in ("name", "target", "model"))
    if name is None or target is None or model is None:
        raise RecipeError(f"{table.path}: a device of [[devices]] lacks name, target or model: give all three")
    if model not in models:
        raise table.wrong("model", f"choose one of {', '.join(models) or 'none, there is no [models.NAME]'}")
    return Device(name, target_named(target).name, model, table.choice("ring", RINGS, Device.ring))
