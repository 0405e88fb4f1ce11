"""Where a live classification is shown: a terminal, a pipe, a page, or nowhere."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from edge_resnet.camera import Camera
    from edge_resnet.classifier import Classifier
    from edge_resnet.live import LiveView

BAR = 30
"""Characters of a full bar."""
REFRESH = 10
"""Pictures a second, at most."""


def _nothing(over: threading.Event) -> None:
    pass


@dataclass(frozen=True)
class Display:
    """What shows moments."""

    show: Callable[[LiveView], None]
    ended: Callable[[threading.Event], None] = _nothing
    """Called when the source has ended; returns when there is nothing to look at any more, or once the event is set."""


@contextmanager
def screen(json: bool) -> Iterator[Display]:
    """Draws on a terminal; into a file or pipe a line a second; nothing beside JSON."""
    console = Console(highlight=False)
    if json:
        yield Display(lambda view: None)
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=REFRESH, transient=False) as live:
            yield Display(lambda view: live.update(drawn(view)))
    else:
        yield Display(_line_a_second())


@contextmanager
def page(classify: Classifier, camera: Camera, address: tuple[str, int], json: bool) -> Iterator[Display]:
    """Serves a page, and says where; it stays when the source has ended.

    Raises:
        UnavailableError: nobody can listen at this host and port.
    """
    from edge_resnet.web.board import Board, Status
    from edge_resnet.web.server import Address, serving

    where = Address(*address)
    note = sys.stderr if json else sys.stdout

    def ended(over: threading.Event) -> None:
        board.end(Status.ENDED)
        if not over.is_set():
            print("the source has ended; the page stays until Ctrl-C", file=note, flush=True)
            over.wait()

    with Board(classify, camera) as board, serving(board, where) as url:
        print(url, file=note)
        if where.is_loopback:
            port = url.rstrip("/").rpartition(":")[2]
            print(f"for a browser elsewhere: ssh -L {port}:localhost:{port} THIS-MACHINE, then the same", file=note)
        print("Ctrl-C ends it", file=note, flush=True)
        yield Display(board.put, ended)


def _line_a_second() -> Callable[[LiveView], None]:
    said = 0.0

    def show(view: LiveView) -> None:
        nonlocal said
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            best = view.prediction
            pace = f"{view.per_second:.1f} frames/s" if view.answered > 1 else "the first frame"
            print(f"{best.label} {best.probability:.1%}, {pace}, age {view.age_ms:.0f} ms", flush=True)

    return show


def drawn(view: LiveView) -> Group:
    """The picture of a moment."""
    table = Table.grid(padding=(0, 1))
    for label, probability in view.smoothed:
        filled = round(BAR * probability)
        bar = Text("█" * filled, style="green") + Text("░" * (BAR - filled), style="dim")
        table.add_row(Text(label), bar, Text(f"{probability:6.1%}"))
    camera = view.camera
    facts = (
        f"{view.per_second:.1f} frames/s · engine {view.run_ms:.1f} ms · capture to answer {view.age_ms:.0f} ms "
        f"(99 %: {view.age_p99_ms:.0f} ms)"
    )
    dropped = view.dropped + camera.dropped
    counts = f"{view.answered} answered, {dropped} dropped for newer ones, {camera.reconnects} reconnects"
    trouble = [] if camera.connected or camera.last_error is None else [Text(camera.last_error, style="red")]
    return Group(table, Text(facts), Text(counts, style="dim"), *trouble)
