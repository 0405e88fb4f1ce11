"""The preprocessing flags that ``export`` and ``calibrate`` share."""

from __future__ import annotations

import math
from typing import Annotated

import typer

from edge_resnet.errors import RecipeError
from edge_resnet.preprocessing import Color, Crop, Interpolation, Preprocessing, load_preprocessing

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
        found = load_preprocessing(spec)
        if size is not None and size != found.size:
            raise RecipeError(
                f"--preprocessing {spec} makes {found.size[0]}×{found.size[1]}, not {size[0]}×{size[1]}: "
                f"leave the size out, or write a TOML file with the size that you want"
            )
        return found
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
