"""The preprocessing flags that several commands share."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.errors import RecipeError
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing, load_preprocessing

if TYPE_CHECKING:
    from edge_resnet.adoption import Network

Spec = Annotated[
    str | None,
    typer.Option("--preprocessing", metavar="NAME|F.toml", help="imagenet, fashion-mnist, or a TOML file."),
]
Side = Annotated[int | None, typer.Option("--size", metavar="N", min=1, help="Height and width of the input.")]
Resize = Annotated[
    int | None,
    typer.Option("--resize", metavar="N", min=1, help="Shorter side before a centre crop; without it, no crop."),
]
Mean = Annotated[str | None, typer.Option("--mean", metavar="R,G,B", help="For pixels in 0..1; one number for grey.")]
Std = Annotated[str | None, typer.Option("--std", metavar="R,G,B", help="As --mean.")]


def numbers(flag: str, text: str) -> tuple[float, ...]:
    """Numbers with commas between them.

    Raises:
        RecipeError: one is no number.
    """
    try:
        found = tuple(float(part) for part in text.split(","))
    except ValueError:
        found = ()
    if not found or not all(map(math.isfinite, found)):
        raise RecipeError(f"{flag} is '{text}': give numbers with commas between them, such as 0.485,0.456,0.406")
    return found


def of_size(known: Preprocessing, size: tuple[int, int] | None, name: str) -> Preprocessing:
    """A known preprocessing for another size of the input, where that is all that changes: where nothing is cropped.

    Raises:
        RecipeError: it crops, and nobody has said what to resize to.
    """
    if size in (None, known.size):
        return known
    if known.crop is not Crop.NONE:
        raise RecipeError(
            f"preprocessing '{name}' resizes to {known.resize} and crops {known.size[0]}×{known.size[1]}, which "
            f"--size alone cannot change: leave it out, or write a TOML file with the size that you want"
        )
    return replace(known, size=size)


def preprocessing_of(
    spec: str | None, size: tuple[int, int] | None, resize: int | None, mean: str | None, std: str | None
) -> Preprocessing | None:
    """The preprocessing that the flags say; None when there are none.

    Raises:
        RecipeError: some are missing, or they contradict each other.
    """
    by_hand = [flag for flag, value in (("--resize", resize), ("--mean", mean), ("--std", std)) if value is not None]
    if spec is not None:
        if by_hand:
            raise RecipeError(f"--preprocessing and {by_hand[0]} contradict each other: give one or the other")
        return of_size(load_preprocessing(spec), size, spec)
    if size is None and not by_hand:
        return None
    if size is None or mean is None or std is None:
        raise RecipeError("the preprocessing is incomplete: give --preprocessing, or all of --size, --mean and --std")
    means, deviations = numbers("--mean", mean), numbers("--std", std)
    return Preprocessing(
        size=size,
        resize=resize,
        crop=Crop.NONE if resize is None else Crop.CENTER,
        interpolation=Interpolation.BILINEAR,
        color=Color.GRAY if len(means) == 1 else Color.RGB,
        mean=means,
        std=deviations,
    )


def network_of(model: Path, given: Preprocessing | None) -> Network:
    """The network of an FP32 ONNX file, with the preprocessing of the flags where the file holds none.

    Raises:
        RecipeError: the file holds another, or there is none at all.
        ModelError: the file cannot be used.
    """
    from edge_resnet.adoption import open_network

    network = open_network(model, given)
    if given not in (None, network.preprocessing):
        raise RecipeError(f"the flags contradict the preprocessing that {model} was exported with: leave them out")
    return network
