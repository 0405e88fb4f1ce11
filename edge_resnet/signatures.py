"""Ed25519 signatures as text, one a line: in the comment of a bundle, and in the ``.sig`` file beside an engine.

    ed25519 <public key, 64 hexadecimal digits> <signature, 128>

Here are the words alone, for the reader of archives; ``trust`` checks them, ``signing`` makes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

MAX_SIGNATURES = 8
"""More than a change of keys needs: while devices still trust only the old key, a bundle is signed with both."""

_LINE = rb"ed25519 ([0-9a-f]{64}) ([0-9a-f]{128})\n"
LINES = rb"(?:ed25519 [0-9a-f]{64} [0-9a-f]{128}\n){0,%d}" % MAX_SIGNATURES
"""What the lines match, as a regular expression."""


@dataclass(frozen=True, order=True)
class Signature:
    """A signature, and the public key that it says to be of; nothing is checked yet."""

    key: str
    """The 32 bytes of the public key, in hex."""
    value: str
    """The 64 bytes of the signature, in hex."""


def as_lines(signatures: Iterable[Signature]) -> bytes:
    """The lines, sorted by key, so that the order of signing leaves no trace."""
    return "".join(f"ed25519 {each.key} {each.value}\n" for each in sorted(signatures)).encode("ascii")


def read_lines(data: bytes) -> tuple[Signature, ...] | None:
    """Reads what ``as_lines`` gave; None when it is anything else, or a key occurs twice."""
    if not re.fullmatch(LINES, data):
        return None
    found = tuple(Signature(key.decode(), value.decode()) for key, value in re.findall(_LINE, data))
    return found if len({each.key for each in found}) == len(found) else None


def of_bundle(digest: str) -> bytes:
    """What is signed of a bundle; it begins otherwise than an engine's, so that neither passes for the other."""
    return f"edge-resnet bundle signature\nformat 1\nsha256 {digest}\n".encode("ascii")


def of_engine(record_sha256: str) -> bytes:
    """What is signed of an engine beside a bundle: the digest of its record, which has the digests of the other two."""
    return f"edge-resnet engine signature\nformat 1\nsha256 {record_sha256}\n".encode("ascii")
