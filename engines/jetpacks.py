"""Which release of JetPack a Jetson has, or shall be compiled for, among those that its target lists."""

from __future__ import annotations

from collections.abc import Callable

from edge_resnet.engines.targets import JetPack, Target
from edge_resnet.errors import EngineError

_OLDEST_PYTHON = (3, 10)
"""Of this package: a JetPack with an older one is served by ``trtexec``."""


def jetpack_named(target: Target, version: str | None) -> JetPack:
    """Looks a release up by its version; None is the newest.

    Raises:
        EngineError: the target is no Jetson, or does not list the release; the message lists those it does.
    """
    if not target.jetpacks:
        raise EngineError(f"target '{target.name}' is no Jetson: only they have a JetPack, and so a known TensorRT")
    if version is None:
        return target.jetpacks[-1]
    found = _within(target, version, lambda release: release.version)
    if found is None:
        known = ", ".join(release.version for release in target.jetpacks)
        raise EngineError(f"no JetPack '{version}' for {target.name}: choose one of {known}")
    return found


def jetpack_of_l4t(target: Target, l4t: str) -> JetPack | None:
    """The release that brings this Jetson Linux, as in ``36.4.3``; None where the target lists none."""
    return _within(target, l4t, lambda release: release.l4t)


def without_python(release: JetPack) -> bool:
    """Whether its Python is older than this package takes."""
    return _numbers(release.python)[:2] < _OLDEST_PYTHON


def never_with_python(target: Target) -> bool:
    """Whether it is a Jetson none of whose releases has a Python that this package takes."""
    return bool(target.jetpacks) and all(map(without_python, target.jetpacks))


def _within(target: Target, version: str, of: Callable[[JetPack], str]) -> JetPack | None:
    """The release whose range, such as ``35.2.1 to 35.6.4``, holds a version; 36.4 is 36.4.0."""
    try:
        wanted = _numbers(version)
    except ValueError:
        return None
    for release in target.jetpacks:
        first, _, last = of(release).partition(" to ")
        if _numbers(first) <= wanted <= _numbers(last or first):
            return release
    return None


def _numbers(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in version.split(".")]
    return tuple(parts + [0] * (3 - len(parts)))
