"""The packages that edge-resnet is installed with, as their own metadata says: which, why, and under which licence."""

from __future__ import annotations

import re
from collections.abc import Collection
from importlib.metadata import Distribution, PackageNotFoundError, distribution

ROOT = "edge-resnet"

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_LONGEST_LICENCE = 200
"""Some packages put the whole text where its name should be."""


def closure(extras: Collection[str]) -> dict[str, Distribution]:
    """What edge-resnet asks for with these extras of its own, and what these ask for in turn, as far as it is installed.

    Returns:
        Distributions by their normalised name, edge-resnet among them.
    """
    found: dict[str, Distribution] = {}
    wanted = [ROOT]
    while wanted:
        name = wanted.pop()
        if name in found:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            continue  # of another platform, or an extra that is not installed
        wanted.extend(asked_for(found[name], extras))
    return dict(sorted(found.items()))


def asked_for(asking: Distribution, extras: Collection[str]) -> list[str]:
    """Names of the packages that one asks for; ``extras`` are edge-resnet's, of others none count."""
    chosen = extras if _normal(asking.metadata["Name"]) == ROOT else ()
    names = []
    for line in asking.requires or ():
        name = _NAME.match(line)
        extra = _EXTRA.search(line)
        if name is not None and (extra is None or extra[1] in chosen):
            names.append(_normal(name[0]))
    return sorted(set(names))


def licence(found: Distribution) -> str | None:
    """What the metadata says: an SPDX expression (PEP 639), a name, or a classifier; None: it is silent."""
    metadata = found.metadata.json
    said = str(metadata.get("license_expression") or metadata.get("license") or "").strip()
    if said and len(said) <= _LONGEST_LICENCE and "\n" not in said:
        return said
    classified = [each for each in metadata.get("classifier", []) if each.startswith("License :: ")]
    return classified[0].rpartition(" :: ")[2] if classified else None


def _normal(name: str) -> str:
    """A package's one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()
