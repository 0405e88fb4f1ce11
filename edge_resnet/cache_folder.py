"""Where on this machine is kept what may be made again: timings of compilers, and finished stages of builds."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path | None:
    """``$EDGE_RESNET_CACHE``, else ``edge-resnet`` in ``$XDG_CACHE_HOME``, else in ``~/.cache``; it need not exist.

    A relative ``$XDG_CACHE_HOME`` is ignored, as the XDG Base Directory Specification wants it.

    Returns:
        None when this user has no home, as a container's may not.
    """
    if own := os.environ.get("EDGE_RESNET_CACHE"):
        return Path(own).absolute()
    named = Path(os.environ.get("XDG_CACHE_HOME", ""))
    try:
        return (named if named.is_absolute() else Path.home() / ".cache") / "edge-resnet"
    except RuntimeError:  # as Path.home puts it
        return None
