"""The packages that a bundle was built with, as a CycloneDX document: for whoever must know what a release contains.

They are the installed ones that edge-resnet's build and compiler extras ask for, and those that these ask for in turn, as
their own metadata says. The same installation gives the same bytes: there is no date, and the serial number follows from
the packages.
"""

from __future__ import annotations

import platform
import re
import uuid
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

ROOT = "edge-resnet"
EXTRAS = ("build", "rtx", "tensorrt", "jetson")
"""Of edge-resnet; others do not make bundles."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_EXTRA = re.compile(r"""extra\s*==\s*['"]([^'"]+)['"]""")
_LONGEST_LICENCE = 200
"""Some packages put the whole text where its name should be."""


def sbom() -> bytes:
    """The document, CycloneDX 1.6 in JSON."""
    found = _closure()
    components = {name: _component(name, each) for name, each in found.items()}
    python = Component(name="python", version=platform.python_version(), type=ComponentType.PLATFORM, bom_ref="python")
    bom = Bom(components=[*(each for name, each in components.items() if name != ROOT), python])
    bom.metadata.component = components[ROOT]
    for name, each in found.items():
        bom.register_dependency(components[name], [components[other] for other in _asked_for(each) if other in found])
    bom.register_dependency(components[ROOT], [python])
    bom.metadata.timestamp = None  # type: ignore[assignment] # the library's own default is now
    names = ",".join(sorted(str(each.bom_ref.value) for each in (*components.values(), python)))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, f"{names},{platform.python_version()}")
    return (JsonV1Dot6(bom).output_as_string(indent=1) + "\n").encode()


def _closure() -> dict[str, Distribution]:
    """Distributions by their normalised name, the root among them."""
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
        wanted.extend(_asked_for(found[name]))
    return dict(sorted(found.items()))


def _asked_for(asking: Distribution) -> list[str]:
    """Names of the packages that one asks for; of edge-resnet's own extras, those that make bundles."""
    extras = EXTRAS if _normal(asking.metadata["Name"]) == ROOT else ()
    names = []
    for line in asking.requires or ():
        name = _NAME.match(line)
        extra = _EXTRA.search(line)
        if name is not None and (extra is None or extra[1] in extras):
            names.append(_normal(name[0]))
    return sorted(set(names))


def _normal(name: str) -> str:
    """A package's one spelling (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _component(name: str, found: Distribution) -> Component:
    purl = PackageURL("pypi", None, name, found.version)
    licence = _licence(found)
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.APPLICATION if name == ROOT else ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=None if licence is None else [LicenseFactory().make_from_string(licence)],
    )


def _licence(found: Distribution) -> str | None:
    """What the metadata says: an SPDX expression (PEP 639), a name, or a classifier; None: it is silent."""
    metadata = found.metadata.json
    said = str(metadata.get("license_expression") or metadata.get("license") or "").strip()
    if said and len(said) <= _LONGEST_LICENCE and "\n" not in said:
        return said
    classified = [each for each in metadata.get("classifier", []) if each.startswith("License :: ")]
    return classified[0].rpartition(" :: ")[2] if classified else None
