"""Engines compiled after the bundle was built, on the device itself: ``NAME.TARGET.engine`` beside ``NAME.edge``.

A bundle is never edited. Beside each such engine lies ``NAME.TARGET.json``, which binds it to the bundle by digest;
an engine without a record that matches is not loaded. Whoever can write the folder can write both: where a bundle must be
signed, so must the record, by the line in ``NAME.TARGET.sig``.
"""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import Bundle
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.targets import all_targets
from edge_resnet.errors import BundleError, TrustError
from edge_resnet.frames import FrameFormat
from edge_resnet.limits import check_file, parse_json
from edge_resnet.output import write_atomically
from edge_resnet.signatures import as_lines, of_engine, read_lines
from edge_resnet.signing import SigningKey

FORMAT = 2
_ADVICE = "remove it, or make it again with `edge-resnet compile`"


def companion_path(bundle: Path, target: str) -> Path:
    """Where the engine for a target lies."""
    return bundle.with_name(f"{bundle.stem}.{target}.engine")


def signature_path(engine: Path) -> Path:
    """Where the signature of an engine's record lies."""
    return engine.with_suffix(".sig")


@dataclass(frozen=True)
class KeptEngine:
    """An engine in a bundle or beside it."""

    data: bytes
    frames: FrameFormat | None
    """What its camera gives, if its graph prepares frames itself; None: it takes prepared frames."""
    versions: dict[str, str]
    """Libraries and devices that it was compiled with and for, and measured on."""


def write_companion(
    engine_path: Path,
    target: str,
    bundle_digest: str,
    compiled: CompiledEngine,
    frames: FrameFormat | None,
    key: SigningKey | None = None,
) -> None:
    """Writes an engine and its record, signed if there is a key; the record last: without it the engine does not count."""
    record = {
        "format": FORMAT,
        "target": target,
        "kind": compiled.kind,
        "bundle": bundle_digest,
        "engine": hashlib.sha256(compiled.data).hexdigest(),
        "versions": compiled.versions,
        "frames": None if frames is None else frames.to_json(),
    }
    document = (json.dumps(record, indent=1) + "\n").encode()
    write_atomically(engine_path, compiled.data)
    if key is not None:
        message = of_engine(hashlib.sha256(document).hexdigest())
        write_atomically(signature_path(engine_path), as_lines([key.sign(message)]))
    else:
        with suppress(OSError):  # an older engine's, which fits this one no longer
            signature_path(engine_path).unlink()
    write_atomically(engine_path.with_suffix(".json"), document)


def engines_of(path: Path, bundle: Bundle) -> dict[str, KeptEngine]:
    """Engines of a bundle by target: those inside it, and those beside it, which come before them.

    Raises:
        BundleError: an engine lies there whose record is missing, belongs to another bundle, or does not match it.
        TrustError: the bundle had to be signed, and the record of an engine beside it is not, by such a key.
    """
    found = {
        entry.target: KeptEngine(bundle.read(entry.member), None, entry.versions)
        for entry in bundle.manifest.engines
        if entry.member
    }
    for target in all_targets():
        engine_path = companion_path(path, target)
        if engine_path.is_file():
            found[target] = _checked(engine_path, target, bundle)
    return found


def read_record(engine_path: Path) -> dict[str, Any]:
    """The record beside an engine.

    Raises:
        BundleError: it is missing or damaged.
    """
    return _parse_record(engine_path, _record_bytes(engine_path))


def _record_bytes(engine_path: Path) -> bytes:
    place = engine_path.with_suffix(".json")
    check_file(place, "document_bytes", BundleError)
    try:
        return place.read_bytes()
    except OSError as error:
        raise BundleError(f"{engine_path} has no readable record ({error}): {_ADVICE}") from error


def _parse_record(engine_path: Path, document: bytes) -> dict[str, Any]:
    try:
        record = parse_json(document)
    except (ValueError, RecursionError) as error:
        raise BundleError(f"{engine_path} has no readable record ({error}): {_ADVICE}") from error
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise BundleError(f"{engine_path} has a record of another kind: {_ADVICE}")
    return record


def _require_trusted(engine_path: Path, document: bytes, bundle: Bundle) -> None:
    """Refuses a record that no trusted key has signed, before it is parsed.

    Raises:
        TrustError: as ``engines_of``.
    """
    place = signature_path(engine_path)
    check_file(place, "document_bytes", BundleError)
    try:
        signatures = read_lines(place.read_bytes())
    except FileNotFoundError:
        signatures = ()
    except OSError as error:
        raise BundleError(f"{place} cannot be read: {error.strerror}: {_ADVICE} --sign-with KEY") from error
    if not signatures:
        raise TrustError(
            f"engine {engine_path} is not signed, and {bundle.trust[0].source} is to be trusted: remove it, or make it "
            f"again with `edge-resnet compile --sign-with KEY`"
        )
    for keys in bundle.trust:
        keys.require(f"engine {engine_path}", of_engine(hashlib.sha256(document).hexdigest()), signatures)


def _checked(engine_path: Path, target: str, bundle: Bundle) -> KeptEngine:
    document = _record_bytes(engine_path)
    if bundle.trust:
        _require_trusted(engine_path, document, bundle)
    record = _parse_record(engine_path, document)
    check_file(engine_path, "bundle_bytes", BundleError)
    data = engine_path.read_bytes()
    if record.get("target") != target or record.get("bundle") != bundle.digest:
        raise BundleError(f"{engine_path} was compiled for another target or from another bundle: {_ADVICE}")
    if record.get("engine") != hashlib.sha256(data).hexdigest():
        raise BundleError(f"{engine_path} is not the engine that its record names: {_ADVICE}")
    frames, versions = record.get("frames"), record.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise BundleError(f"{engine_path} has a record that does not say what compiled it: {_ADVICE}")
    return KeptEngine(data, None if frames is None else FrameFormat.from_json(frames), versions)
