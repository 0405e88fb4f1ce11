"""How large the archive of a torch checkpoint is unpacked, found out before torch unpacks it.

torch has a zip reader of its own (miniz), and Python's ``zipfile`` forgives other things than that one: a file can hold two
directories, of which each reader believes another. So an archive is measured by ``zipfile`` only where both must see the
same: its directory ends where the end record begins, as ``torch.save`` writes it (PKWARE APPNOTE.TXT, 4.3.14 to 4.3.16).
"""

from __future__ import annotations

import struct
import zipfile
from pathlib import Path

from edge_resnet.errors import ModelError
from edge_resnet.limits import check

_MEMBER = b"PK\x03\x04"
"""How a file begins that torch takes for an archive; others it reads as its older forms, which are not compressed."""
_END = struct.Struct("<4s4H2IH")
_LOCATOR = struct.Struct("<4sIQI")
_END64 = struct.Struct("<4sQ2H2I4Q")


def check_unpacked(path: Path) -> None:
    """Refuses an archive whose members are larger than the limit unpacked: torch's are not compressed, others' may be.

    Raises:
        ModelError: they are.
        ValueError: it is an archive to torch, and in another form than ``torch.save`` gives one.
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        if file.read(len(_MEMBER)) != _MEMBER:
            return
        size = file.seek(0, 2)
        file.seek(max(0, size - _END.size - _LOCATOR.size - _END64.size))
        _require_one_directory(file.read(), size)
        try:
            with zipfile.ZipFile(file) as archive:
                unpacked = sum(member.file_size for member in archive.infolist())
        except (zipfile.BadZipFile, NotImplementedError) as error:  # torch looks at fewer fields, and would unpack it
            raise ValueError(str(error)) from error
    check(unpacked, "checkpoint_bytes", str(path), ModelError, "bytes unpacked")


def _require_one_directory(tail: bytes, size: int) -> None:
    """Refuses what two readers could take for two archives.

    Args:
        tail: the file's last bytes, up to as many as the three end records have.
        size: of the file.

    Raises:
        ValueError: there is a comment, or the records name another place for the directory than the one before them.
    """
    if len(tail) < _END.size:
        raise ValueError("it is too short")
    mark, *_, length, offset, comment = _END.unpack(tail[-_END.size :])
    end = size - _END.size
    if mark != b"PK\x05\x06" or comment:
        raise ValueError("it does not end with an end record")
    if tail[-_END.size - _LOCATOR.size :].startswith(b"PK\x06\x07") and len(tail) > _END.size + _LOCATOR.size:
        end -= _LOCATOR.size + _END64.size
        _, _, place, _ = _LOCATOR.unpack(tail[-_END.size - _LOCATOR.size : -_END.size])
        record = tail[: _END64.size]
        if place != end or not record.startswith(b"PK\x06\x06"):
            raise ValueError("its zip64 record is elsewhere")
        *_, length, offset = _END64.unpack(record)
    if offset + length != end:
        raise ValueError("its directory is elsewhere")
