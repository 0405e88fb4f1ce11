"""``edge-resnet live``."""

from __future__ import annotations

import shlex
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_resnet.bundle import BUNDLE_SUFFIX
from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._live_display import page, screen
from edge_resnet.cli._trust import Trust
from edge_resnet.errors import CameraError

if TYPE_CHECKING:
    from edge_resnet.camera import Camera
    from edge_resnet.live import LiveView

HOST, PORT = "127.0.0.1", 8000


def run(
    sources: Annotated[
        list[str],
        typer.Argument(metavar="SOURCE", help="A camera: v4l2:///dev/video0, csi://0, rtsp://…, a video, a folder."),
    ],
    bundle: Annotated[str | None, typer.Option(metavar="PATH", help="A `.edge` bundle; required.")] = None,
    target: Annotated[str | None, typer.Option(help="Which engine; by default the fastest that runs here.")] = None,
    seconds: Annotated[float | None, typer.Option(min=0.1, help="End after so long.")] = None,
    web: Annotated[bool, typer.Option("--web", help="Show it as a page for a browser (extra `web`).")] = False,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help=f"Of the page; 0: any free one. [{PORT}]")] = None,
    host: Annotated[
        str | None, typer.Option(help=f"Where the page listens; beyond this machine, it needs a token. [{HOST}]")
    ] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Classifies a camera live: the five most probable classes, frames a second, and the age of each answer.

    In this terminal, or with `--web` as a page with video and plots, also for a browser elsewhere (docs/camera.md).

    Example: `edge-resnet live v4l2:///dev/video0 --bundle model.edge`
    """
    source, chosen = _checked(sources, bundle)
    if not web and (port, host) != (None, None):
        raise typer.BadParameter("--port and --host are those of a page: give --web too")
    from edge_resnet.camera import open_camera
    from edge_resnet.camera.address import without_secrets
    from edge_resnet.classifier import Classifier
    from edge_resnet.live import watch

    address = (HOST if host is None else host, PORT if port is None else port)
    last: LiveView | None = None
    with (
        Classifier(chosen, target=target, trust=trust) as classify,
        open_camera(
            source,
            latest=not Path(source).is_dir(),  # a folder has no time to keep up with
            color=classify.camera_color,
        ) as camera,
        page(classify, camera, address, json) if web else screen(json) as display,
        _ending(seconds, camera) as over,
    ):
        try:
            for view in watch(classify, camera):
                last = view
                display.show(view)
            display.ended(over)
        except KeyboardInterrupt:
            pass  # how a person ends it
        final = camera.stats
    document = _document(without_secrets(source), last, final.captured, final.dropped)
    if json:
        print_json(document)
    else:
        answered = f"{document['answered']} of {document['captured']} frames answered"
        say(f"{answered}, {document['dropped']} dropped for newer ones")


def _checked(sources: list[str], bundle: str | None) -> tuple[str, Path]:
    """Source and bundle, if each stands where it belongs: other commands take a bundle first, and people write it here too.

    Raises:
        CameraError: they do not; the message has the command as it should be.
    """
    if bundle is not None and len(sources) == 1 and not sources[0].endswith(BUNDLE_SUFFIX):
        return sources[0], Path(bundle)
    given = [*sources, *([] if bundle is None else [bundle])]
    bundles = [each for each in given if each.endswith(BUNDLE_SUFFIX)]
    cameras = [each for each in given if each not in bundles and "@" not in each]  # "@": a password may be in it
    words = (cameras[0] if cameras else "SOURCE", "--bundle", bundles[0] if bundles else "model.edge")
    reason = f"'{sources[0]}' is a bundle, not a camera" if sources[0] in bundles else "give one source, and a --bundle"
    raise CameraError(f"{reason}: write `edge-resnet live {shlex.join(words)}`")


@contextmanager
def _ending(seconds: float | None, camera: Camera) -> Iterator[threading.Event]:
    """Closes the camera after so long, also one that gives no frame; the event is set then."""
    over = threading.Event()

    def end() -> None:
        over.set()
        camera.close()

    timer = threading.Timer(threading.TIMEOUT_MAX if seconds is None else seconds, end)
    timer.daemon = True
    timer.start()
    try:
        yield over
    finally:
        timer.cancel()


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
