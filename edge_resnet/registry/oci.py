"""A registry in an OCI registry, such as those that hold a company's containers: a repository a name, by oras.

HOST/BASE/NAME:TAG   a manifest, whose layers are a file's parts in order; its annotations are the rest of ``Kept``

It is an ordinary artefact: ``oras pull`` fetches the parts too, and what they make, put together, is the bundle.
"""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from oras.container import Container
from oras.defaults import default_manifest_media_type
from oras.utils import append_url_params

from edge_resnet.addresses import without_password
from edge_resnet.errors import RegistryError
from edge_resnet.registry import content
from edge_resnet.registry.content import Kept, Rest, no_such, reached, read_kept
from edge_resnet.registry.names import Reference
from edge_resnet.registry.oci_client import Client, pieces

KIND = "application/vnd.edge-resnet.bundle.v1"
"""The artefact's type, by which others in the same repository are passed over."""
PART_KIND = "application/vnd.edge-resnet.bundle.part.v1"
EMPTY_KIND, EMPTY = "application/vnd.oci.empty.v1+json", b"{}"
"""The image specification's configuration of an artefact that needs none."""
TITLE = "org.opencontainers.image.title"
_KEYS = {"file": "dev.edge-resnet.file", "digest": "dev.edge-resnet.digest", "bytes": "dev.edge-resnet.bytes"}
_ADDRESS = re.compile(r"(?P<host>\[[0-9a-fA-F:.]+\](:[0-9]+)?|[A-Za-z0-9.-]+(:[0-9]+)?)(?P<base>(/[a-z0-9._-]+)*)")


@dataclass(frozen=True)
class OciRegistry:
    """See the module; what the methods do stands at ``content.Registry``."""

    address: str
    _client: Client
    _base: str
    """Before every name: ``models/``, or nothing."""

    def tags(self, name: str) -> list[str]:
        """See ``Registry``."""
        with reached(self.address):
            found = self._client.pages(f"{self._base}{name}/tags/list", "tags", self.address, 404)
            return sorted(tag for tag in found or () if _named(name, tag) is not None)

    def listing(self, name: str | None = None) -> Iterator[tuple[Reference, Kept]]:
        """See ``Registry``; artefacts of other kinds are passed over."""
        for each in self._names() if name is None else [name]:
            for tag in self.tags(each):
                reference = Reference(each, tag)
                manifest = self._manifest(reference)
                if manifest is not None and manifest.get("artifactType") == KIND:
                    yield reference, self._kept(reference, manifest)

    def find(self, reference: Reference) -> Kept:
        """See ``Registry``."""
        manifest = self._manifest(reference)
        if manifest is None:
            raise no_such(self, reference)
        if manifest.get("artifactType") != KIND:
            raise RegistryError(f"{self.address}: '{reference}' is no bundle of edge-resnet, but another artefact")
        return self._kept(reference, manifest)

    def read_part(self, reference: Reference, part: str, start: int) -> Rest:
        """See ``Registry``."""
        with reached(self.address):
            answer = self._client.do_request(
                f"{self._client.prefix}://{self._container(reference).get_blob_url(f'sha256:{part}')}",
                headers={"Range": f"bytes={start}-"} if start else {},
                stream=True,
            )
            if answer.status_code == 416:  # there is no more: what was kept is another part's
                return self.read_part(reference, part, 0)
            if self._client.checked(answer, self.address, 404) is None:
                raise RegistryError(f"{self.address} has lost the part {part[:16]}: push its bundle again")
            goes_on = answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")
            begun = start if answer.status_code == 206 and goes_on else 0
        return Rest(begun, self._reaching(pieces(answer, content.PART - begun)))

    def write_part(self, reference: Reference, part: str, data: bytes) -> bool:
        """See ``Registry``."""
        container, digest = self._container(reference), f"sha256:{part}"
        client = self._client
        with reached(self.address):
            if client.blob_exists({"digest": digest}, container):
                return False
            begun = client.do_request(f"{client.prefix}://{container.upload_blob_url()}", "POST")
            client.checked(begun, self.address)
            place = append_url_params(client._get_location(begun, container), {"digest": digest})
            kind = {"Content-Type": "application/octet-stream"}
            client.checked(client.do_request(place, "PUT", data=data, headers=kind), self.address)
        return True

    def write_tag(self, reference: Reference, kept: Kept) -> None:
        """See ``Registry``."""
        self.write_part(reference, hashlib.sha256(EMPTY).hexdigest(), EMPTY)
        with reached(self.address):
            answer = self._client.upload_manifest(_manifest(reference, kept), self._container(reference))
            self._client.checked(answer, self.address)

    def _container(self, reference: Reference) -> Container:
        return self._client.container(f"{self._base}{reference.name}", reference.tag)

    def _manifest(self, reference: Reference) -> dict[str, Any] | None:
        """What a tag leads to; None: nothing."""
        with reached(self.address):
            url = f"{self._client.prefix}://{self._container(reference).manifest_url()}"
            answer = self._client.do_request(url, headers={"Accept": default_manifest_media_type}, stream=True)
            if self._client.checked(answer, self.address, 404) is None:
                return None
            return self._client.document(answer, f"{self.address}: the manifest of '{reference}'")

    def _kept(self, reference: Reference, manifest: dict[str, Any]) -> Kept:
        notes, layers = manifest.get("annotations"), manifest.get("layers")
        found: dict[str, Any] = {key: notes.get(name) for key, name in _KEYS.items()} if isinstance(notes, dict) else {}
        with suppress(KeyError, TypeError, ValueError):  # what is no number is refused as such below
            found["bytes"] = int(found["bytes"])
        found["parts"] = [
            str(layer.get("digest", "")).removeprefix("sha256:") if isinstance(layer, dict) else None
            for layer in (layers if isinstance(layers, list) else [])
        ]
        return read_kept(self.address, f"the manifest of '{reference}'", found)

    def _names(self) -> Iterator[str]:
        """Names that are repositories here, by the catalogue, which the specification leaves to each registry."""
        with reached(self.address):
            found = self._client.pages("_catalog", "repositories", self.address, 401, 403, 404, 405)
            if found is None:
                raise RegistryError(
                    f"{self.address} does not list its repositories: name one, `edge-resnet registry {self.address} NAME`"
                )
            names = [name.removeprefix(self._base) for name in found if name.startswith(self._base)]
        yield from sorted(name for name in names if _named(name, "latest") is not None)

    def _reaching(self, found: Iterator[bytes]) -> Iterator[bytes]:
        with reached(self.address):
            yield from found


