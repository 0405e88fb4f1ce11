"""The flag by which commands spread their work over a cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.progress import Progress

if TYPE_CHECKING:
    from edge_resnet.workforce import Workforce

Ray = Annotated[
    str | None,
    typer.Option(
        "--ray",
        metavar="HOST:PORT|local",
        help="Spread the work over the workers of a Ray cluster, such as 10.0.0.1:6379; the result is the same.",
    ),
]


@contextmanager
def working(address: str | None, progress: Progress) -> Iterator[Workforce]:
    """Who does a command's work, for as long as it takes: the workers of a cluster, or without an address this machine.

    Raises:
        UnavailableError: Ray is not installed, or the cluster does not answer.
    """
    if address is None:
        from edge_resnet.workforce import THIS_MACHINE

        yield THIS_MACHINE
        return
    from edge_resnet.cluster.connection import connected
    from edge_resnet.cluster.crew import Crew

    with connected(address):
        yield Crew(progress.note)
