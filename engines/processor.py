"""The processor of this host, without anything that runs on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_INT8_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8")


def cpu_name() -> str:
    """The processor's name as Linux reports it, and what it has for INT8."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    facts = dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
    flags = [flag for flag in facts.get("flags", "").split() if flag in _INT8_FLAGS]
    name = facts.get("model name", platform.machine())
    return f"{name}, {os.cpu_count()} cores ({', '.join(flags) or 'no INT8 instructions known'})"
