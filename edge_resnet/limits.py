"""Limits: how much a file may make this process read, unpack or build, whoever wrote it.

Each is checked before memory is taken for what it bounds. ``EDGE_RESNET_LIMITS=image_pixels=400e6,recipe_bytes=1e6`` sets
some otherwise, for commands and programs alike. ``docs/threats.md`` says what each is against.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from edge_resnet.errors import EdgeResnetError

VARIABLE = "EDGE_RESNET_LIMITS"


@dataclass(frozen=True)
class Limits:
    """The largest that is taken of each; all are whole numbers, 1 or more."""

    bundle_bytes: int = 2 << 30
    """A ``.edge`` file, which is read into memory; 4 GiB is the most that its form can hold."""
    bundle_members: int = 1024
    document_bytes: int = 8 << 20
    """JSON and lists: a manifest, a calibration table, an engine's record, labels. 100,000 calibration images fit."""
    json_depth: int = 64
    """Objects and lists inside one another."""
    recipe_bytes: int = 64 << 10
    """A recipe, or a preprocessing file."""
    image_pixels: int = 89_478_485
    """Width × height, before it is decoded: where Pillow warns. Over twice that, Pillow itself refuses."""
    onnx_bytes: int = (2 << 30) - 1
    """An ONNX file, and its weights with those in files beside it; protobuf can hold no more."""
    checkpoint_bytes: int = 4 << 30
    """A checkpoint, and what its tensors are unpacked."""

    def advice(self, name: str) -> str:
        """What to do about a limit: the end of an error's line."""
        return f"the limit {name} is {getattr(self, name)}: if this file is meant, raise it with {VARIABLE}={name}=N"


def limits() -> Limits:
    """The limits that hold now.

    Raises:
        EdgeResnetError: the environment's are no limits.
    """
    return _parsed(os.environ.get(VARIABLE, ""))


@lru_cache(maxsize=8)
def _parsed(text: str) -> Limits:
    names = [field.name for field in fields(Limits)]
    given: dict[str, int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.partition("=")
        if name not in names or name in given:
            raise EdgeResnetError(f"{VARIABLE} has '{part:.60}': give each once of {', '.join(names)}, as name=number")
        given[name] = _count(name, number)
    return replace(Limits(), **given)


def _count(name: str, text: str) -> int:
    """A whole number, also as ``400e6``."""
    if not re.fullmatch(r"[0-9]{1,18}(\.[0-9]{1,9})?(e[0-9]{1,2})?", text) or not 1 <= float(text) < 1e18:
        raise EdgeResnetError(
            f"{VARIABLE} has {name}={text:.40}: give a whole number, 1 or more, as 400000000 or 400e6"
        )
    return int(float(text)) if re.search(r"[.e]", text) else int(text)


def check_file(path: Path, name: str, error: type[EdgeResnetError]) -> None:
    """Refuses a file that is larger than a limit, before it is read; what cannot be looked at is left to the reader.

    Raises:
        EdgeResnetError: of the class ``error``: it is larger.
    """
    try:
        size = path.stat().st_size
    except OSError:
        return
    check(size, name, str(path), error, "bytes")


def check(value: int, name: str, what: str, error: type[EdgeResnetError], unit: str) -> None:
    """Refuses what is larger than a limit.

    Raises:
        EdgeResnetError: of the class ``error``: it is larger.
    """
    if value > getattr(limits(), name):
        raise error(f"{what} has {value} {unit}: {limits().advice(name)}")


def check_depth(data: bytes, what: str, error: type[EdgeResnetError]) -> None:
    """Refuses JSON that is nested too deep, before it is parsed.

    Raises:
        EdgeResnetError: of the class ``error``: it is.
    """
    if _deeper(data, limits().json_depth):
        raise error(f"{what}: objects and lists stand too deep in one another: {limits().advice('json_depth')}")


_STRUCTURE = re.compile(rb'["\\\[\]{}]')


def parse_json(data: bytes, object_pairs_hook: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Parses JSON of a bounded size and depth, both found out before anything is built. Numbers are finite.

    Raises:
        ValueError: it is larger or deeper, no UTF-8, no JSON, or holds ``NaN`` or ``Infinity``.
    """
    bounds = limits()
    if len(data) > bounds.document_bytes:
        raise ValueError(f"it has {len(data)} bytes: {bounds.advice('document_bytes')}")
    if _deeper(data, bounds.json_depth):
        raise ValueError(f"objects and lists stand too deep in one another: {bounds.advice('json_depth')}")
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=object_pairs_hook, parse_constant=_refuse_constant)
    except RecursionError as error:  # where the limit was set above Python's own
        raise ValueError("objects and lists stand too deep in one another for Python") from error


def _deeper(data: bytes, most: int) -> bool:
    """Whether brackets outside of strings are nested deeper; goes through the text once, and builds nothing."""
    depth, inside, escaped = 0, False, -1
    for found in _STRUCTURE.finditer(data):
        mark, place = found[0], found.start()
        if place == escaped:
            continue
        if inside:
            if mark == b"\\":
                escaped = place + 1
            elif mark == b'"':
                inside = False
        elif mark == b'"':
            inside = True
        elif mark in b"[{":
            depth += 1
            if depth > most:
                return True
        elif mark in b"]}":
            depth -= 1
    return False


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")
