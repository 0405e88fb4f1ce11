"""Engines compiled after the bundle was built, on the device itself: ``NAME.TARGET.engine`` beside ``NAME.edge``.

A bundle is never edited. Beside each such engine lies ``NAME.TARGET.json``, which binds it to the bundle by digest;
an engine without a record that matches is not loaded. Whoever can write the folder can write both: where a bundle must be
signed, so must the record, by the line in ``NAME.TARGET.sig``.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import Bundle
from edge_resnet.engines.engine import CompiledEngine
from edge_resnet.engines.targets import all_targets, target_named
from edge_resnet.errors import BundleError, TrustError, UnavailableError
from edge_resnet.frames import FrameFormat
from edge_resnet.limits import check_file, parse_json
from edge_resnet.output import write_marked
from edge_resnet.signatures import as_lines, of_engine, read_lines
from edge_resnet.signing import SigningKey

_LOG = logging.getLogger(__name__)
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
    """Writes an engine and its record, signed if there is a key; the engine last, and an older one is gone before.

    An engine whose record is missing or another's is refused, and the bundle with it: killed at any moment, this leaves
    none of these.
    """
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
    signature = None if key is None else as_lines([key.sign(of_engine(hashlib.sha256(document).hexdigest()))])
    beside = {signature_path(engine_path): signature, engine_path.with_suffix(".json"): document}
    write_marked(beside, engine_path, compiled.data)


def targets_of(path: Path, bundle: Bundle) -> tuple[str, ...]:
    """Targets of a bundle's engines, inside it and beside it; none is read.

    A record without its engine is warned of: somebody took the engine away, or compiling broke off as it was written.
    """
    inside = [entry.target for entry in bundle.manifest.engines if entry.member]
    beside = []
    for target in all_targets():
        place = companion_path(path, target)
        if place.is_file():
            beside.append(target)
        elif place.with_suffix(".json").is_file():
            _LOG.warning("%s is not there, but its record is: compile it again, or remove the record", place)
    return tuple(dict.fromkeys((*inside, *beside)))


def require_engine(path: Path, bundle: Bundle, target: str) -> str:
    """The target's own name, if a bundle has an engine for it.

    Raises:
        UnavailableError: there is none.
    """
    wanted, there = target_named(target).name, targets_of(path, bundle)
    if wanted not in there:
        raise UnavailableError(
            f"{path} has no engine for '{wanted}' (it has {', '.join(there) or 'none'}): "
            f"run `edge-resnet compile {path} --target {wanted}`"
        )
    return wanted


def engine_of(path: Path, bundle: Bundle, target: str) -> KeptEngine:
    """A bundle's engine for a target: the one beside it, else the one inside.

    Raises:
        UnavailableError: there is none.
        BundleError: the one beside has no record, or one that belongs to another bundle or does not match it.
        TrustError: the bundle had to be signed, and the record of the engine beside it is not, by such a key.
    """
    wanted = require_engine(path, bundle, target)
    engine_path = companion_path(path, wanted)
    if engine_path.is_file():
        return _checked(engine_path, wanted, bundle)
    found = {
        entry.target: (entry.member, entry.versions) for entry in bundle.manifest.engines if entry.member is not None
    }
    member, versions = found[wanted]
    return KeptEngine(bundle.read(member), None, versions)


def engines_of(path: Path, bundle: Bundle) -> dict[str, KeptEngine]:
    """All engines of a bundle by target, read and checked; raises as ``engine_of``."""
    return {target: engine_of(path, bundle, target) for target in targets_of(path, bundle)}


def check_records(path: Path, bundle: Bundle, targets: Iterable[str]) -> None:
    """Refuses a bundle beside which an engine lies whose record is not for it, whether it can run here or not.

    Raises:
        BundleError, TrustError: as ``engine_of``, but that the engine itself is not read.
    """
    for target in targets:
        engine_path = companion_path(path, target)
        if engine_path.is_file():
            _checked_record(engine_path, target, bundle)


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
    except ValueError as error:
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


def _checked_record(engine_path: Path, target: str, bundle: Bundle) -> dict[str, Any]:
    document = _record_bytes(engine_path)
    if bundle.trust:
        _require_trusted(engine_path, document, bundle)
    record = _parse_record(engine_path, document)
    if record.get("target") != target or record.get("bundle") != bundle.digest:
        raise BundleError(f"{engine_path} was compiled for another target or from another bundle: {_ADVICE}")
    return record


def _checked(engine_path: Path, target: str, bundle: Bundle) -> KeptEngine:
    record = _checked_record(engine_path, target, bundle)
    check_file(engine_path, "bundle_bytes", BundleError)
    data = engine_path.read_bytes()
    if record.get("engine") != hashlib.sha256(data).hexdigest():
        raise BundleError(f"{engine_path} is not the engine that its record names: {_ADVICE}")
    frames, versions = record.get("frames"), record.get("versions")
    if not isinstance(versions, dict) or not all(isinstance(value, str) for value in versions.values()):
        raise BundleError(f"{engine_path} has a record that does not say what compiled it: {_ADVICE}")
    return KeptEngine(data, None if frames is None else FrameFormat.from_json(frames), versions)
