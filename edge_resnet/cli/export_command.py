"""``edge-resnet export``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, say
from edge_resnet.cli._preprocessing import Mean, Resize, Side, Spec, Std, numbers, preprocessing_of
from edge_resnet.errors import ModelError, RecipeError
from edge_resnet.labels import read_labels
from edge_resnet.output import check_writable
from edge_resnet.recipe import POOLINGS


def run(
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")],
    arch: Annotated[str, typer.Option(help="Architecture; see `edge-resnet models`.")],
    weights: Annotated[Path | None, typer.Option(help="Checkpoint; without one the weights are random.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file of class names, one a line.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Logits; by default as many as the weights have.")] = None,
    shortcut: Annotated[
        str | None, typer.Option(metavar="A|B|C|D", help="Shortcuts in the place of the architecture's own.")
    ] = None,
    include_top: Annotated[
        bool, typer.Option("--include-top/--no-top", help="With the classifier, or without: then it gives features.")
    ] = True,
    pooling: Annotated[
        str, typer.Option(metavar="none|avg|max", help="Without the top: a feature map, or its averages or maxima.")
    ] = "none",
    input_shape: Annotated[str | None, typer.Option(metavar="H,W,C", help="In the place of --size.")] = None,
    preprocessing: Spec = None,
    size: Side = None,
    resize: Resize = None,
    mean: Mean = None,
    std: Std = None,
    float_input: Annotated[
        bool, typer.Option("--float-input", help="For other tools: takes normalised float N×C×H×W, no preprocessing.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Exports a network as FP32 ONNX that takes uint8 camera frames, and compares it with torch.

    Example: `edge-resnet export --arch resnet50 --weights r50.pth --preprocessing imagenet -o r50.onnx`
    """
    from edge_resnet.export import export_float_onnx, export_onnx, max_abs_error
    from edge_resnet.onnx_file import save_onnx
    from edge_resnet.weights import load_model, own_preprocessing

    check_writable(output)
    shape, channels = _shape(size, input_shape)
    names = None if labels is None else read_labels(labels)
    by_hand = any(value is not None for value in (preprocessing, resize, mean, std))
    own = None if by_hand or weights is None else own_preprocessing(arch, weights)
    size_alone = (float_input or own is not None) and not by_hand
    spec = preprocessing_of(preprocessing, None if size_alone else shape, resize, mean, std)
    if own is not None and not float_input:
        spec = replace(own, size=shape or own.size)
    if channels is not None and spec is not None and channels != spec.channels:
        raise RecipeError(f"--input-shape has {channels} channels, the preprocessing {spec.channels}: make them agree")
    channels = spec.channels if spec is not None else channels
    classes = classes or (len(names) if names and weights is None else None)
    head = _head(include_top, pooling)
    model = load_model(arch, weights, classes=classes, channels=channels, shortcut=shortcut, head=head)
    if own is not None and spec is not None:
        how = f"{spec.size[0]}×{spec.size[1]} {spec.color.value}, mean {spec.mean}, std {spec.std}"
        BarProgress().note(f"preprocessing: Keras's own for these weights, {how}")
    if float_input:
        made = export_float_onnx(model, spec.size if spec is not None else shape or (model.architecture.size,) * 2)
    elif spec is None:
        raise ModelError(
            "the ONNX takes camera frames and so needs the preprocessing: give --preprocessing imagenet, say"
        )
    else:
        made = export_onnx(model, spec, names)
    error = max_abs_error(model, made, spec)
    save_onnx(made, output)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if json:
        print_json({"onnx": str(output), "parameters": parameters, "max_abs_error": error})
    else:
        say(f"wrote {output}: {parameters:,} parameters, answers within {error:.1e} of torch")


def _head(include_top: bool, pooling: str) -> str:
    if pooling not in POOLINGS:
        raise RecipeError(f"--pooling is '{pooling}': choose one of {', '.join(POOLINGS)}")
    if include_top and pooling != "none":
        raise RecipeError(f"--pooling {pooling} is for features: add --no-top")
    return "classifier" if include_top else POOLINGS[pooling]


def _shape(size: int | None, input_shape: str | None) -> tuple[tuple[int, int] | None, int | None]:
    if input_shape is None:
        return None if size is None else (size, size), None
    values = numbers("--input-shape", input_shape)
    if len(values) != 3 or any(value != int(value) or value < 1 for value in values) or values[2] not in (1, 3):
        raise RecipeError(
            f"--input-shape is '{input_shape}': give height, width and 1 or 3 channels, such as 224,224,3"
        )
    if size is not None and (size, size) != values[:2]:
        raise RecipeError(f"--size {size} and --input-shape {input_shape} contradict each other: give one")
    return (int(values[0]), int(values[1])), int(values[2])
