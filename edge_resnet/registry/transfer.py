"""Bundles to a registry and from one, going on where an earlier attempt broke off."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import open_bundle
from edge_resnet.errors import BundleError, RegistryError, TrustError
from edge_resnet.output import check_writable, write_atomically
from edge_resnet.progress import Progress
from edge_resnet.registry.names import Reference
from edge_resnet.registry.store import Kept, Registry, described, parts_of


@dataclass(frozen=True)
class Pushed:
    """What a push did."""

    reference: str
    file: str
    digest: str
    bytes: int
    sent: int
    """Bytes that were not there already."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``push --json`` prints."""
        return asdict(self)


@dataclass(frozen=True)
class Pulled:
    """What a pull did."""

    reference: str
    bundle: str
    file: str
    digest: str
    bytes: int
    fetched: int
    """Bytes that had not come in an earlier attempt."""

    def to_json(self) -> dict[str, Any]:
        """The document that ``pull --json`` prints."""
        return asdict(self)


def push(
    bundle: Path, registry: Registry, reference: Reference, progress: Progress, trust: Path | None = None
) -> Pushed:
    """Sends a bundle's parts, then says what it is made of, then lets the tag mean it.

    Args:
        bundle: the ``.edge`` file.
        registry: where to.
        reference: what it shall be called.
        progress: told of bytes.
        trust: whose bundles may be pushed, as ``open_bundle`` takes it.

    Raises:
        BundleError: it is damaged or no bundle.
        TrustError: no trusted key has signed it.
        UnavailableError: the registry cannot be reached or written.
    """
    opened = open_bundle(bundle, trust)
    digest, data = opened.digest, opened.file  # not read again: another file may lie there by now
    kept, sent = described(data, digest), 0
    with progress.stage(f"push {reference}", len(data)):
        for part in parts_of(data):
            sent += len(part) if registry.write_part(part) else 0
            progress.advance(len(part))
    registry.write_file(kept)
    registry.write_tag(reference, kept)
    return Pushed(str(reference), kept.file, digest, kept.bytes, sent)


def pull(
    registry: Registry, reference: Reference, output: Path, progress: Progress, trust: Path | None = None
) -> Pulled:
    """Fetches the bundle that a tag means; parts that have come stay beside the output until it is whole.

    Args:
        registry: where from.
        reference: which.
        output: the ``.edge`` file to write; what is there stays until the new one is whole, and trusted.
        progress: told of bytes.
        trust: whose bundles are taken, as ``open_bundle`` takes it.

    Raises:
        RegistryError: there is no such tag, or something in the registry is damaged.
        BundleError: what came is no bundle.
        TrustError: no trusted key has signed it.
        UnavailableError: the registry cannot be reached.
        OutputError: the place cannot be written.
    """
    check_writable(output)
    kept = registry.describe(registry.resolve(reference))
    folder = output.with_name(f".{output.name}.{kept.file[:16]}.pull")
    folder.mkdir(exist_ok=True)
    with progress.stage(f"pull {reference}", kept.bytes):
        fetched = sum(_fetch(registry, part, folder, progress) for part in dict.fromkeys(kept.parts))
    whole = folder / "whole.edge"
    write_atomically(whole, _joined(folder, kept))
    try:
        opened = open_bundle(whole, trust)
        if opened.digest != kept.digest:
            raise RegistryError(f"{registry.address}: '{reference}' is not the bundle that it says: push it again")
    except (BundleError, RegistryError, TrustError):
        shutil.rmtree(folder)  # the same parts would be refused again
        raise
    finally:
        whole.unlink(missing_ok=True)
    write_atomically(output, opened.file)
    shutil.rmtree(folder)
    return Pulled(str(reference), str(output), kept.file, kept.digest, kept.bytes, fetched)


def _fetch(registry: Registry, part: str, folder: Path, progress: Progress) -> int:
    """Brings one part, unless it is there; returns the bytes that came."""
    place = folder / part
    if place.is_file() and hashlib.sha256(place.read_bytes()).hexdigest() == part:
        progress.advance(place.stat().st_size)
        return 0
    data = registry.read_part(part)
    write_atomically(place, data)
    progress.advance(len(data))
    return len(data)


def _joined(folder: Path, kept: Kept) -> Iterator[bytes]:
    """The file, part by part; nothing is left of it when it is not the one that was pushed."""
    digest = hashlib.sha256()
    for part in kept.parts:
        data = (folder / part).read_bytes()
        digest.update(data)
        yield data
    if digest.hexdigest() != kept.file:
        raise RegistryError(
            f"the parts make another file than {kept.file[:16]}: the registry is damaged, push it again"
        )
