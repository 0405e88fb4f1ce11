"""``edge-resnet explain``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edge_resnet.cli._console import JsonFlag, check_picture, print_json, print_table, say
from edge_resnet.cli._trust import Trust
from edge_resnet.output import write_atomically

if TYPE_CHECKING:
    from edge_resnet.explain import Explanation, View


def run(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="A `.edge` bundle in INT8 or FP8.")],
    image: Annotated[Path, typer.Argument(metavar="IMAGE", help="An image file.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="F.png", help="Draw it; needs the extra `plots`.")
    ] = None,
    label: Annotated[
        str | None, typer.Option("--class", metavar="LABEL", help="The class to explain; by default FP32's answer.")
    ] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Shows which parts of an image speak for a class, in FP32 and quantized: whether quantization moved the attention.

    Networks that end in a global average and a linear layer give class activation maps, which are exact; of others, parts
    of the image are covered. The quantized network is evaluated from its Q/DQ graph, whatever engine the bundle holds.

    Example: `edge-resnet explain model.edge photo.jpg -o photo.explained.png`
    """
    from edge_resnet.explain import explain

    if output is not None:
        check_picture(output, bundle, image)
    found = explain(bundle, image, label, trust)
    if output is not None:
        from edge_resnet.attention_plot import attention_png

        title = f"{image.name}: where {bundle.name} sees '{found.labels[found.index]}'"
        write_atomically(output, attention_png(found, title))
    if json:
        print_json(_document(found, image, output))
        return
    _show(found, image)
    if output is not None:
        say(f"wrote {output}")


def _document(found: Explanation, image: Path, output: Path | None) -> dict[str, Any]:
    return {
        "image": str(image),
        "class": {"label": found.labels[found.index], "index": found.index},
        "method": found.method,
        "evaluated": "predicted",
        "correlation": found.correlation,
        "maximum_shift_px": found.shift,
        "largest_change": found.largest_change,
        "fp32": _view(found, found.fp32),
        "quantized": _view(found, found.quantized),
        "plot": None if output is None else str(output),
    }


def _view(found: Explanation, view: View) -> dict[str, Any]:
    return {
        "precision": view.precision,
        "label": found.labels[view.answer],
        "probability": float(view.probabilities[view.answer]),
        "class_probability": float(view.probabilities[found.index]),
        "class_logit": float(view.logits[found.index]),
        "maximum_px": list(found.maximum(view)),
        "map": view.map.astype(float).tolist(),
    }


def _show(found: Explanation, image: Path) -> None:
    label = found.labels[found.index]
    rows = []
    for view in (found.fp32, found.quantized):
        x, y = found.maximum(view)
        probabilities = view.probabilities
        rows.append(
            (
                view.precision if view is found.fp32 else f"{view.precision}, predicted",
                f"{found.labels[view.answer]} {100 * probabilities[view.answer]:.1f} %",
                f"{100 * probabilities[found.index]:.1f} %",
                f"x {x:.0f}, y {y:.0f}",
            )
        )
    print_table(f"{image}: what speaks for '{label}'", ("network", "answer", f"'{label}'", "most at (px)"), rows)
    height, width = found.frame.shape[:2]
    like = "not defined: a map is the same everywhere" if found.correlation is None else f"{found.correlation:.4f}"
    say(
        f"{found.method}: correlation of the maps {like}; maximum moved {found.shift:.1f} px of {width}×{height}; "
        f"largest change {100 * found.largest_change:.1f} % of FP32's largest value"
    )
