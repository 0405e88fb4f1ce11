"""What a bundle is called in a registry."""

from __future__ import annotations

import re
from dataclasses import dataclass

from edge_resnet.errors import RegistryError

LATEST = "latest"
"""The tag that is meant where none is given."""
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,126}[a-z0-9])?")


@dataclass(frozen=True)
class Reference:
    """A name and a tag, such as ``shelf-camera:v3``."""

    name: str
    tag: str

    def __str__(self) -> str:
        return f"{self.name}:{self.tag}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """Reads ``NAME`` or ``NAME:TAG``.

        Raises:
            RegistryError: a part has other characters, or is empty or long.
        """
        name, colon, tag = text.partition(":")
        found = cls(name, tag if colon else LATEST)
        for part in (found.name, found.tag):
            if not _NAME.fullmatch(part) or ".." in part:
                raise RegistryError(
                    f"'{text:.80}' names nothing in a registry: give NAME or NAME:TAG of a-z, 0-9 and ._- inside, such as "
                    f"shelf-camera:v3"
                )
        return found
