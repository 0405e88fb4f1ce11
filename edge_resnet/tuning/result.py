"""The recipe that a search has chosen, as a file that says why."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from edge_resnet.recipe_writer import recipe_text
from edge_resnet.tuning.tried import Figures, Tried
from edge_resnet.tuning.tune import Tuned


def tuned_text(tuned: Tuned, folder: Path, *, only_target: bool) -> str:
    """The chosen recipe with the goal's drop as its gate, and a comment of goal and figures.

    Args:
        tuned: what was found.
        folder: where the file will lie.
        only_target: whether it builds for the tuned target alone, or for all that the recipe names.
    """
    recipe = tuned.recipe
    targets = (tuned.target,) if only_target else recipe.build.targets
    made = replace(
        recipe,
        accuracy=replace(recipe.accuracy, max_drop=tuned.goal.max_drop),
        build=replace(recipe.build, targets=targets),
    )
    least = tuned.goal.least_fps(tuned.own)
    return recipe_text(
        made,
        folder,
        (
            f"Written by `edge-resnet tune` for {tuned.target}: trial {tuned.chosen.number} of {tuned.trials}.",
            f"Goal: at least {least:.4g} FPS, a drop of at most {tuned.goal.max_drop:g} points of top-1.",
            f"Latency is {'measured' if tuned.latency == 'measured' else 'an ESTIMATE'}, accuracy {tuned.evaluated}, the "
            f"drop with its 95 % interval on images that chose nothing, against the original FP32 network.",
            f"As it stood: {_figures(tuned.own, tuned.own_unseen)}.",
            f"This: {_figures(tuned.chosen, tuned.unseen)}.",
        ),
    )


def _figures(tried: Tried, unseen: Figures) -> str:
    low, high = unseen.ci95
    return (
        f"{tried.latency_ms:.4g} ms, {tried.fps:.4g} FPS; {unseen.images} images: {unseen.sqnr_db:.1f} dB, agreement "
        f"{100 * unseen.agreement:.2f} %, drop {unseen.drop:+.2f} ({low:+.2f} to {high:+.2f})"
    )
