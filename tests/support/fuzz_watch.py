"""What must hold for any input: an answer or one of our errors, soon, in little memory, and nothing written anywhere."""

from __future__ import annotations

import faulthandler
import hashlib
import os
import random
import resource
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp

from fuzz_parsers import Parser

from edge_resnet.errors import EdgeResnetError

SECONDS = 5.0
"""Of this process's time: a busy machine is no hang."""
STUCK_S = 120.0
"""After so long by the clock the process is ended with a traceback; the input is the file that it leaves."""
MEMORY = 400_000_000
"""Bytes that the process may grow by beyond twice the input, over all inputs of a parser: an image of as many pixels as
``Limits`` allows takes 360 MB."""

_FORBIDDEN = (
    "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect", "pickle.find_class",
)  # fmt: skip
_CHANGES = (
    "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.symlink", "os.link", "os.chmod", "os.truncate", "shutil.rmtree",
)  # fmt: skip
"""Allowed in the folder for temporary files alone, which must be empty afterwards."""


class Finding(AssertionError):  # noqa: N818 - it is what was looked for
    """An input that broke a promise."""


@dataclass
class Watch:
    """Watches this process while it parses one input after another."""

    folder: Path
    """Where inputs are put; nothing else may appear in it."""
    inputs: int = 0
    refused: int = 0
    slowest_s: float = 0.0
    _forbidden: list[str] = field(default_factory=list)
    _open: bool = False
    _grown: dict[str, int] = field(default_factory=dict)
    """Bytes that the process has grown by while each parser was at work."""
    scratch: Path = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(exist_ok=True)
        self.scratch = Path(mkdtemp(prefix="scratch-", dir=self.folder.parent))
        sys.addaudithook(self._see)

    def _see(self, event: str, arguments: tuple[object, ...]) -> None:
        if not self._open:
            return
        if event in _FORBIDDEN or (event in _CHANGES and not self._temporary(arguments)):
            self._forbidden.append(f"{event} {arguments!r:.200}")
        elif event == "open" and _writes(arguments[2]) and not self._temporary(arguments):
            self._forbidden.append(f"open for writing {arguments[0]!r:.200}")

    def _temporary(self, arguments: tuple[object, ...]) -> bool:
        """Whether a path lies in the folder for temporary files, or is a name in one that is open (``dir_fd``)."""
        place = os.fsdecode(arguments[0]) if isinstance(arguments[0], (str, bytes, os.PathLike)) else ""
        return place.startswith(f"{self.scratch}{os.sep}") or (
            os.sep not in place and place != "" and arguments[-1] != -1
        )

    def check(self, parser: Parser, data: bytes) -> None:
        """Parses one input.

        Raises:
            Finding: it broke a promise; the input is named by its SHA-256.
        """
        path = self.folder / f"input{parser.suffix}"
        path.write_bytes(data)
        self._warm_up(parser)
        before, start = _peak(), time.process_time()
        faulthandler.dump_traceback_later(STUCK_S, exit=True)
        raised = self._raised(parser, path)
        faulthandler.cancel_dump_traceback_later()
        self.inputs += 1
        if isinstance(raised, EdgeResnetError) and raised.exit_code in (2, 3, 4) and str(raised).strip():
            self.refused += 1
        elif raised is not None:
            raise Finding(self._said(parser, data, f"{type(raised).__name__}: {raised}")) from raised
        seconds = time.process_time() - start
        self._grown[parser.name] += _peak() - before
        self._judge(parser, data, seconds, self._grown[parser.name])

    def _warm_up(self, parser: Parser) -> None:
        """Reads valid inputs before the first one that counts: libraries are loaded, and that is no growth."""
        if parser.name not in self._grown:
            for data in parser.seeds():
                path = self.folder / f"input{parser.suffix}"
                kept = path.read_bytes()
                path.write_bytes(data)
                self._raised(parser, path)
                path.write_bytes(kept)
            self._grown[parser.name] = 0

    def _raised(self, parser: Parser, path: Path) -> Exception | None:
        self._forbidden.clear()
        before, tempfile.tempdir = tempfile.tempdir, str(self.scratch)
        self._open = True
        try:
            with warnings.catch_warnings(action="ignore") if sys.version_info >= (3, 11) else warnings.catch_warnings():
                parser.parse(path)
        except Exception as error:
            return error
        finally:
            self._open = False
            tempfile.tempdir = before
        return None

    def _judge(self, parser: Parser, data: bytes, seconds: float, grown: int) -> None:
        self.slowest_s = max(self.slowest_s, seconds)
        others = [path.name for path in self.folder.iterdir() if path.name != f"input{parser.suffix}"]
        others += os.listdir(self.scratch)
        for wrong, what in (
            (seconds > SECONDS, f"{seconds:.1f} s"),
            (grown > MEMORY + 2 * len(data), f"{grown / 1e6:.0f} MB for {len(data)} bytes"),
            (self._forbidden, f"it did {'; '.join(self._forbidden)}"),
            (others, f"it left {', '.join(others)}"),
        ):
            if wrong:
                raise Finding(self._said(parser, data, what))
        (self.folder / f"input{parser.suffix}").unlink()

    def _said(self, parser: Parser, data: bytes, what: str) -> str:
        kept = self.folder.parent / f"{parser.name}-{hashlib.sha256(data).hexdigest()[:16]}"
        kept.write_bytes(data)
        (self.folder / f"input{parser.suffix}").unlink(missing_ok=True)
        return f"{parser.name}: {what}; the input is {kept}"


def _writes(flags: object) -> bool:
    return isinstance(flags, int) and bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC))


def mutated(parser: Parser, rng: random.Random) -> bytes:
    """One of the parser's valid files, changed."""
    return parser.mutate(rng, rng.choice(parser.seeds()))


def _peak() -> int:
    """The most memory that this process has had so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
