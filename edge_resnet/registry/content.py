"""What a registry holds, whatever it lies in: bundles in parts, each part under the SHA-256 of its bytes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any, Protocol

from edge_resnet.addresses import without_password
from edge_resnet.errors import EdgeResnetError, RegistryError, UnavailableError
from edge_resnet.limits import limits
from edge_resnet.registry.names import Reference

PART = 8 << 20
"""Bytes of a part, but the last."""
SHOWN_TAGS = 10
_HASH = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Kept:
    """One file of a registry."""

    file: str
    """SHA-256 of all its bytes, signatures included."""
    digest: str
    """Its bundle's identity, which signatures do not change."""
    bytes: int
    parts: tuple[str, ...]
    """SHA-256 of each, in order."""


@dataclass(frozen=True)
class Rest:
    """What comes of a part."""

    start: int
    """From which byte: 0 where a storage cannot begin in the middle, whatever it was asked for."""
    pieces: Iterator[bytes]
    """Reading them raises what ``Registry.read_part`` does."""


class Registry(Protocol):
    """A registry that can be reached; ``open_registry`` makes one.

    Each method raises UnavailableError where the storage cannot be reached, or does not let one in.
    """

    @property
    def address(self) -> str:
        """Where it is, without a password."""

    def tags(self, name: str) -> list[str]:
        """The tags of a name, sorted; none where nobody has pushed it."""

    def listing(self, name: str | None = None) -> Iterator[tuple[Reference, Kept]]:
        """Every tag, or every tag of a name, and the file that it means.

        Raises:
            RegistryError: a document is damaged, or the storage lists the tags of a name alone.
        """

    def find(self, reference: Reference) -> Kept:
        """The file that a tag means.

        Raises:
            RegistryError: there is no such tag, or a document is damaged, or too large for a bundle.
        """

    def read_part(self, reference: Reference, part: str, start: int) -> Rest:
        """A part's bytes from one on; nobody has held them against its hash.

        Raises:
            RegistryError: it is not there, or is larger than a part.
        """

    def write_part(self, reference: Reference, part: str, data: bytes) -> bool:
        """Keeps a part under its hash; False when it was there."""

    def write_tag(self, reference: Reference, kept: Kept) -> None:
        """Lets a tag mean a file from now on, all of whose parts are there."""


def parts_of(data: bytes) -> Iterator[bytes]:
    """A file in parts."""
    yield from (data[start : start + PART] for start in range(0, len(data), PART))


def described(data: bytes, digest: str) -> Kept:
    """What a registry says of a file."""
    parts = tuple(hashlib.sha256(part).hexdigest() for part in parts_of(data))
    return Kept(hashlib.sha256(data).hexdigest(), digest, len(data), parts)


def as_json(reference: Reference, kept: Kept) -> dict[str, Any]:
    """A row of what ``edge-resnet registry --json`` prints."""
    return {
        "name": reference.name,
        "tag": reference.tag,
        **{key: value for key, value in asdict(kept).items() if key != "parts"},
    }


def read_kept(address: str, place: str, document: dict[str, Any]) -> Kept:
    """What a registry says of a file, of the keys of ``Kept``.

    Args:
        address: the registry's, for messages.
        place: the document's.
        document: JSON values, that anybody can have written.

    Raises:
        RegistryError: it is damaged, or too large for a bundle.
    """
    size, parts = document.get("bytes"), document.get("parts")
    if not isinstance(size, int) or not isinstance(parts, list) or len(parts) != -(-size // PART):
        raise RegistryError(f"{address}: {place} is damaged: push its bundle again")
    if size > limits().bundle_bytes:
        raise RegistryError(f"{address}: {place} is of {size} bytes: {limits().advice('bundle_bytes')}")
    hashes = tuple(read_hash({"part": part}, "part", place) for part in parts)
    return Kept(read_hash(document, "file", place), read_hash(document, "digest", place), size, hashes)


def read_hash(document: dict[str, Any], key: str, place: str) -> str:
    """A SHA-256 in a document.

    Raises:
        RegistryError: it is none, but a path, say.
    """
    found = document.get(key)
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise RegistryError(f"{place}: '{key}' is {found!r:.80}, no SHA-256: the registry is damaged, push again")
    return found


def no_such(registry: Registry, reference: Reference) -> RegistryError:
    """Says that a tag is not there, and which are."""
    tags = registry.tags(reference.name)
    more = f" and {len(tags) - SHOWN_TAGS} more" if len(tags) > SHOWN_TAGS else ""
    known = (
        f"of that name it has {', '.join(tags[:SHOWN_TAGS])}{more}"
        if tags
        else f"nothing of that name is there: push it, or see `edge-resnet registry {registry.address}`"
    )
    return RegistryError(f"{registry.address} has no '{reference}': {known}")


@contextmanager
def reached(address: str) -> Iterator[None]:
    """Turns whatever a storage raises into one line."""
    try:
        yield
    except EdgeResnetError:
        raise
    except Exception as error:  # every storage has errors of its own, with no common base
        why = without_password(" ".join(f"{type(error).__name__}: {error}".split()))
        raise UnavailableError(
            f"{address} cannot be used ({why}): check the address, the network and the rights there"
        ) from error
