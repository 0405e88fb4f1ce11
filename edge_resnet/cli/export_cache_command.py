"""``edge-resnet export-cache``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import JsonFlag, print_json, say
from edge_resnet.output import check_writable, write_atomically


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="The FP32 ONNX that TensorRT will read.")],
    table: Annotated[Path, typer.Option(help="Its calibration table, from `edge-resnet calibrate`.")],
    version: Annotated[
        str,
        typer.Option(
            "--trt-version",
            metavar="DIGITS",
            help="Of the TensorRT that will read the cache, which refuses others: 8502 is 8.5.2, 100300 is 10.3.0.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration cache to write.")],
    json: JsonFlag = False,
) -> None:
    """Writes a table as TensorRT's calibration cache: for its implicit INT8 up to version 10, which DLA there needs.

    TensorRT looks tensors up by name, so F.onnx must be the very FP32 file that it is given. What the cache does not name
    stays float. `edge-resnet import-cache` reads a cache.

    Example: `edge-resnet export-cache r50.onnx --table r50.table.json --trt-version 8502 -o calib.cache`
    """
    from edge_resnet.cache_files import file_names
    from edge_resnet.calibration.trt_cache import write_cache
    from edge_resnet.quantize_files import open_calibrated, open_table

    check_writable(output, model, table)
    ranges = open_table(table)
    network = open_calibrated(model, ranges)
    names = file_names(model, network.preprocessing)
    named = names.in_file(ranges)
    write_atomically(output, write_cache(named, version).encode())
    unknown = names.unknown(named.ranges)
    if json:
        print_json({"cache": str(output), "tensors": len(named.ranges), "unknown": unknown})
        return
    say(f"wrote {output}: {len(named.ranges)} tensors for TensorRT {version}")
    if unknown:
        say(f"{model} has no tensors of these names, which TensorRT will pass over: {', '.join(unknown)}")
