"""The archive of a bundle: a stored zip in one fixed form, sealed by a SHA-256 in its comment, and perhaps signed there.

Writer and reader share the functions that make headers. The reader makes each header again from its few free fields and
compares, so that a gap, a second name, a flag or a compressed member has nowhere to be. ``docs/bundle.md`` gives the
format byte by byte (zip itself: PKWARE APPNOTE.TXT, section 4.3).
"""

from __future__ import annotations

import hashlib
import re
import stat
import struct
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from edge_resnet.errors import BundleError
from edge_resnet.limits import limits
from edge_resnet.signatures import LINES, Signature, as_lines, read_lines

FORMAT = 1
"""The format version that is written, and the only one that is read."""
MAX_BYTES = 0xFFFF_FFFE
"""The largest offset; one more would mean "see the zip64 record"."""

_MAX_MEMBERS = 0xFFFE
_MAX_NAME = 255
_NAME = re.compile(r"(?!(.*/)?\.\.?(/|$))[A-Za-z0-9._+-]+(/[A-Za-z0-9._+-]+)*")

_LOCAL, _LOCAL_MARK = struct.Struct("<4s5H3I2H"), b"PK\x03\x04"
_CENTRAL, _CENTRAL_MARK = struct.Struct("<4s6H3I5H2I"), b"PK\x01\x02"
_END, _END_MARK = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
_FIXED = (20, 0, 0, 0, 0x0021)
"""Needs zip 2.0, no flags, stored, 00:00:00, 1980-01-01."""
_MADE_BY = 3 << 8 | 20
"""On Unix, so that the permissions count; zip 2.0."""
_PERMISSIONS = (stat.S_IFREG | 0o644) << 16

_MAGIC = b"edge-resnet bundle "
_VERSION = re.compile(_MAGIC + rb"([1-9][0-9]{0,5})\n")
_COMMENT = re.compile(_MAGIC + b"%d\nsha256 ([0-9a-f]{64})\n(%b)" % (FORMAT, LINES))
_COMMENT_BYTES = len(_MAGIC + b"%d\nsha256 \n" % FORMAT) + 64
"""Of a bundle that nobody has signed."""
_MAX_COMMENT_BYTES = 0xFFFF
_LENGTH = struct.Struct("<H")
"""The length of the comment, the last two bytes before it."""


@dataclass(frozen=True)
class Entry:
    """Where a member lies: everything in its zip headers that is not constant."""

    name: str
    offset: int
    """Of its local header, from the start of the file."""
    crc: int
    """CRC-32, which zip wants; it is not what the bundle is checked by."""
    size: int

    @property
    def start(self) -> int:
        """Offset of the member's first byte."""
        return self.offset + _LOCAL.size + len(self.name)

    @property
    def end(self) -> int:
        """Offset after the member's last byte."""
        return self.start + self.size

    def local_header(self) -> bytes:
        """The header that stands before the member."""
        numbers = (self.crc, self.size, self.size, len(self.name), 0)
        return _LOCAL.pack(_LOCAL_MARK, *_FIXED, *numbers) + self.name.encode("ascii")

    def central_header(self) -> bytes:
        """The header that stands in the central directory."""
        numbers = (self.crc, self.size, self.size, len(self.name), 0, 0, 0, 0, _PERMISSIONS, self.offset)
        return _CENTRAL.pack(_CENTRAL_MARK, _MADE_BY, *_FIXED, *numbers) + self.name.encode("ascii")


@dataclass(frozen=True)
class Seal:
    """What stands in the comment, when the digest is that of the bytes. Who signed is not checked here."""

    digest: str
    """SHA-256, in hex, of the bytes before the comment as they are without signatures."""
    signatures: tuple[Signature, ...]
    start: int
    """Offset of the comment, and so the end of all else."""


def check_name(name: str) -> None:
    """Refuses a member name that is not a plain relative path.

    Raises:
        BundleError: it is absolute, has ``..`` or ``.`` in it, other characters than ASCII ones of names, or is long.
    """
    if len(name) > _MAX_NAME or not _NAME.fullmatch(name):
        raise BundleError(
            f"member name {name!r}: use a relative path of ASCII letters, digits and ._+-, up to {_MAX_NAME} of them"
        )


def seal(members: Mapping[str, bytes]) -> list[bytes]:
    """Makes the archive of these members, in their order.

    Returns:
        The pieces of the file, in order; the members are among them, not copied.

    Raises:
        BundleError: a name cannot be used, or all is larger than 4 GiB.
    """
    entries: list[Entry] = []
    for name, data in members.items():
        check_name(name)
        entries.append(Entry(name, entries[-1].end if entries else 0, zlib.crc32(data), len(data)))
    directory = _directory(entries, _COMMENT_BYTES)
    pieces = [piece for entry in entries for piece in (entry.local_header(), members[entry.name])] + [directory]
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return [*pieces, _comment(digest.hexdigest(), ())]


