"""What device this is: a Jetson by its own files, an RTX card by its SM.

A Jetson names itself in the device tree and its Jetson Linux (L4T) in ``/etc/nv_tegra_release``:

    /proc/device-tree/model   NVIDIA Jetson Orin Nano Developer Kit<NUL>
    /etc/nv_tegra_release     # R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic, EABI: aarch64, …
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from edge_resnet.engines import cuda
from edge_resnet.engines.jetpacks import jetpack_of_l4t
from edge_resnet.engines.targets import JetPack, Target
from edge_resnet.errors import UnavailableError

_MODEL = Path("proc/device-tree/model")
_RELEASE = Path("etc/nv_tegra_release")
_L4T = re.compile(r"# R(?P<major>\d+) \(release\), REVISION: (?P<minor>[\d.]+)")


@dataclass(frozen=True)
class ThisDevice:
    """What this machine says of itself; each is None where it says nothing."""

    model: str | None
    """A Jetson's name for itself."""
    l4t: str | None
    """Its Jetson Linux, as in ``36.4.3``."""
    sm: int | None
    """Of the NVIDIA GPU."""

    def is_one(self, target: Target) -> bool:
        """Whether this device is of a target: a Jetson of its name, a GPU of its SMs; a CPU every machine has."""
        if target.jetpacks:
            return self.model is not None and set(target.description.split()) <= set(self.model.split())
        return self.sm in target.sms if target.sms else True

    def jetpack(self, target: Target) -> JetPack | None:
        """The target's JetPack that is installed here; None elsewhere, or where the target does not list it."""
        return jetpack_of_l4t(target, self.l4t) if self.l4t is not None and self.is_one(target) else None


def this_device(root: Path = Path("/")) -> ThisDevice:
    """Looks at this machine; ``root`` is where its files lie."""
    try:
        sm = cuda.gpu_sm()
    except UnavailableError:
        sm = None
    release = _L4T.match(_text(root / _RELEASE) or "")
    l4t = None if release is None else f"{release['major']}.{release['minor']}"
    return ThisDevice(_text(root / _MODEL), l4t, sm)


def _text(path: Path) -> str | None:
    """A small file without the NUL that ends strings of the device tree; None where there is none."""
    try:
        return path.read_text(encoding="utf-8", errors="replace").rstrip("\0\n ")
    except OSError:
        return None
