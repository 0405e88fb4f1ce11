"""Finished stages of builds, kept so that a build that was killed, or is run again, goes on where it was.

A stage is kept under the SHA-256 of all that its result depends on: its inputs' bytes, its options, this package's own
sources, the libraries and the processor. So nothing has to be invalidated, and two builds at once can only write the same
bytes. Each entry is one sealed archive (``sealed_zip``), written atomically: a damaged one, or one of another key, is made
again. What is oldest in use goes first when all are larger than ``LARGEST``.

A place that others may write to is not used: what lies there goes into bundles. One that cannot be written costs a note.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_resnet.cache_folder import cache_folder, read_own, why_not_own
from edge_resnet.engines.processor import cpu_name
from edge_resnet.errors import BundleError, EdgeResnetError, OutputError
from edge_resnet.output import write_atomically
from edge_resnet.sealed_zip import entries_of, read_seal, seal

LARGEST = 4_000_000_000
"""Bytes of all entries together; a ResNet-50's Q/DQ takes 0.1 GB."""
ABANDONED_S = 3600
"""Seconds after which an unfinished file is that of a killed build, and not of one that goes on."""

_SUFFIX = ".stage"
_ENTRY = re.compile(rf"[0-9a-f]{{64}}{re.escape(_SUFFIX)}")
_PARTIAL = re.compile(r"\.edge-resnet-[0-9a-f]{16}\.partial")
"""What ``write_atomically`` calls a file that is not complete."""
_ABOUT = "about.json"
_LIBRARIES = ("edge-resnet", "numpy", "onnx", "onnx-ir", "onnxruntime", "pillow", "torch")

Members = Mapping[str, bytes]
"""What a stage makes: plain files by name."""


@dataclass(frozen=True)
class Work:
    """A stage with all that its result depends on beside the code, the libraries and the processor."""

    stage: str
    made_for: str
    """What a person sees in the list; of no influence on the key."""
    inputs: Mapping[str, object]
    """Values that JSON knows; of files and models their hashes."""

    @property
    def key(self) -> str:
        """SHA-256 in hex."""
        document = {"stage": self.stage, "inputs": self.inputs, "made_by": _made_by()}
        return hashlib.sha256(json.dumps(document, sort_keys=True, allow_nan=False).encode()).hexdigest()


@dataclass(frozen=True)
class Kept:
    """One entry, as ``edge-resnet cache`` lists it."""

    path: str
    stage: str
    made_for: str
    bytes: int
    age_s: float
    """Seconds since it was last used."""

    def to_json(self) -> dict[str, object]:
        """An element of ``entries``."""
        return asdict(self)


class StageCache:
    """The finished stages in one folder; without a folder, nothing is kept."""

    def __init__(self, folder: Path | None, largest: int = LARGEST) -> None:
        self.folder = folder
        self._largest = largest

    def get(self, work: Work) -> Members | None:
        """What the stage has made before; None when it is not here, not whole, or not to be trusted."""
        if self.folder is None:
            return None
        path = self._path(self.folder, work)
        found = _read(path)
        if found is None or _about_of(found)["key"] != work.key:
            return None
        del found[_ABOUT]
        with suppress(OSError):
            os.utime(path)  # in use: others go first
        return found

    def keep(self, work: Work, members: Members) -> str | None:
        """Keeps what a stage has made, and makes room.

        Returns:
            Why it could not be kept, one line; None when it is, or when nothing shall be.
        """
        if self.folder is None:
            return None
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            why_not = why_not_own(self.folder)
            if why_not is not None:
                return (
                    f"finished stages are not kept ({why_not}, and what lies there goes into bundles): chmod it to 700, "
                    f"or choose another place with EDGE_RESNET_CACHE"
                )
            write_atomically(self._path(self.folder, work), seal({_ABOUT: _about(work), **members}))
        except (OSError, EdgeResnetError) as error:
            return f"finished stages are not kept ({error}): choose another place with EDGE_RESNET_CACHE"
        self._make_room()
        return None

    def entries(self) -> list[Kept]:
        """All entries that are whole, the latest used first."""
        now = time.time()
        found = []
        for path, size, used in self._files():
            members = _read(path)
            if members is not None:
                about = _about_of(members)
                found.append(Kept(str(path), about["stage"], about["made_for"], size, max(0.0, now - used)))
        return sorted(found, key=lambda each: each.age_s)

    def clear(self) -> tuple[int, int]:
        """Removes every entry, and what killed builds have left of one; nothing else that may lie there.

        Returns:
            How many files, and how many bytes.

        Raises:
            OutputError: one cannot be removed.
        """
        files, freed = 0, 0
        for path, size, _ in [*self._files(), *self._files(_PARTIAL)]:
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise OutputError(f"cannot remove '{path}': {error.strerror}: change its permissions") from error
            files, freed = files + 1, freed + size
        return files, freed

    def _path(self, folder: Path, work: Work) -> Path:
        return folder / f"{work.key}{_SUFFIX}"

    def _files(self, name: re.Pattern[str] = _ENTRY) -> Iterator[tuple[Path, int, float]]:
        """Plain files of our own, with sizes and times of last use; another process may remove one meanwhile."""
        for path in [] if self.folder is None else sorted(self.folder.glob("*")):
            with suppress(OSError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode) and name.fullmatch(path.name):
                    yield path, found.st_size, found.st_mtime

    def _make_room(self) -> None:
        """Removes the entries that were used longest ago until the rest is small enough, and what was abandoned."""
        abandoned = [path for path, _, used in self._files(_PARTIAL) if time.time() - used > ABANDONED_S]
        rest = self._largest
        for path, size, _ in sorted(self._files(), key=lambda file: file[2], reverse=True):
            rest -= size
            if rest < 0:
                abandoned.append(path)
        for path in abandoned:
            with suppress(OSError):
                path.unlink()


def users_cache() -> StageCache:
    """The finished stages of this user, in ``cache_folder()``."""
    folder = cache_folder()
    return StageCache(None if folder is None else folder / "stages")


NO_CACHE = StageCache(None)
"""Nothing is kept, and nothing found."""


def _about(work: Work) -> bytes:
    return json.dumps({"stage": work.stage, "made_for": work.made_for, "key": work.key}, indent=1).encode()


def _about_of(members: Members) -> dict[str, str]:
    """What an entry says of itself; empty texts where another version has said something else."""
    try:
        found = json.loads(members[_ABOUT])
    except (ValueError, RecursionError):
        found = None
    return {key: str(found.get(key, "")) if isinstance(found, dict) else "" for key in ("stage", "made_for", "key")}


def _read(path: Path) -> dict[str, bytes] | None:
    """The members of an entry; None when it is not there, not whole, or can be another user's."""
    try:
        data = read_own(path.parent, path.name)
        members = entries_of(data, read_seal(data))
    except (OSError, BundleError):
        return None
    return {name: data[entry.start : entry.end] for name, entry in members.items()} if _ABOUT in members else None


@cache
def _made_by() -> Mapping[str, object]:
    """What a stage's result depends on beside its inputs; sums come out otherwise on other processors and threads."""
    return {
        "sources": _sources(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "processor": cpu_name(),
        "threads": [len(os.sched_getaffinity(0)), os.environ.get("OMP_NUM_THREADS")],
    }


def _sources() -> str:
    """SHA-256 over this package's code that stages run: whoever changes it must not get what it made before."""
    home = Path(__file__).parent
    digest = hashlib.sha256()
    for folder in (home, home / "calibration", home / "compression", home / "engines"):
        for path in sorted(folder.glob("*.py")):
            digest.update(f"{path.relative_to(home)}\n".encode() + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
