"""Which kind of registry an address leads to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from edge_resnet.addresses import without_password
from edge_resnet.errors import RegistryError, UnavailableError
from edge_resnet.registry.content import Registry
from edge_resnet.registry.files import open_files
from edge_resnet.registry.names import Reference


def _open_oci(address: str) -> Registry:
    try:
        from edge_resnet.registry.oci import open_oci
    except ModuleNotFoundError as error:
        raise UnavailableError(f"an OCI registry needs {error.name}: pip install 'edge-resnet[oci]'") from error
    return open_oci(address)


OPENERS: Mapping[str, Callable[[str], Registry]] = MappingProxyType({"oci": _open_oci, "oci+http": _open_oci})
"""By an address's scheme; all others are fsspec's."""


def open_registry(address: str | Path) -> Registry:
    """Opens a registry; an empty place becomes one when something is pushed.

    Args:
        address: a folder, a URL that fsspec knows, ``s3://bucket/models``, or an OCI registry, ``oci://HOST/models``.

    Raises:
        RegistryError: there is no such kind of storage, or the address cannot be one.
        UnavailableError: what reaches it is not installed.
    """
    text = str(address)
    scheme, found, _ = text.partition("://")
    return OPENERS.get(scheme if found else "", open_files)(text)


def located(address: str, name: str | None) -> tuple[Registry, Reference]:
    """A registry and what is meant in it: NAME[:TAG] given apart, or as the last part of the address.

    Raises:
        RegistryError: the name cannot be one, or as ``open_registry``.
        UnavailableError: as ``open_registry``.
    """
    if name is not None:
        return open_registry(address), Reference.parse(name)
    registry, slash, last = address.rstrip("/").rpartition("/")
    if not slash or not registry or registry.endswith(("/", ":")):
        raise RegistryError(
            f"'{without_password(address):.80}' is a registry, or a name in none: give REGISTRY and NAME[:TAG], or "
            f"REGISTRY/NAME[:TAG]"
        )
    return open_registry(registry), Reference.parse(last)
