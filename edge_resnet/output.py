"""Writing results: whole or not at all, and refused before the work rather than after it."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from io import FileIO
from pathlib import Path
from typing import Literal

from edge_resnet.errors import OutputError

_REASONS = {
    errno.EACCES: "no permission there: choose another place, or change the permissions of '{folder}'",
    errno.EPERM: "no permission there: choose another place, or change the permissions of '{folder}'",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.ENOSPC: "no space left on the device: free some, or choose another place",
    errno.EDQUOT: "the disk quota is used up: free some space, or choose another place",
    errno.EFBIG: "the file would be larger than is allowed there: raise 'ulimit -f', or choose another place",
    errno.ENOENT: "the folder '{folder}' does not exist: create it first",
    errno.ENOTDIR: "'{folder}' is not a folder: choose another place",
    errno.ENAMETOOLONG: "the file name is too long: choose a shorter one",
}
"""What an operating system error means to the person who chose the path, and what to do about it."""


def write_atomically(path: Path, data: bytes | Iterable[bytes]) -> None:
    """Writes a file whole or not at all; a file that was there stays as it was until the new one is complete.

    The bytes go to a temporary file in the same folder, reach the disk, and then take the name in one step. Whatever
    happens before that step, interruption included, removes the temporary file. (A killed process cannot clean up: it
    leaves the old file and a ``.edge-resnet-*.partial`` beside it.) A symbolic link is followed, as ``open`` does.

    Args:
        path: the file to write; its folder must exist.
        data: all the bytes, or pieces of them in order. What the iterable raises is passed on unchanged.

    Raises:
        OutputError: the place cannot be written: no permission, no space, no such folder, not a regular file.
    """
    place = _final_place(path)
    temporary = _temporary_beside(place)
    pieces = (data,) if isinstance(data, bytes) else data
    try:
        with _created(temporary, path) as file:
            for piece in pieces:
                with _explained(path):
                    _write_all(file, piece)
            with _explained(path):
                os.fsync(file.fileno())
        with _explained(path):
            os.replace(temporary, place)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def write_marked(files: Mapping[Path, bytes | None], mark: Path, data: bytes) -> None:
    """Writes files that belong together, of which one, the mark, says that the others are there.

    All bytes reach the disk before anything is changed. Then the mark that was there is removed, the others take their
    names, and the mark takes its own: who finds it finds the others that it came with, whenever this process is killed.

    Args:
        files: content by path; None removes what is there.
        mark: the path of the file that counts.
        data: its content.

    Raises:
        OutputError: a place cannot be written; unless that is found out between the names, nothing is changed.
    """
    wanted = {_final_place(path): content for path, content in {**files, mark: data}.items()}
    waiting = {place: _temporary_beside(place) for place, content in wanted.items() if content is not None}
    try:
        for place, temporary in waiting.items():
            with _created(temporary, place) as file, _explained(place):
                _write_all(file, wanted[place] or b"")
                os.fsync(file.fileno())
        gone = [_final_place(mark), *(place for place, content in wanted.items() if content is None)]
        for place in gone:
            with _explained(place):
                place.unlink(missing_ok=True)
        for place, temporary in waiting.items():
            with _explained(place):
                os.replace(temporary, place)
    except BaseException:
        for temporary in waiting.values():
            with suppress(OSError):
                temporary.unlink()
        raise


def append_from(path: Path, start: int, pieces: Iterable[bytes]) -> int:
    """Goes on with a file from one of its bytes on, or makes it anew from 0; what came before an error stays there.

    Args:
        path: the file, which is there unless ``start`` is 0.
        start: how many of its bytes are kept.
        pieces: what follows them. What the iterable raises is passed on unchanged.

    Returns:
        The bytes that came.

    Raises:
        OutputError: the place cannot be written.
    """
    came = 0
    with _opened(path, "r+b" if start else "wb") as file:
        with _explained(path):
            file.truncate(start)
            file.seek(start)
        for piece in pieces:
            with _explained(path):
                _write_all(file, piece)
            came += len(piece)
    return came


def write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    """Writes a new folder whole or not at all, as ``write_atomically`` does a file.

    Args:
        path: the folder, which must not exist; the one that it will lie in must.
        files: content by name; a name may lead through folders of its own, ``1/model.onnx``.

    Raises:
        OutputError: something is there already, or the place cannot be written.
    """
    check_new(path)
    temporary = _temporary_beside(path)
    try:
        with _explained(path):
            temporary.mkdir()
        for name, data in files.items():
            with _explained(path):
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            with _created(temporary / name, path) as file, _explained(path):
                _write_all(file, data)
                os.fsync(file.fileno())
        with _explained(path):
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def check_new(path: Path) -> None:
    """Refuses a folder to be written where there is something already.

    Raises:
        OutputError: there is.
    """
    if os.path.lexists(path):
        raise OutputError(f"cannot write '{path}': it exists already: remove it, or give another name")


def check_writable(path: Path, *sources: Path | None) -> None:
    """Finds out whether ``write_atomically`` can write here, to ask before minutes of work; leaves nothing behind.

    Space is not asked for: nobody knows yet how much will be needed.

    Args:
        path: the place.
        sources: files that the work reads, which it must not overwrite.

    Raises:
        OutputError: the folder is missing or cannot be written, or the path is a folder, no regular file or a source.
    """
    place = _final_place(path)
    if place in [Path(os.path.realpath(source)) for source in sources if source is not None]:
        raise OutputError(f"cannot write '{path}': it is an input of this command: give another name")
    probe = _temporary_beside(place)
    try:
        _created(probe, path).close()
    finally:
        with suppress(OSError):
            probe.unlink()


def _final_place(path: Path) -> Path:
    """Follows links to the regular file that ``path`` names, or will name."""
    place = Path(os.path.realpath(path))
    with _explained(path):
        if place.is_dir():
            raise OutputError(f"cannot write '{path}': it is a folder: give the name of a file")
        if place.exists() and not place.is_file():
            raise OutputError(f"cannot write '{path}': it is a device, pipe or socket: give the name of a file")
    return place


def _temporary_beside(place: Path) -> Path:
    return place.with_name(f".edge-resnet-{secrets.token_hex(8)}.partial")


def _opened(path: Path, mode: Literal["r+b", "wb"]) -> FileIO:
    with _explained(path):
        return open(path, mode, buffering=0)


def _created(temporary: Path, path: Path) -> FileIO:
    """Creates a file with the permissions that the umask gives; fails where one exists.

    Unbuffered, so that closing it after a failure has nothing left to write and cannot fail a second time.
    """
    with _explained(path):
        return open(temporary, "xb", buffering=0)


def _write_all(file: FileIO, data: bytes) -> None:
    """Writes all bytes: one unbuffered write may take only some, at a full disk or over 2 GiB."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Turns an operating system error into one line with the path, the reason and the remedy."""
    try:
        yield
    except OSError as error:
        unknown = f"{error.strerror or error}: choose another place"
        reason = _REASONS.get(error.errno or 0, unknown).format(folder=path.parent)
        if error.errno == errno.ENOENT and path.parent.is_dir():  # as in /proc
            reason = "no file can be made there: choose another place"
        raise OutputError(f"cannot write '{path}': {reason}") from error
