"""The licences of what edge-resnet is installed with, from the packages' own metadata: no network.

python tests/support/licences.py      # the table of docs/licences.md; fails on a licence that nobody has looked at
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from edge_resnet.installed import ROOT, closure, licence

PARTS: Mapping[str, tuple[str, ...]] = {
    "runtime": (),
    "device": ("trust", "registry", "oci", "monitor", "camera", "web", "cuda"),
    "build": ("build", "rtx", "plots"),
}
"""What asks for a package, the first counts: the runtime itself, its extras on a device, what builds bundles."""
ALLOWED = frozenset(
    (
        *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause", "BSL-1.0"),
        *("CC0-1.0", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"),
    )
)
"""By their SPDX names: they ask for no more than a notice."""
SPELT = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "BSD License": "BSD-3-Clause",
    "ISC License": "ISC",
    "MIT License": "MIT",
    "PSFL": "PSF-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""As packages write them; those that write a plain "BSD" have all three clauses in their licence files."""
NVIDIA = "NVIDIA's own"
LOOKED_UP = {
    "av": ("BSD-3-Clause", "BSD-3-Clause; with FFmpeg, LGPL-3.0-or-later, and x264 and x265, GPL-2.0-or-later"),
    "certifi": ("MPL-2.0", "MPL-2.0"),
    "oras": ("LICENSE", "Apache-2.0"),
    "python-dateutil": ("Dual License", "Apache-2.0 AND BSD-3-Clause"),
    **{f"tensorrt-rtx-cu12{part}": ("Proprietary", NVIDIA) for part in ("", "-bindings", "-libs")},
}
"""Packages whose metadata does not say it all: what it says, and what was found in them."""


def known(name: str, said: str | None) -> str | None:
    """A package's licence as SPDX has it; None where nobody has looked at it."""
    if name.startswith("nvidia-"):  # libraries that torch's CUDA build brings
        return NVIDIA
    if name in LOOKED_UP:
        expected, found = LOOKED_UP[name]
        return found if said == expected else None
    terms = [SPELT.get(term, term) for term in re.split(r" (AND|OR) ", said or "")]
    return " ".join(terms) if set(terms[::2]) <= ALLOWED else None


def rows() -> list[tuple[str, str | None, str]]:
    """Package, licence and part, of what is installed here."""
    found: dict[str, tuple[str, str | None, str]] = {}
    for part, extras in PARTS.items():
        for name, each in closure(extras).items():
            if name != ROOT:
                found.setdefault(name, (name, known(name, licence(each)), part))
    return list(found.values())


def main() -> None:
    print("| package | licence | part |\n|---|---|---|")
    for name, spelt, part in rows():
        print(f"| {name} | {spelt or '?'} | {part} |")
    unknown = [f"{name} ({licence(closure(PARTS[part])[name])})" for name, spelt, part in rows() if spelt is None]
    if unknown:
        sys.exit(f"nobody has looked at the licence of {', '.join(unknown)}: look, and add it to {__file__}")


if __name__ == "__main__":
    main()
