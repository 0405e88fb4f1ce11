"""``edge-resnet info``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.cli._trust import Trust
from edge_resnet.errors import EdgeResnetError, GateError
from edge_resnet.inspection import inspect_file, read_sbom, verify_bundle


def run(
    file: Annotated[Path, typer.Argument(help="A bundle, ONNX file, calibration table or engine record.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Run each engine that runs here over the golden samples.")
    ] = False,
    sbom: Annotated[
        bool, typer.Option("--sbom", help="Print the packages that a bundle was built with, as CycloneDX JSON, alone.")
    ] = False,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Shows what is inside a file. A bundle's bytes are always checked; `--verify` runs its engines too.

    Example: `edge-resnet info model.edge --verify`
    """
    if sbom and verify:
        raise EdgeResnetError("--sbom prints its list alone: leave --verify out")
    if sbom:
        print_json(read_sbom(file, trust))
        return
    document = inspect_file(file, trust)
    if verify:
        document["verify"] = verify_bundle(file, trust)
    if json:
        print_json(document)
    else:
        for line in _lines(document):
            say(line)
    failed = [each for each in document.get("verify", ()) if each["passed"] is False]
    if failed:
        raise GateError(
            f"{file}: the engine for {failed[0]['target']} does not answer its golden samples: build it again here"
        )


def _lines(value: object, indent: int = 0) -> Iterator[str]:
    """A document as indented lines; long lists are cut."""
    if not isinstance(value, dict):
        yield f"{' ' * indent}{_plain(value)}"
        return
    for key, item in value.items():
        if isinstance(item, dict) and item:
            yield f"{' ' * indent}{key}:"
            yield from _lines(item, indent + 2)
        elif isinstance(item, (list, tuple)) and item and isinstance(item[0], dict):
            yield f"{' ' * indent}{key}:"
            for each in item:
                yield f"{' ' * (indent + 2)}{', '.join(f'{name} {_plain(v)}' for name, v in each.items() if v is not None)}"
        else:
            yield f"{' ' * indent}{key}: {_plain(item)}"


def _plain(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        shown = ", ".join(map(_plain, value[:12]))
        return f"{shown}, … ({len(value)} in all)" if len(value) > 12 else shown
    if isinstance(value, dict):
        return "; ".join(f"{name} {_plain(each)}" for name, each in value.items()) or "–"
    return "–" if value is None else str(value)
