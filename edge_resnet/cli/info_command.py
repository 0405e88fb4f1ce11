"""``edge-resnet info``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, print_table
from edge_resnet.inspection import inspect_file, verify_bundle


def run(
    file: Annotated[Path, typer.Argument(help="A bundle, ONNX file, calibration table or engine record.")],
    verify: Annotated[
        bool, typer.Option("--verify", help="Run each engine that runs here over the golden samples.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Shows what is inside a file. A bundle's bytes are always checked; `--verify` runs its engines too.

    Example: `edge-resnet info model.edge --verify`
    """
    document = inspect_file(file)
    if verify:
        document["verify"] = verify_bundle(file)
    if json:
        print_json(document)
    else:
        print_table(str(file), ("", ""), [(key, _short(value)) for key, value in document.items()])
    failed = [each for each in document.get("verify", ()) if each["passed"] is False]
    if failed:
        from edge_resnet.errors import GateError

        raise GateError(
            f"{file}: the engine for {failed[0]['target']} does not answer its golden samples: build it again here"
        )


def _short(value: object) -> str:
    if isinstance(value, list) and len(value) > 12:
        return f"{', '.join(map(str, value[:6]))}, … ({len(value)} in all)"
    if isinstance(value, list):
        return "\n".join(map(str, value))
    if isinstance(value, dict):
        return "\n".join(f"{key}: {item}" for key, item in value.items())
    return str(value)
