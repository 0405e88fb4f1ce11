"""``edge-resnet build``."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from edge_resnet.cli._accuracy import print_accuracy
from edge_resnet.cli._compression import print_compression
from edge_resnet.cli._console import BarProgress, JsonFlag, print_json, print_table, say
from edge_resnet.cli._engine import Batch, Compatible, Dla, Flags, Hardware, Level, Refit, Strip, Tf32, Workspace
from edge_resnet.demo import demo_recipe
from edge_resnet.errors import GateError, RecipeError
from edge_resnet.recipe import PRECISIONS, Recipe, load_recipe

if TYPE_CHECKING:
    from edge_resnet.chain import BuildResult


def run(
    recipe: Annotated[Path | None, typer.Argument(help="The recipe; without one, the demo is built.")] = None,
    precision: Annotated[str | None, typer.Option(metavar="|".join(PRECISIONS), help="In the recipe's place.")] = None,
    target: Annotated[
        list[str] | None, typer.Option(help="In the place of the recipe's targets; may be repeated.")
    ] = None,
    output: Annotated[Path | None, typer.Option("-o", "--output", help="The bundle to write.")] = None,
    strict: Annotated[bool, typer.Option(help="Fail when there are too few images to be sure of the drop.")] = False,
    no_cache: Annotated[
        bool, typer.Option("--no-cache", help="Make every stage anew, and keep none (`edge-resnet cache`).")
    ] = False,
    mlflow: Annotated[
        str | None,
        typer.Option(
            metavar="URI", help="Keep a run of it in MLflow: http://…, sqlite:///mlflow.db, … (docs/fleet.md)."
        ),
    ] = None,
    batch: Batch = None,
    workspace: Workspace = None,
    optimization_level: Level = None,
    tf32: Tf32 = None,
    version_compatible: Compatible = None,
    hardware_compatible: Hardware = None,
    refit: Refit = None,
    strip_weights: Strip = None,
    dla: Dla = None,
    ray: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="Compile on the workers of this Ray cluster that offer the targets."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Runs the whole line: checkpoint → ONNX → INT8 → engines → accuracy → one verified bundle.

    Example: `edge-resnet build edge-resnet.toml --precision int8 --target cpu --target rtx -o model.edge`

    On devices of a Ray cluster at the same time (docs/fleet.md):
    `edge-resnet build edge-resnet.toml --target jetson-orin-nano --target jetson-agx-orin --ray head:6379`
    """
    from edge_resnet.chain import build  # the build chain imports torch and onnx: not for the other commands
    from edge_resnet.farm.farm import farm_at
    from edge_resnet.stage_cache import NO_CACHE

    chosen = _with_flags(demo_recipe() if recipe is None else load_recipe(recipe), precision, target, output, strict)
    given = Flags(
        batch, workspace, optimization_level, tf32, version_compatible, hardware_compatible, refit, strip_weights, dla
    )
    options = given.over(chosen.engine)
    bars = BarProgress()
    wanted = replace(chosen, engine=options)
    with farm_at(ray) as farm:
        made = partial(build, wanted, bars, NO_CACHE if no_cache else None, farm)
        result = made() if mlflow is None else _tracked(mlflow, wanted, made, bars)
    if json:
        print_json({**result.to_json(), "notes": bars.notes})
    else:
        _print(result)
    _require_built(result)


def _print(result: BuildResult) -> None:
    if result.compression is not None:
        print_compression(result.compression)
    _show(result.to_json(), result.bundle, result.report)
    for each in result.targets:
        if each.accuracy is not None:
            print_accuracy(each.accuracy, "this machine" if each.worker is None else f"the worker {each.worker}")


def _require_built(result: BuildResult) -> None:
    """Raises what failed; where other targets are written, exit code 3 says so.

    Raises:
        EdgeResnetError: a target failed.
    """
    reasons = dict.fromkeys(map(str, result.failures))
    if result.bundle is None and len(reasons) == 1:
        raise result.failures[0]
    if reasons:
        raise GateError("; ".join(reasons))


def _tracked(store: str, recipe: Recipe, made: Callable[[], BuildResult], bars: BarProgress) -> BuildResult:
    from edge_resnet.mlflow_runs import tracked

    return tracked(store, recipe, made, bars)


def _with_flags(
    recipe: Recipe, precision: str | None, target: list[str] | None, output: Path | None, strict: bool
) -> Recipe:
    if precision is not None and precision not in PRECISIONS:
        raise RecipeError(f"--precision is '{precision}': choose one of {', '.join(PRECISIONS)}")
    made = replace(
        recipe.build,
        precision=precision or recipe.build.precision,
        targets=tuple(target) if target else recipe.build.targets,
        output=output or recipe.build.output,
    )
    return replace(recipe, build=made, accuracy=replace(recipe.accuracy, strict=strict or recipe.accuracy.strict))


def _show(document: dict[str, object], bundle: str | None, report: str | None) -> None:
    targets = document["targets"]
    assert isinstance(targets, list)
    print_table(
        f"{document['precision']} engines",
        ("target", "MB", "seconds", "accuracy"),
        [
            (
                each["target"],
                None if each["bytes"] is None else round(each["bytes"] / 1e6, 2),
                None if each["seconds"] is None else round(each["seconds"], 1),
                each["verified"] if each["why"] is None else f"{each['verified']}: {each['why']}",
            )
            for each in targets
        ],
    )
    for each in targets:
        if each["worker"]:
            say(f"{each['target']}: by the worker {each['worker']}")
        if each["next"]:
            say(f"{each['target']}: next, on the device: {each['next']}")
    stages = document["stages"]
    assert isinstance(stages, list)
    if kept := [each["name"] for each in stages if each["cached"]]:
        say(f"made by an earlier build: {', '.join(kept)}; --no-cache makes them anew")
    say(f"wrote {bundle}" if bundle else "nothing was written")
    if report:
        say(f"wrote {report}: why to trust it")
