"""``edge-resnet export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, say
from edge_resnet.cli._preprocessing import Mean, Resize, Side, Spec, Std, numbers, of_size, preprocessing_of
from edge_resnet.errors import ModelError, RecipeError
from edge_resnet.labels import read_labels
from edge_resnet.output import check_writable
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.recipe import POOLINGS

if TYPE_CHECKING:
    from onnx import ModelProto

    from edge_resnet.models import ResNet


def run(
    output: Annotated[Path, typer.Option("-o", "--output", help="The ONNX file to write.")],
    arch: Annotated[str, typer.Option(help="Architecture; see `edge-resnet models`.")],
    weights: Annotated[Path | None, typer.Option(help="Checkpoint; without one the weights are random.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Text file of class names, one a line.")] = None,
    classes: Annotated[int | None, typer.Option(min=1, help="Logits; by default as many as the weights have.")] = None,
    shortcut: Annotated[
        str | None, typer.Option(metavar="A|B|C|D|E", help="Shortcuts in the place of the architecture's own.")
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
    from edge_resnet.export import max_abs_error
    from edge_resnet.onnx_file import save_onnx
    from edge_resnet.weights import load_model

    check_writable(output, weights, labels)
    shape, channels = _shape(size, input_shape)
    names = None if labels is None else read_labels(labels)
    head = _head(include_top, pooling, classes)
    by_hand = any(value is not None for value in (preprocessing, resize, mean, std))
    spec = preprocessing_of(preprocessing, shape, resize, mean, std) if by_hand else None
    own = None if by_hand or float_input else _keras_own(arch, weights, shape)
    channels = _channels(channels, spec or own)
    classes = classes or (len(names) if names and weights is None else None)
    model = load_model(arch, weights, classes=classes, channels=channels, shortcut=shortcut, head=head)
    made = _float(model, spec, shape) if float_input else _of_frames(model, spec or own, names)
    error = max_abs_error(model, made, spec or own)
    save_onnx(made, output)
    if own is not None:
        how = f"{own.size[0]}×{own.size[1]} {own.color.value}, mean {own.mean}, std {own.std}"
        BarProgress().note(f"preprocessing: Keras's own for these weights, {how}")
    parameters = sum(parameter.numel() for parameter in model.parameters())
    if json:
        print_json({"onnx": str(output), "parameters": parameters, "max_abs_error": error})
    else:
        say(f"wrote {output}: {parameters:,} parameters, answers within {error:.1e} of torch")


def _keras_own(arch: str, weights: Path | None, size: tuple[int, int] | None) -> Preprocessing | None:
    """What Keras fixes for its own weights; None for others."""
    from edge_resnet.weights import own_preprocessing

    own = None if weights is None else own_preprocessing(arch, weights)
    return None if own is None else of_size(own, size, "Keras's own")


def _float(model: ResNet, spec: Preprocessing | None, size: tuple[int, int] | None) -> ModelProto:
    from edge_resnet.export import export_float_onnx

    return export_float_onnx(model, spec.size if spec is not None else size or (model.architecture.size,) * 2)


def _of_frames(model: ResNet, spec: Preprocessing | None, labels: tuple[str, ...] | None) -> ModelProto:
    from edge_resnet.export import export_onnx

    if spec is None:
        raise ModelError(
            "the ONNX takes camera frames and so needs the preprocessing: give --preprocessing imagenet, say"
        )
    return export_onnx(model, spec, labels)


def _channels(asked: int | None, spec: Preprocessing | None) -> int | None:
    if spec is None:
        return asked
    if asked not in (None, spec.channels):
        raise RecipeError(f"--input-shape has {asked} channels, the preprocessing {spec.channels}: make them agree")
    return spec.channels


def _head(include_top: bool, pooling: str, classes: int | None) -> str:
    if pooling not in POOLINGS:
        raise RecipeError(f"--pooling is '{pooling}': choose one of {', '.join(POOLINGS)}")
    if include_top and pooling != "none":
        raise RecipeError(f"--pooling {pooling} is for features: add --no-top")
    if not include_top and classes is not None:
        raise RecipeError(f"--classes {classes} is for a classifier: leave it out, or --no-top")
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
