"""A model registry: bundles by content in a folder, or in whatever storage fsspec reaches, such as S3.

    ROOT/parts/SHA256                at most 8 MiB of a file; every name is the hash of what it names
    ROOT/files/SHA256.json           a file's parts in order, its size, and its bundle's digest
    ROOT/names/NAME/TAG.json         which file a tag means now

Parts that are there are not sent again, and parts that have come are not fetched again: a broken push or pull goes on where
it was. Nothing that comes is believed: part, file and bundle are held against their hashes, and a signature is asked for as
anywhere (``docs/fleet.md``).
"""

from edge_resnet.registry.names import Reference
from edge_resnet.registry.store import Kept, Registry, open_registry
from edge_resnet.registry.transfer import Pulled, Pushed, pull, push

__all__ = ["Kept", "Pulled", "Pushed", "Reference", "Registry", "open_registry", "pull", "push"]
