"""Where a registry's files lie: what is read and written there, one small document or part at a time."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_resnet.errors import RegistryError, UnavailableError
from edge_resnet.limits import limits, parse_json
from edge_resnet.registry.names import Reference

FORMAT = 1
PART = 8 << 20
"""Bytes of a part, but the last."""
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
class Registry:
    """A registry that can be reached; ``open_registry`` makes one."""

    address: str
    _files: Any
    """fsspec's file system."""
    _root: str

    def tags(self) -> Iterator[tuple[Reference, str]]:
        """Every tag, sorted, and the file that it means.

        Raises:
            RegistryError: a document is damaged.
            UnavailableError: the storage cannot be reached.
        """
        with self._reached():
            found = sorted(self._files.glob(f"{self._root}/names/*/*.json"))
        for path in found:
            name, tag = path.rsplit("/", 2)[1:]
            reference = Reference.parse(f"{name}:{tag.removesuffix('.json')}")
            yield reference, self.resolve(reference)

    def resolve(self, reference: Reference) -> str:
        """The file that a tag means, by its hash.

        Raises:
            RegistryError: there is no such tag, or its document is damaged.
            UnavailableError: the storage cannot be reached.
        """
        place = f"names/{reference.name}/{reference.tag}.json"
        document = self._document(place, f"{self.address} has no '{reference}': push it, or see `edge-resnet registry`")
        return _hash(document, "file", place)

    def describe(self, file: str) -> Kept:
        """What is known of a file.

        Raises:
            RegistryError: it is not there, or its document is damaged, or too large for a bundle.
            UnavailableError: the storage cannot be reached.
        """
        place = f"files/{file}.json"
        document = self._document(place, f"{self.address} has lost the file {file[:16]}: push its bundle again")
        size, parts = document.get("bytes"), document.get("parts")
        if not isinstance(size, int) or not isinstance(parts, list) or len(parts) != -(-size // PART):
            raise RegistryError(f"{self.address}: {place} is damaged: push its bundle again")
        if size > limits().bundle_bytes:
            raise RegistryError(f"{self.address}: {place} is of {size} bytes: {limits().advice('bundle_bytes')}")
        hashes = tuple(_hash({"part": part}, "part", place) for part in parts)
        return Kept(file, _hash(document, "digest", place), size, hashes)

    def read_part(self, part: str) -> bytes:
        """A part's bytes, which are those of its hash.

        Raises:
            RegistryError: it is not there, or is not what its name says.
            UnavailableError: the storage cannot be reached.
        """
        data = self._read(f"parts/{part}", PART, f"{self.address} has lost the part {part[:16]}: push its bundle again")
        if hashlib.sha256(data).hexdigest() != part:
            raise RegistryError(f"{self.address}: the part {part[:16]} is damaged: remove it there, and push again")
        return data

    def write_part(self, data: bytes) -> bool:
        """Keeps a part; False when it was there.

        Raises:
            UnavailableError: the storage cannot be reached or written.
        """
        place = f"{self._root}/parts/{hashlib.sha256(data).hexdigest()}"
        with self._reached():
            if self._files.exists(place) and self._files.size(place) == len(data):
                return False
        self._write(place, data)
        return True

    def write_file(self, kept: Kept) -> None:
        """Says what a file is made of, once all its parts are there."""
        document = {"format": FORMAT, "digest": kept.digest, "bytes": kept.bytes, "parts": list(kept.parts)}
        self._write(f"{self._root}/files/{kept.file}.json", _text(document))

    def write_tag(self, reference: Reference, kept: Kept) -> None:
        """Lets a tag mean a file from now on."""
        place = f"{self._root}/names/{reference.name}/{reference.tag}.json"
        self._write(place, _text({"format": FORMAT, "file": kept.file, "digest": kept.digest}))

    def _document(self, place: str, missing: str) -> dict[str, Any]:
        data = self._read(place, limits().document_bytes, missing)
        try:
            document = parse_json(data)
        except (ValueError, RecursionError) as error:
            raise RegistryError(f"{self.address}: {place} is no document of a registry ({error})") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise RegistryError(f"{self.address}: {place} is no document of this registry's format, {FORMAT}")
        return document

    def _read(self, place: str, most: int, missing: str) -> bytes:
        path = f"{self._root}/{place}"
        with self._reached():
            try:
                if self._files.size(path) > most:
                    raise RegistryError(
                        f"{self.address}: {place} is larger than {most} bytes: it is no part of a registry"
                    )
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError as error:
                raise RegistryError(missing) from error
        return data

    def _write(self, path: str, data: bytes) -> None:
        """Whole or not at all: under a name of its own first."""
        temporary = f"{path}.{secrets.token_hex(8)}.partial"
        with self._reached():
            self._files.pipe_file(temporary, data)
            self._files.mv(temporary, path)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except RegistryError:
            raise
        except Exception as error:  # every storage has errors of its own, with no common base
            raise UnavailableError(
                f"{self.address} cannot be used ({type(error).__name__}: {error}): check the address, the network and the "
                f"rights there"
            ) from error


def open_registry(address: str | Path) -> Registry:
    """Opens a registry; an empty place becomes one when something is pushed.

    Args:
        address: a folder, or a URL that fsspec knows: ``s3://bucket/models``, …

    Raises:
        RegistryError: there is no such kind of storage.
        UnavailableError: what reaches it is not installed.
    """
    try:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem
    except ModuleNotFoundError as error:
        raise UnavailableError("a registry needs fsspec: pip install 'edge-resnet[registry]'") from error
    text = str(address)
    try:
        files, root = fsspec.core.url_to_fs(text)
    except ImportError as error:
        raise UnavailableError(
            f"{text} needs a package that is not here ({error}): for S3, pip install s3fs"
        ) from error
    except ValueError as error:
        raise RegistryError(
            f"'{text:.80}' is no registry ({error}): give a folder, or a URL such as s3://bucket/models"
        ) from error
    if isinstance(files, LocalFileSystem):
        files.auto_mkdir = True  # other storages have no folders
    return Registry(text, files, root.rstrip("/"))


def _hash(document: dict[str, Any], key: str, place: str) -> str:
    found = document.get(key)
    if not isinstance(found, str) or not _HASH.fullmatch(found):
        raise RegistryError(f"{place}: '{key}' is {found!r:.80}, no SHA-256: the registry is damaged, push again")
    return found


def _text(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()


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
