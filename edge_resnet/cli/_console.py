"""What all commands share: JSON on stdout, tables for people, progress bars on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

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


def print_json(document: Any) -> None:
    """One JSON document on stdout."""
    print(json.dumps(document, indent=2, allow_nan=False))


def say(text: str) -> None:
    """A line for a person on stdout."""
    _OUT.print(text, markup=False, soft_wrap=True)


def print_table(title: str | None, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """A table for a person on stdout; None is shown as a dash, and numbers stand to the right."""
    table = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if rows and numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    _OUT.print(table)


class BarProgress(Progress):
    """Draws a bar a stage on stderr, when that is a terminal."""

    def __init__(self) -> None:
        columns = [TextColumn("{task.description:28}"), BarColumn(), MofNCompleteColumn()]
        self._bars = Bars(
            *columns,
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._bars.add_task("", visible=False)

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        self._task = self._bars.add_task(name, total=total)
        with self._bars:
            yield
            done = self._bars.tasks[-1]
            self._bars.update(self._task, total=done.total or 1, completed=done.total or 1)

    def advance(self, steps: int) -> None:
        self._bars.advance(self._task, steps)

    def update_phase(self, phase: str, done: int, total: int) -> None:
        self._bars.update(self._task, completed=done, total=total)
