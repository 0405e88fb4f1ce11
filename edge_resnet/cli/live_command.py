"""``edge-resnet live``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import Trust

if TYPE_CHECKING:
    from edge_resnet.live import LiveView

BAR = 30
"""Characters of a full bar."""
REFRESH = 10
"""Pictures a second, at most."""


def run(
    source: Annotated[str, typer.Argument(help="A camera: v4l2:///dev/video0, csi://0, rtsp://…, a video, a folder.")],
    bundle: Annotated[Path, typer.Option(help="A `.edge` bundle.")],
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long.")] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Classifies a camera live: the five most probable classes, frames a second, and the age of each answer.

    Example: `edge-resnet live v4l2:///dev/video0 --bundle model.edge`
    """
    from edge_resnet.camera import open_camera
    from edge_resnet.classifier import Classifier
    from edge_resnet.live import watch

    end = None if seconds is None else time.monotonic() + seconds
    last: LiveView | None = None
    with (
        Classifier(bundle, target=target, trust=trust) as classify,
        open_camera(source, latest=not Path(source).is_dir()) as camera,  # a folder has no time to keep up with
        _screen(json) as show,
    ):
        try:
            for view in watch(classify, camera):
                last = view
                show(view)
                if end is not None and time.monotonic() >= end:
                    break
        except KeyboardInterrupt:
            pass  # how a person ends it
        final = camera.stats
    document = _document(source, last, final.captured, final.dropped)
    if json:
        print_json(document)
    else:
        answered = f"{document['answered']} of {document['captured']} frames answered"
        say(f"{answered}, {document['dropped']} dropped for newer ones")


def _document(source: str, last: LiveView | None, captured: int, lost: int) -> dict[str, Any]:
    document: dict[str, Any] = {"source": source, "captured": captured, "answered": 0, "dropped": lost}
    if last is None:
        return document
    prediction = last.prediction
    return document | {
        "answered": last.answered,
        "dropped": lost + last.dropped,
        "per_second": last.per_second,
        "run_ms": last.run_ms,
        "age_ms": {"p50": last.age_ms, "p99": last.age_p99_ms},
        "last": {"label": prediction.label, "index": prediction.index, "probability": prediction.probability},
    }


@contextmanager
def _screen(json: bool) -> Iterator[Callable[[LiveView], None]]:
    """Draws on a terminal; into a file or pipe a line a second; nothing beside JSON."""
    console = Console(highlight=False)
    if json:
        yield lambda view: None
    elif console.is_terminal:
        with Live(console=console, refresh_per_second=REFRESH, transient=False) as live:
            yield lambda view: live.update(drawn(view))
    else:
        yield _line_a_second()


def _line_a_second() -> Callable[[LiveView], None]:
    said = 0.0

    def show(view: LiveView) -> None:
        nonlocal said
        if time.monotonic() - said >= 1:
            said = time.monotonic()
            best = view.prediction
            print(
                f"{best.label} {best.probability:.1%}, {view.per_second:.1f} frames/s, age {view.age_ms:.0f} ms",
                flush=True,
            )

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
