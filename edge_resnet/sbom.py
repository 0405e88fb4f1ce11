"""The packages that a bundle was built with, as a CycloneDX document: for whoever must know what a release contains.

They are the installed ones that edge-resnet's build and compiler extras ask for, and those that these ask for in turn, as
their own metadata says. The same installation gives the same bytes: there is no date, and the serial number follows from
the packages.
"""

from __future__ import annotations

import platform
import uuid
from importlib.metadata import Distribution

from cyclonedx.contrib.license.factories import LicenseFactory
from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from edge_resnet.installed import ROOT, asked_for, closure, licence

EXTRAS = ("build", "rtx", "tensorrt", "jetson")
"""Of edge-resnet; others do not make bundles."""


def sbom() -> bytes:
    """The document, CycloneDX 1.6 in JSON."""
    found = closure(EXTRAS)
    components = {name: _component(name, each) for name, each in found.items()}
    python = Component(name="python", version=platform.python_version(), type=ComponentType.PLATFORM, bom_ref="python")
    bom = Bom(components=[*(each for name, each in components.items() if name != ROOT), python])
    bom.metadata.component = components[ROOT]
    for name, each in found.items():
        bom.register_dependency(
            components[name], [components[other] for other in asked_for(each, EXTRAS) if other in found]
        )
    bom.register_dependency(components[ROOT], [python])
    bom.metadata.timestamp = None  # type: ignore[assignment] # the library's own default is now
    names = ",".join(sorted(str(each.bom_ref.value) for each in (*components.values(), python)))
    bom.serial_number = uuid.uuid5(uuid.NAMESPACE_OID, f"{names},{platform.python_version()}")
    return (JsonV1Dot6(bom).output_as_string(indent=1) + "\n").encode()


def _component(name: str, found: Distribution) -> Component:
    purl = PackageURL("pypi", None, name, found.version)
    known = licence(found)
    return Component(
        name=name,
        version=found.version,
        type=ComponentType.APPLICATION if name == ROOT else ComponentType.LIBRARY,
        purl=purl,
        bom_ref=purl.to_string(),
        licenses=None if known is None else [LicenseFactory().make_from_string(known)],
    )
