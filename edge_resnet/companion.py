"""Engines compiled after the bundle was built, on the device itself: ``NAME.TARGET.engine`` beside ``NAME.edge``.

A bundle is never edited. Beside each such engine lies ``NAME.TARGET.json``, which binds it to the bundle by digest;
an engine without a record that matches is not loaded.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import Bundle
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.targets import all_targets
from edge_resnet.errors import BundleError
from edge_resnet.frames import FrameFormat
from edge_resnet.output import write_atomically

FORMAT = 2
_ADVICE = "remove it, or make it again with `edge-resnet compile`"


def companion_path(bundle: Path, target: str) -> Path:
    """Where the engine for a target lies."""
    return bundle.with_name(f"{bundle.stem}.{target}.engine")


@dataclass(frozen=True)
class KeptEngine:
    """An engine in a bundle or beside it."""

    data: bytes
    frames: FrameFormat | None
    """What its camera gives, if its graph prepares frames itself; None: it takes prepared frames."""
    versions: dict[str, str]
    """Libraries and devices that it was compiled with and for, and measured on."""


def write_companion(
    engine_path: Path, target: str, bundle_digest: str, compiled: CompiledEngine, frames: FrameFormat | None
) -> None:
    """Writes an engine and its record; the record last, for without it the engine does not count."""
    record = {
        "format": FORMAT,
        "target": target,
        "kind": compiled.kind,
        "bundle": bundle_digest,
        "engine": hashlib.sha256(compiled.data).hexdigest(),
        "versions": compiled.versions,
        "frames": None if frames is None else frames.to_json(),
    }
    write_atomically(engine_path, compiled.data)
    write_atomically(engine_path.with_suffix(".json"), (json.dumps(record, indent=1) + "\n").encode())


def engines_of(path: Path, bundle: Bundle) -> dict[str, KeptEngine]:
    """Engines of a bundle by target: those inside it, and those beside it, which come before them.

    Raises:
        BundleError: an engine lies there whose record is missing, belongs to another bundle, or does not match it.
    """
    found = {
        entry.target: KeptEngine(bundle.read(entry.member), None, entry.versions)
        for entry in bundle.manifest.engines
        if entry.member
    }
    for target in all_targets():
        engine_path = companion_path(path, target)
        if engine_path.is_file():
            found[target] = _checked(engine_path, target, bundle.digest)
    return found


def read_record(engine_path: Path) -> dict[str, Any]:
    """The record beside an engine.

    Raises:
        BundleError: it is missing or damaged.
    """
    try:
        record = json.loads(engine_path.with_suffix(".json").read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise BundleError(f"{engine_path} has no readable record ({error}): {_ADVICE}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BundleError(f"{engine_path} has a record of another kind: {_ADVICE}")
    return record


def _checked(engine_path: Path, target: str, bundle_digest: str) -> KeptEngine:
    record = read_record(engine_path)
    data = engine_path.read_bytes()
    if record.get("target") != target or record.get("bundle") != bundle_digest:
        raise BundleError(f"{engine_path} was compiled for another target or from another bundle: {_ADVICE}")
    if record.get("engine") != hashlib.sha256(data).hexdigest():
        raise BundleError(f"{engine_path} is not the engine that its record names: {_ADVICE}")
    frames, versions = record.get("frames"), record.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise BundleError(f"{engine_path} has a record that does not say what compiled it: {_ADVICE}")
    return KeptEngine(data, None if frames is None else FrameFormat.from_json(frames), versions)
