"""A registry in a folder, or in whatever storage fsspec reaches: small documents, and parts.

ROOT/parts/SHA256                at most 8 MiB of a file; every name is the hash of what it names
ROOT/files/SHA256.json           a file's parts in order, its size, and its bundle's digest
ROOT/names/NAME/TAG.json         which file a tag means now
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge_resnet.addresses import without_password
from edge_resnet.errors import RegistryError, UnavailableError
from edge_resnet.limits import limits, parse_json
from edge_resnet.output import write_atomically
from edge_resnet.registry import content
from edge_resnet.registry.content import Kept, Rest, no_such, reached, read_hash, read_kept
from edge_resnet.registry.names import Reference

FORMAT = 1


@dataclass(frozen=True)
class FileRegistry:
    """See the module; what the methods do stands at ``content.Registry``."""

    address: str
    _files: Any
    """fsspec's file system."""
    _root: str
    _local: bool

    def tags(self, name: str) -> list[str]:
        """See ``Registry``."""
        return [reference.tag for reference in self._references(name)]

    def listing(self, name: str | None = None) -> Iterator[tuple[Reference, Kept]]:
        """See ``Registry``."""
        for reference in self._references("*" if name is None else name):
            yield reference, self.find(reference)

    def find(self, reference: Reference) -> Kept:
        """See ``Registry``."""
        place = f"names/{reference.name}/{reference.tag}.json"
        tag = self._document(place)
        if tag is None:
            raise no_such(self, reference)
        file = read_hash(tag, "file", place)
        place = f"files/{file}.json"
        document = self._document(place)
        if document is None:
            raise self._lost(f"the file {file[:16]}")
        return read_kept(self.address, place, {**document, "file": file})

    def read_part(self, reference: Reference, part: str, start: int) -> Rest:
        """See ``Registry``; always from the first byte on, in one piece."""
        data = self._read(f"parts/{part}", content.PART)
        if data is None:
            raise self._lost(f"the part {part[:16]}")
        return Rest(0, iter([data]))

    def write_part(self, reference: Reference, part: str, data: bytes) -> bool:
        """See ``Registry``."""
        place = f"{self._root}/parts/{part}"
        with reached(self.address), suppress(FileNotFoundError):
            if self._files.size(place) == len(data):
                return False
        self._write(place, data)
        return True

    def write_tag(self, reference: Reference, kept: Kept) -> None:
        """See ``Registry``; first what the file is made of."""
        about = {key: value for key, value in asdict(kept).items() if key != "file"}
        self._write(f"{self._root}/files/{kept.file}.json", _text({"format": FORMAT, **about}))
        place = f"{self._root}/names/{reference.name}/{reference.tag}.json"
        self._write(place, _text({"format": FORMAT, "file": kept.file, "digest": kept.digest}))

    def _references(self, name: str) -> list[Reference]:
        with reached(self.address):
            found = sorted(self._files.glob(f"{self._root}/names/{name}/*.json"))
        parts = (path.rsplit("/", 2)[1:] for path in found)
        return [Reference.parse(f"{name}:{tag.removesuffix('.json')}") for name, tag in parts]

    def _lost(self, what: str) -> RegistryError:
        return RegistryError(f"{self.address} has lost {what}: push its bundle again")

    def _document(self, place: str) -> dict[str, Any] | None:
        """What lies there; None: nothing."""
        data = self._read(place, limits().document_bytes)
        if data is None:
            return None
        try:
            document = parse_json(data)
        except ValueError as error:
            raise RegistryError(f"{self.address}: {place} is no document of a registry ({error})") from error
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise RegistryError(f"{self.address}: {place} is no document of this registry's format, {FORMAT}")
        return document

    def _read(self, place: str, most: int) -> bytes | None:
        path = f"{self._root}/{place}"
        with reached(self.address):
            try:
                if self._files.size(path) > most:
                    raise RegistryError(
                        f"{self.address}: {place} is larger than {most} bytes: it is no part of a registry"
                    )
                data: bytes = self._files.cat_file(path)
            except FileNotFoundError:
                return None
        return data

    def _write(self, path: str, data: bytes) -> None:
        """Whole or not at all in a folder and in an object store, which shows what has come to its end.

        Elsewhere a broken push may leave half a part, which is sent again, or half a document, which is refused.
        """
        with reached(self.address):
            if self._local:
                place = Path(path)
                place.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(place, data)
            else:
                self._files.pipe_file(path, data)


def open_files(address: str) -> FileRegistry:
    """Opens a registry in a folder, or by a URL that fsspec knows; an empty place becomes one when something is pushed.

    Raises:
        RegistryError: there is no such kind of storage.
        UnavailableError: what reaches it is not installed, or it cannot be reached.
    """
    try:
        import fsspec
        from fsspec.implementations.local import LocalFileSystem
    except ModuleNotFoundError as error:
        raise UnavailableError("a registry needs fsspec: pip install 'edge-resnet[registry]'") from error
    shown = without_password(address)
    with reached(shown):  # some connect at once
        try:
            files, root = fsspec.core.url_to_fs(address)
        except ImportError as error:
            raise UnavailableError(
                f"{shown} needs a package that is not here ({error}): for S3, pip install s3fs"
            ) from error
        except ValueError as error:
            raise RegistryError(
                f"'{shown:.80}' is no registry ({error}): give a folder, or a URL such as s3://bucket/models or "
                f"oci://registry.example/models"
            ) from error
    return FileRegistry(shown, files, root.rstrip("/"), isinstance(files, LocalFileSystem))


def _text(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=1, sort_keys=True) + "\n").encode()
