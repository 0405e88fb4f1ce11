"""The processor of this host, without anything that runs on it."""

from __future__ import annotations

import os
import platform
from pathlib import Path

_INT8_FLAGS = ("avx2", "avx_vnni", "avx512_vnni", "amx_int8")


_KERNEL_FLAGS = (*_INT8_FLAGS, "avx", "fma", "avx512f", "asimddp", "i8mm", "sve")
"""By which ONNX Runtime chooses among its kernels, which round differently."""


def kernel_flags() -> str:
    """What decides which kernels compute here: two processors that give the same text give the same floats."""
    facts = _facts()
    flags = sorted(set((facts.get("flags") or facts.get("Features", "")).split()) & set(_KERNEL_FLAGS))
    return f"{platform.machine()} ({', '.join(flags) or 'no instructions known'})"


def cpu_name() -> str:
    """The processor's name as Linux reports it, and what it has for INT8."""
    facts = _facts()
    if not facts:
        return platform.machine()
    flags = [flag for flag in facts.get("flags", "").split() if flag in _INT8_FLAGS]
    name = facts.get("model name", platform.machine())
    return f"{name}, {os.cpu_count()} cores ({', '.join(flags) or 'no INT8 instructions known'})"


def _facts() -> dict[str, str]:
    """What Linux says of the first processor; nothing on another system."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return {}
    return dict(reversed([[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]))
