"""Bundles to a registry and from one, going on where an earlier attempt broke off."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_resnet.bundle import open_bundle
from edge_resnet.errors import BundleError, RegistryError, TrustError
from edge_resnet.output import append_from, check_writable, write_atomically
from edge_resnet.progress import Progress
from edge_resnet.registry.content import Kept, Registry, described, parts_of
from edge_resnet.registry.names import Reference


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
    """Sends a bundle's parts, then lets the tag mean it.

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
        OutputError: it is a folder, and cannot be written.
    """
    opened = open_bundle(bundle, trust)
    digest, data = opened.digest, opened.file  # not read again: another file may lie there by now
    kept, sent = described(data, digest), 0
    with progress.stage(f"push {reference}", len(data)):
        for part, piece in zip(kept.parts, parts_of(data), strict=True):
            sent += len(piece) if registry.write_part(reference, part, piece) else 0
            progress.advance(len(piece))
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
    kept = registry.find(reference)
    folder = output.with_name(f".{output.name}.{kept.file[:16]}.pull")
    folder.mkdir(exist_ok=True)
    with progress.stage(f"pull {reference}", kept.bytes):
        parts = dict.fromkeys(kept.parts)
        fetched = sum(_fetch(registry, reference, part, folder / part, progress) for part in parts)
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


def _fetch(registry: Registry, reference: Reference, part: str, place: Path, progress: Progress) -> int:
    """Brings one part, or what is not there of it yet; returns the bytes that came.

    Raises:
        RegistryError: it is not what its name says.
    """
    there = place.stat().st_size if place.is_file() else 0
    if there and _is(place, part):
        progress.advance(there)
        return 0
    came = 0
    for start in dict.fromkeys((there, 0)):  # again from its start, where what was there is not its beginning
        rest = registry.read_part(reference, part, start)
        came += append_from(place, rest.start, _told(rest.pieces, progress))
        if _is(place, part):
            return came
    place.unlink()
    raise RegistryError(f"{registry.address}: the part {part[:16]} is damaged: remove it there, and push again")


def _is(place: Path, part: str) -> bool:
    return hashlib.sha256(place.read_bytes()).hexdigest() == part


def _told(pieces: Iterable[bytes], progress: Progress) -> Iterator[bytes]:
    for piece in pieces:
        yield piece
        progress.advance(len(piece))


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
