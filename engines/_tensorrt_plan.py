"""May a plan be loaded here? By what was written down when it was compiled: version, SMs, options.

NVIDIA's rules, from "Version Compatibility" and "Hardware Compatibility" of the TensorRT developer guide: a plan is for the
very version of the library that made it, and for GPUs of the SMs that it was made for. A version-compatible one is also for
newer versions: of the same major version, and 10 takes those of 8, 11 those of 10 (support matrix of 11.4.1). One made with
``ampere-plus`` is for SM 80 and everything newer.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from edge_resnet.engines.options import HardwareCompatibility, recorded_options

_BEFORE = {10: 8, 11: 10}
"""Major version → the other one whose version-compatible plans it takes."""
_AMPERE = 80
_NUMBER = re.compile(r"\d+")


def why_not_plan(product: str, versions: Mapping[str, str], library: tuple[str, str], sm: int | None) -> str | None:
    """Why the library here is not to be given a plan, in one line; None where it may be, or nothing was written down.

    Args:
        product: the library's name, for people.
        versions: of the plan, as ``CompiledEngine`` has them.
        library: what ``versions`` call the library, and its version here.
        sm: of the GPU here; None: there is none.
    """
    name, here = library
    options = recorded_options(versions)
    made = versions.get(name)
    if made is not None and made != here and not _takes(made, here, options):
        return f"it was compiled by {product} {made}, and here is {here}"
    wanted = [int(each) for each in versions.get("sms", "").split(",") if each]
    if wanted and sm is not None and sm not in wanted and not _newer(sm, options):
        return f"it was compiled for SM {', '.join(map(str, wanted))}, and this GPU has SM {sm}"
    return None


def _takes(made: str, here: str, options: Mapping[str, str]) -> bool:
    """Whether another version takes a plan."""
    if options.get("version_compatible") != "true":
        return False
    before, now = (tuple(int(part) for part in _NUMBER.findall(version)) for version in (made, here))
    return before <= now and before[0] in (now[0], _BEFORE.get(now[0]))


def _newer(sm: int, options: Mapping[str, str]) -> bool:
    """Whether a GPU of other SMs takes a plan."""
    return options.get("hardware_compatibility") == HardwareCompatibility.AMPERE_PLUS.value and sm >= _AMPERE
