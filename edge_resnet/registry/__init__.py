"""A model registry: bundles by content in a folder, in whatever storage fsspec reaches, or in an OCI registry.

A bundle goes there in parts of at most 8 MiB, each under the SHA-256 of its bytes; a tag says which parts it is made of.
Parts that are there are not sent again, and what has come is not fetched again: a broken push or pull goes on where it
was. Nothing that comes is believed: part, file and bundle are held against their hashes, and a signature is asked for as
anywhere (``docs/fleet.md``).
"""

from edge_resnet.registry.content import Kept, Registry
from edge_resnet.registry.names import Reference
from edge_resnet.registry.opening import located, open_registry
from edge_resnet.registry.transfer import Pulled, Pushed, pull, push

__all__ = ["Kept", "Pulled", "Pushed", "Reference", "Registry", "located", "open_registry", "pull", "push"]
