"""``edge-resnet import-cache``."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import Images, JsonFlag, print_json, say
from edge_resnet.cli._preprocessing import Mean, Resize, Side, Spec, Std, network_of, preprocessing_of
from edge_resnet.images import open_images
from edge_resnet.output import check_writable, write_atomically


def run(
    model: Annotated[Path, typer.Argument(metavar="F.onnx", help="The FP32 ONNX that TensorRT calibrated.")],
    cache: Annotated[Path, typer.Option(help="The calibration cache that it wrote, of any of its calibrators.")],
    images: Images,
    output: Annotated[Path, typer.Option("-o", "--output", help="The calibration table to write.")],
    preprocessing: Spec = None,
    size: Side = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    json: JsonFlag = False,
) -> None:
    """Reads TensorRT's calibration cache as a table, for `edge-resnet quantize`.

    Names in the cache must be names of tensors in F.onnx. The images are those that TensorRT calibrated with: `quantize`
    refines on them, and `check` refuses to judge on them.

    Example: `edge-resnet import-cache r50.onnx --cache calib.cache --images train/ -o r50.table.json`
    """
    from edge_resnet.appearance import Appearance
    from edge_resnet.cache_files import file_names, open_cache
    from edge_resnet.calibration.trt_cache import table_from_cache
    from edge_resnet.calibration_images import calibration_manifest

    check_writable(output, model, cache)
    given = preprocessing_of(preprocessing, None if size is None else (size, size), resize, mean, std)
    found, network = open_cache(cache), network_of(model, given)
    spec, names = network.preprocessing, file_names(model, network.preprocessing)
    shown = open_images(images)
    table = table_from_cache(
        names.in_network(found),
        network.model,
        images={
            **calibration_manifest(shown, Appearance.of(shown, spec)),
            "path": os.path.relpath(images, output.parent),
        },
        preprocessing=spec.to_json(),
    )
    write_atomically(output, table.to_json().encode())
    unknown = names.unknown(found.amax)
    if json:
        print_json({"table": str(output), "method": table.method, "tensors": len(table.ranges), "unknown": unknown})
        return
    say(f"wrote {output}: {len(table.ranges)} tensors by {table.method}")
    if unknown:
        say(f"{model} has no tensors of these names, which were left aside: {', '.join(unknown)}")
