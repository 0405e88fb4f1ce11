"""What long work tells whoever waits for it. The command line draws bars; everybody else may ignore it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Progress:
    """Receives the course of long work, and by default says nothing."""

    @contextmanager
    def stage(self, name: str, total: int | None = None) -> Iterator[None]:
        """Work called ``name`` goes on while the context is open; ``total`` steps, where that is known."""
        yield

    def advance(self, steps: int) -> None:
        """Steps of the open stage are done."""

    def update_phase(self, phase: str, done: int, total: int) -> None:
        """A compiler or a refinement stands at ``done`` of ``total`` steps of a phase of the open stage."""

    def beside(self) -> Progress:
        """What is told of work in another thread, which goes on at the same time and has open stages of its own."""
        return self

    def note(self, text: str) -> None:
        """Something that whoever waits should know, one line."""