def open_oci(address: str) -> OciRegistry:
    """Opens a registry at ``oci://HOST[:PORT][/BASE]``, or ``oci+http://``.

    It speaks HTTPS; HTTP to this machine alone, or where ``oci+http`` asks for it.

    Raises:
        RegistryError: the address has a password, or cannot be one.
    """
    scheme, _, rest = address.partition("://")
    if "@" in rest:
        raise RegistryError(
            f"'{without_password(address):.80}' has a user in it: leave that out, logins are those of `docker login`"
        )
    found = _ADDRESS.fullmatch(rest.rstrip("/"))
    if found is None:
        raise RegistryError(f"'{address:.80}' is no OCI registry: give oci://HOST[:PORT][/FOLDER], in small letters")
    host, base = found["host"], found["base"].removeprefix("/")
    client = Client(host, plain=scheme == "oci+http" or _is_here(host))
    client.container("any")  # refuses a host that oras would read as a folder
    return OciRegistry(address.rstrip("/"), client, f"{base}/" if base else "")


def _is_here(host: str) -> bool:
    """Whether a host is this machine."""
    name = host.rpartition("]")[0].removeprefix("[") or host.partition(":")[0]
    with suppress(ValueError):
        return ipaddress.ip_address(name).is_loopback
    return name == "localhost"


def _named(name: str, tag: str) -> Reference | None:
    """A name and tag that were listed; None: they are of another kind than ours."""
    try:
        found = Reference.parse(f"{name}:{tag}")
    except RegistryError:
        return None
    return found if (found.name, found.tag) == (name, tag) else None


def _manifest(reference: Reference, kept: Kept) -> dict[str, Any]:
    last = len(kept.parts) - 1
    layers = [
        {
            "mediaType": PART_KIND,
            "digest": f"sha256:{part}",
            "size": kept.bytes - last * content.PART if index == last else content.PART,
            "annotations": {TITLE: f"{reference.name}.edge" + (f".{index:03}" if last else "")},
        }
        for index, part in enumerate(kept.parts)
    ]
    return {
        "schemaVersion": 2,
        "mediaType": default_manifest_media_type,
        "artifactType": KIND,
        "config": {
            "mediaType": EMPTY_KIND,
            "digest": f"sha256:{hashlib.sha256(EMPTY).hexdigest()}",
            "size": len(EMPTY),
        },
        "layers": layers,
        "annotations": {name: str(getattr(kept, key)) for key, name in _KEYS.items()},
    }
