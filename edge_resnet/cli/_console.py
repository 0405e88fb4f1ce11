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
    if title is not None:
        _OUT.print(title, style="bold", markup=False)
    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        numeric = all(isinstance(row[index], (int, float)) or row[index] is None for row in rows)
        table.add_column(column, justify="right" if rows and numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("–" if cell is None else str(cell)) for cell in row))
    _OUT.print(table)


class BarProgress(Progress):
    """Draws a bar a stage on stderr, one below the other, when that is a terminal."""

    def __init__(self) -> None:
        self._console = Console(stderr=True)
        self._bars: Bars | None = None

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        with Bars(
            TextColumn("{task.description:26}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        ) as self._bars:
            task = self._bars.add_task(name, total=total)
            yield
            steps = self._bars.tasks[task].total or 1
            self._bars.update(task, total=steps, completed=steps)

    def advance(self, steps: int) -> None:
        if self._bars is not None:
            self._bars.advance(self._bars.task_ids[0], steps)

    def update_phase(self, phase: str, done: int, total: int) -> None:
        if self._bars is not None:
            self._bars.update(self._bars.task_ids[0], completed=done, total=total)

    def note(self, text: str) -> None:
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)
