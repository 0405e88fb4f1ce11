"""What all commands share: JSON on stdout, tables for people, progress bars on stderr."""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from edge_resnet.errors import OutputError
from edge_resnet.output import check_writable
from edge_resnet.progress import Progress

JsonFlag = Annotated[bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")]
Images = Annotated[
    Path,
    typer.Option(
        "--images", metavar="DIR", help="A folder per class, a flat folder (unlabelled), or a CSV of `path,label`."
    ),
]
Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Draw N images, evenly over classes.")]

_OUT = Console(highlight=False, width=None if sys.stdout.isatty() else 160)
"""A file or pipe has no width: tables get room there, and a person's terminal keeps its own."""

LONGEST_WORD = 20
"""Characters of what a narrow terminal does not break."""


def check_picture(place: Path, *sources: Path) -> None:
    """Refuses a place for a picture that cannot be written, and a missing matplotlib, before minutes of work.

    Raises:
        OutputError: the name does not end with .png, or it cannot be written there.
    """
    if place.suffix.lower() != ".png":
        raise OutputError(f"cannot write '{place}': the picture is a PNG file: give a name that ends with .png")
    check_writable(place, *sources)
    import_module("matplotlib")


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def say(text: str) -> None:
    """A line for a person on stdout."""
    _OUT.print(text, markup=False, soft_wrap=True)


def print_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for a person on stdout; None is shown as a dash, and numbers stand to the right."""
    if title is not None:
        _OUT.print(title, style="bold", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        words = all(_is_word(row[index]) for row in rows)
        table.add_column(column, justify="right" if rows and numeric else "left", overflow="fold", no_wrap=words)
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    _OUT.print(table)


def _is_word(cell: object) -> bool:
    """Short, and without spaces: a target's name or a figure, which nobody could copy from two lines."""
    text = str(cell)
    return len(text) <= LONGEST_WORD and " " not in text


class BarProgress(Progress):
    """Draws a bar a stage on stderr, one below the other, when that is a terminal.

    Where a stage has phases, its bar is that of the phase, which stands behind it: phases differ in speed, so the time
    left is the phase's too.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._screen = _Screen(console or Console(stderr=True))
        self._bars: Bars | None = None
        self.notes: list[str] = []
        """What has been noted, for the JSON document."""

    def beside(self) -> BarProgress:
        """Another, whose bars stand below those of this one while both have open stages."""
        made = BarProgress()
        made._screen, made.notes = self._screen, self.notes
        return made

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        with self._screen.bars() as self._bars:
            self._task = self._bars.add_task(name, total=total, phase="")
            yield
            steps = self._bars.tasks[self._task].total or 1
            self._bars.update(self._task, total=steps, completed=steps, phase="")

    def advance(self, steps: int) -> None:
        if self._bars is not None:
            self._bars.advance(self._task, steps)

    def update_phase(self, phase: str, done: int, total: int) -> None:
        if self._bars is None:
            return
        task = self._bars.tasks[self._task]  # none is ever removed
        if task.fields["phase"] != phase:
            started = task.start_time
            self._bars.reset(task.id, phase=phase)  # forgets the speed of the phase before
            task.start_time = started
        self._bars.update(task.id, completed=done, total=total)

    def note(self, text: str) -> None:
        self.notes.append(text)
        self._screen.console.print(text, markup=False, highlight=False, soft_wrap=True)


class _Screen:
    """A terminal's bars, of stages in one thread or several: drawn anew until the last open one is closed."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._lock = threading.Lock()
        self._open = 0
        self._bars: Bars | None = None

    @contextmanager
    def bars(self) -> Iterator[Bars]:
        """Where a stage's bar goes while it is open."""
        with self._lock:
            bars = self._bars = self._bars or self._drawn()
            self._open += 1
        try:
            yield bars
        finally:
            with self._lock:
                self._open -= 1
                if not self._open:
                    bars.stop()
                    self._bars = None

    def _drawn(self) -> Bars:
        bars = Bars(
            TextColumn("{task.description:26}"),
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[phase]}", table_column=Column(no_wrap=True, overflow="ellipsis")),
            console=self.console,
            disable=not self.console.is_terminal,
        )
        bars.start()
        return bars
