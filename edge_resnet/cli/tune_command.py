"""``edge-resnet tune``."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli._console import BarProgress, JsonFlag, check_picture, print_json, print_table, say
from edge_resnet.cli._workforce import Ray, working
from edge_resnet.output import check_writable, write_atomically
from edge_resnet.recipe import EFFORTS, load_recipe

if TYPE_CHECKING:
    from edge_resnet.tuning.tried import Figures, Tried
    from edge_resnet.tuning.tune import Tuned


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe to start from; it is the first trial.")],
    max_drop: Annotated[
        float, typer.Option(metavar="P", help="Points of top-1 that may be lost against the original FP32 network.")
    ],
    min_fps: Annotated[
        float | None, typer.Option(metavar="N", help="Frames a second; by default those of the recipe as it stands.")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The device; by default the recipe's first.")] = None,
    trials: Annotated[int, typer.Option(metavar="N", min=1, help="In all, with those of earlier runs.")] = 50,
    seconds: Annotated[float | None, typer.Option(metavar="N", min=0, help="Begin no trial later than this.")] = None,
    effort: Annotated[
        str, typer.Option(metavar="|".join(EFFORTS), help="The most that a trial spends on refinement.")
    ] = "standard",
    seed: Annotated[int, typer.Option(min=0, help="Of what is tried.")] = 0,
    storage: Annotated[
        Path | None, typer.Option(metavar="F.db", help="Where the search is kept; by default beside the output.")
    ] = None,
    output: Annotated[Path, typer.Option("-o", "--output", help="The recipe to write.")] = Path("tuned.toml"),
    plot: Annotated[
        Path | None, typer.Option(metavar="F.png", help="Draw accuracy against latency; needs the extra `plots`.")
    ] = None,
    ray: Ray = None,
    json: JsonFlag = False,
) -> None:
    """Searches for the recipe that meets a goal best: ranges, refinement, layers left float, input size.

    Half of the [accuracy] images choose, the other half reports. Interrupted or killed, the same command goes on.

    Example: `edge-resnet tune edge-resnet.toml --min-fps 15 --max-drop 0.5 --target cpu -o tuned.toml --plot tuned.png`
    """
    import_module("optuna")  # said before minutes of work, as is what cannot be written
    kept = output.with_suffix(".db") if storage is None else storage
    _check_places(recipe, output, kept, plot)
    from edge_resnet.tuning.goal import Goal
    from edge_resnet.tuning.tune import Plan, require_met, tune

    bars = BarProgress()
    goal = Goal(min_fps, max_drop)
    with working(ray, bars) as workforce:
        plan = Plan(trials, seconds, kept, effort, seed, workforce)
        tuned = tune(load_recipe(recipe), goal, target, plan, bars)
    if tuned.interrupted:
        bars.note(f"interrupted after {tuned.trials} of {trials} trials: the same command goes on, from {kept}")
    if tuned.met:
        write_atomically(output, _text(tuned, target, output).encode())
    if plot is not None:
        _draw(plot, tuned)
    places = {"recipe": str(output) if tuned.met else None, "storage": str(kept), "plot": str(plot) if plot else None}
    if json:
        print_json({**places, **tuned.to_json(), "notes": bars.notes})
    else:
        _show(tuned)
        for place in (places["recipe"], places["plot"]):
            if place:
                say(f"wrote {place}")
    require_met(tuned)


def _check_places(recipe: Path, output: Path, storage: Path, plot: Path | None) -> None:
    for place, others in ((output, (recipe, storage)), (storage, (recipe, output))):
        check_writable(place, *others)
    if plot is not None:
        check_picture(plot, recipe, output, storage)


def _text(tuned: Tuned, target: str | None, output: Path) -> str:
    from edge_resnet.tuning.result import tuned_text

    return tuned_text(tuned, output.parent, only_target=target is not None)


def _draw(plot: Path, tuned: Tuned) -> None:
    from edge_resnet.tuning.plot import front_png

    write_atomically(plot, front_png(tuned))


def _show(tuned: Tuned) -> None:
    columns = ("trial", "method", "refinement", "float", "size", "ms", "FPS", "SQNR dB", "agreement", "drop (95 %)")
    title = f"None beats these in both latency ({tuned.latency}) and nearness to FP32 ({tuned.evaluated})"
    print_table(title, columns, [_row(each) for each in tuned.front])
    early = tuned.trials - len(tuned.tried)
    say(f"{tuned.trials} trials, {early} of them ended early; chosen on {tuned.own.figures.images} images")
    if tuned.latency == "estimate":
        say(f"latency is an ESTIMATE: {tuned.target} is not here (`edge-resnet estimate` gives its range)")
    say(f"as it stands: {_line(tuned.own, tuned.own_unseen)}")
    say(f"{'chosen' if tuned.met else 'nearest'}, trial {tuned.chosen.number}: {_line(tuned.chosen, tuned.unseen)}")


def _row(tried: Tried) -> tuple[object, ...]:
    settings, figures = tried.settings, tried.figures
    size = "own" if settings.size is None else "×".join(map(str, settings.size))
    refinement = f"{settings.effort}: {' '.join(settings.refine) or 'none'}"
    quality = (round(figures.sqnr_db, 1), f"{100 * figures.agreement:.2f} %", _drop(figures))
    speed = (float(f"{tried.latency_ms:.4g}"), float(f"{tried.fps:.4g}"))
    return (tried.number, settings.method, refinement, len(settings.keep_float), size, *speed, *quality)


def _line(tried: Tried, unseen: Figures) -> str:
    return (
        f"{tried.latency_ms:.4g} ms, {tried.fps:.4g} FPS; on {unseen.images} unseen images {unseen.sqnr_db:.1f} dB, "
        f"agreement {100 * unseen.agreement:.2f} %, drop {_drop(unseen)}"
    )


def _drop(figures: Figures) -> str:
    return f"{figures.drop:+.2f} ({figures.ci95[0]:+.2f} to {figures.ci95[1]:+.2f})"
