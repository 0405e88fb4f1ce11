"""Where on this machine is kept what may be made again: timings of compilers, and finished stages of builds.

What lies there goes into engines and bundles, so nothing is read that another user can have written.
"""

from __future__ import annotations

import os
import stat
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


def why_not_own(folder: Path) -> str | None:
    """Why what lies in a folder of the cache is not used, one line; None where it is this user's alone, or not there."""
    try:
        found = folder.stat()
    except OSError:
        return None  # it is not there, and holds nothing
    return None if _is_own(found) else f"'{folder}' is another user's, or others may write to it"


def read_own(folder: Path, name: str) -> bytes:
    """Reads a file that this user has written into a folder that is this user's alone.

    The folder is held open from the look at its owner on, so that another one under its name makes no difference.

    Raises:
        OSError: it is not there, or a link; or others can write to the folder, or have written the file.
    """
    place = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=place)
        with os.fdopen(found, "rb") as file:
            status = os.fstat(found)
            owned = status.st_uid == os.geteuid() and stat.S_ISREG(status.st_mode)
            if not (owned and _is_own(os.fstat(place))):
                raise PermissionError(f"{folder / name} can be another user's")
            return file.read()
    finally:
        os.close(place)


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