def digest_of(pieces: Sequence[bytes]) -> str:
    """The digest of what ``seal`` gave."""
    found = _COMMENT.match(pieces[-1])
    assert found is not None
    return found[1].decode()


def signed(data: bytes, seal: Seal, signatures: Iterable[Signature]) -> list[bytes]:
    """The pieces of an archive with these signatures in the place of its own; its digest stays what it is."""
    comment = _comment(seal.digest, signatures)
    return [data[: seal.start - _LENGTH.size], _LENGTH.pack(len(comment)), comment]


def read_seal(data: bytes) -> Seal:
    """Reads the comment, and compares all other bytes with the digest in it; nothing else is looked at.

    Raises:
        BundleError: it is something else, cut short, changed, or of a newer format.
    """
    start = data.rfind(_MAGIC, max(0, len(data) - _MAX_COMMENT_BYTES))
    if start < 0:
        if data.startswith(_LOCAL_MARK):
            raise BundleError("cut short, or a zip of another kind: copy it again, whole")
        raise BundleError("not an edge-resnet bundle: give a .edge file")
    version = _VERSION.match(data, start)
    if version and int(version[1]) > FORMAT:
        newer = int(version[1])
        raise BundleError(f"made by a newer edge-resnet: format {newer}, this one reads {FORMAT}: upgrade edge-resnet")
    comment = _COMMENT.match(data, start)
    signatures = None if comment is None else read_lines(comment[2])
    if comment is None or signatures is None:
        raise BundleError("cut short or changed in its last bytes: copy it again")
    if comment.end() != len(data):
        raise BundleError(f"{len(data) - comment.end()} bytes were added at its end: copy it again")
    if data[max(0, start - _LENGTH.size) : start] != _LENGTH.pack(len(data) - start):
        raise BundleError("cut short, or signatures were added or taken away: copy it again")
    digest = hashlib.sha256(memoryview(data)[: start - _LENGTH.size])
    digest.update(_LENGTH.pack(_COMMENT_BYTES))
    if digest.hexdigest() != comment[1].decode("ascii"):
        raise BundleError("its bytes are not the ones that were written (SHA-256 differs): copy it again")
    return Seal(digest.hexdigest(), signatures, start)


def entries_of(data: bytes, seal: Seal) -> dict[str, Entry]:
    """Finds the members of an archive, whose seal has been read, and checks that it has the fixed form.

    Returns:
        The members by name, in their order.

    Raises:
        BundleError: it has another form, or too many members.
    """
    entries: dict[str, Entry] = {}
    position, most = 0, limits().bundle_members
    while data.startswith(_LOCAL_MARK, position):
        entry = _entry_at(data, position)
        if entry.name in entries:
            raise BundleError(f"two members are called '{entry.name}': build it again")
        if len(entries) == most:
            raise BundleError(f"more than {most} members: {limits().advice('bundle_members')}")
        entries[entry.name] = entry
        position = entry.end
    if data[position : seal.start] != _directory(list(entries.values()), len(data) - seal.start):
        raise BundleError("its members and directory do not follow one another exactly: build it again")
    return entries


def _comment(digest: str, signatures: Iterable[Signature]) -> bytes:
    return _MAGIC + f"{FORMAT}\nsha256 {digest}\n".encode("ascii") + as_lines(signatures)


def _directory(entries: Sequence[Entry], comment_bytes: int) -> bytes:
    """The central directory and the end record, without the comment."""
    start = entries[-1].end if entries else 0
    if start > MAX_BYTES or len(entries) > _MAX_MEMBERS:
        raise BundleError(f"{len(entries)} members of {start} bytes in all: a bundle holds less than 4 GiB")
    central = b"".join(entry.central_header() for entry in entries)
    count = len(entries)
    return central + _END.pack(_END_MARK, 0, 0, count, count, len(central), start, comment_bytes)


def _entry_at(data: bytes, position: int) -> Entry:
    header = data[position : position + _LOCAL.size]  # always whole: the comment after the members is longer
    *_, crc, _, size, name_length, _ = _LOCAL.unpack(header)
    raw_name = data[position + _LOCAL.size : position + _LOCAL.size + name_length]
    name = raw_name.decode("ascii", "backslashreplace")
    check_name(name)
    entry = Entry(name, position, crc, size)
    if header + raw_name != entry.local_header():
        raise BundleError(f"member '{name}' is compressed or has zip fields that a bundle does not use: build it again")
    return entry
