"""TensorRT versions that cannot be installed here, played by TensorRT-RTX, which can: a mask over the real module.

The mask shows exactly the classes, members and enumerations that a version has, with that version's numbers, and passes
what is done with them to the real library. A name that the version lacks raises AttributeError, whoever asks. A name that
the version has and TensorRT-RTX has not (``BuilderFlag.INT8``) can be used, is written down in ``withheld``, and goes no
further. Modules, classes, instances and enumerations are masked alike, so it does for compiling and for running.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorrt_rtx

INTERFACES = Path(__file__).parents[3] / "shared" / "data" / "tensorrt-api"
"""Read off the real packages: class → members, and numbers of an enumeration. Not part of this repository."""
SUBCLASSED = ("ILogger", "IProgressMonitor")
"""Classes that our code derives from: the library wants its own."""
RAW = ("IHostMemory", "Dims")
"""Plain values."""

Interface = dict[str, dict[str, Any]]


def interface_of(version: str) -> Interface:
    """What a version has."""
    found: Interface = json.loads((INTERFACES / f"{version}.json").read_text(encoding="utf-8"))
    return found


class MaskedModule(ModuleType):
    """``tensorrt`` in some version; equal to the real module, so that both have one logger."""

    def __init__(self, version: str, sm: int, replies: dict[tuple[str, str], object] | None = None) -> None:
        """Plays a version.

        Args:
            version: a file in ``INTERFACES``, without its suffix.
            sm: what the real library compiles for; TensorRT would take it from the GPU.
            replies: (class, member) → what reading the member gives, in the place of the real library's answer.
        """
        super().__init__("tensorrt")
        self.__version__ = version
        self.interface = interface_of(version)
        self.sm = sm
        self.replies = replies or {}
        self.used: set[str] = set()
        self.withheld: list[str] = []

    def __hash__(self) -> int:
        return hash(tensorrt_rtx)

    def __eq__(self, other: object) -> bool:
        return other is tensorrt_rtx or isinstance(other, MaskedModule)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in self.interface:
            raise AttributeError(f"TensorRT {self.__version__} has no {name}")
        self.used.add(name)
        if "enum" in self.interface[name]:
            return MaskedEnum(self, name)
        real = getattr(tensorrt_rtx, name)
        return real if name in SUBCLASSED else MaskedClass(self, name, real)

    def wrap(self, value: Any) -> Any:
        """A result of the real library, masked."""
        kind = type(value)
        name = kind.__name__
        if name.startswith(RAW) or not kind.__module__.startswith("tensorrt") or name.startswith(SUBCLASSED):
            return value
        if hasattr(kind, "__members__"):
            return Member(self, name, value.name, given=True)
        return MaskedObject(self, value)

    def unwrap(self, value: Any) -> Any:
        """An argument for the real library."""
        return value.real if isinstance(value, (Member, MaskedObject)) else value


class MaskedEnum:
    """An enumeration with the numbers of its version."""

    def __init__(self, module: MaskedModule, name: str) -> None:
        self.module, self.name = module, name

    def __getattr__(self, name: str) -> Member:
        return Member(self.module, self.name, name)


class Member:
    """One value of an enumeration; ``real`` is None where TensorRT-RTX has none of this name."""

    def __init__(self, module: MaskedModule, kind: str, name: str, *, given: bool = False) -> None:
        """``given`` by the real library: then it may be one that the version lacks, such as INT64 in TensorRT 8."""
        numbers = module.interface[kind]["enum"]
        if name not in numbers and not given:
            raise AttributeError(f"TensorRT {module.__version__} has no {kind}.{name}")
        self.kind, self.name, self.value = kind, name, numbers.get(name, -1)
        self.real = getattr(getattr(tensorrt_rtx, kind, None), name, None)
        if not given:
            module.used.add(str(self))

    def __int__(self) -> int:
        return int(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Member) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __str__(self) -> str:
        return f"{self.kind}.{self.name}"


class MaskedClass:
    """A class of the library, to be called."""

    def __init__(self, module: MaskedModule, name: str, real: Callable[..., Any]) -> None:
        self.module, self.name, self.real = module, name, real

    def __call__(self, *arguments: Any) -> MaskedObject:
        return MaskedObject(self.module, self.real(*map(self.module.unwrap, arguments)))


class MaskedObject:
    """An instance: it has what its class, and those that it derives from, have in the version."""

    module: MaskedModule
    real: Any

    def __init__(self, module: MaskedModule, real: Any) -> None:
        self.__dict__.update(module=module, real=real)

    def owner(self, member: str) -> str:
        """The class that has a member."""
        kinds = [kind.__name__ for kind in type(self.real).__mro__ if kind.__name__ in self.module.interface]
        for kind in kinds:
            if member in self.module.interface[kind]["members"]:
                self.module.used.add(f"{kind}.{member}")
                return kind
        raise AttributeError(f"TensorRT {self.module.__version__} has no {type(self.real).__name__}.{member}")

    def __getattr__(self, name: str) -> Any:
        owner = self.owner(name)
        if (owner, name) in self.module.replies:
            return self.module.replies[owner, name]
        value = getattr(self.real, name)
        if not callable(value):
            return self.module.wrap(value)
        return _INSTEAD.get((owner, name), _call)(self.module, f"{owner}.{name}", value)

    def __setattr__(self, name: str, value: Any) -> None:
        owner = self.owner(name)
        if isinstance(value, Member) and value.real is None:
            self.module.withheld.append(f"{owner}.{name} = {value}")
        else:
            setattr(self.real, name, self.module.unwrap(value))

    def __bool__(self) -> bool:
        return bool(self.real)


def _call(module: MaskedModule, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def masked(*arguments: Any) -> Any:
        withheld = [value for value in arguments if isinstance(value, Member) and value.real is None]
        if withheld:
            module.withheld.append(f"{name}({', '.join(map(str, withheld))})")
            return None
        return module.wrap(method(*map(module.unwrap, arguments)))

    return masked


def _create_network(module: MaskedModule, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    """Reads the flags with the version's numbers. The real library types every network strongly."""

    def masked(flags: int = 0) -> Any:
        kind = "NetworkDefinitionCreationFlag"
        numbers = module.interface[kind]["enum"]
        given = [Member(module, kind, flag) for flag, number in numbers.items() if flags & (1 << number)]
        assert flags == sum(1 << int(flag) for flag in given), f"{flags} has bits that mean nothing"
        module.withheld += [f"{name}({flag})" for flag in given if flag.real is None]
        return module.wrap(method(1 << int(tensorrt_rtx.NetworkDefinitionCreationFlag.STRONGLY_TYPED)))

    return masked


def _create_builder_config(module: MaskedModule, name: str, method: Callable[..., Any]) -> Callable[..., Any]:
    def masked() -> Any:
        config = method()
        config.num_compute_capabilities = 1
        config.set_compute_capability(getattr(tensorrt_rtx.ComputeCapability, f"SM{module.sm}"), 0)
        return module.wrap(config)

    return masked


_INSTEAD: dict[tuple[str, str], Callable[[MaskedModule, str, Callable[..., Any]], Callable[..., Any]]] = {
    ("Builder", "create_network"): _create_network,
    ("Builder", "create_builder_config"): _create_builder_config,
}
"""Calls that mean another thing to TensorRT-RTX."""
