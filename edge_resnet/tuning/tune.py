"""``tune``: a recipe and a goal → the recipe that meets it best. Needs the extra ``tune``."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import optuna

from edge_resnet.errors import GateError, RecipeError
from edge_resnet.kept_stages import chain_of
from edge_resnet.progress import Progress
from edge_resnet.recipe import EFFORTS, Recipe
from edge_resnet.stage_cache import StageCache, users_cache
from edge_resnet.stages import Stages
from edge_resnet.tuning.goal import Goal, front
from edge_resnet.tuning.search import Beaten, Search, begun
from edge_resnet.tuning.space import Space, efforts_up_to, sides_of
from edge_resnet.tuning.speed import Estimated
from edge_resnet.tuning.storage import digest_of, open_study
from edge_resnet.tuning.tried import Figures, Tried
from edge_resnet.tuning.workshop import Workshop
from edge_resnet.workforce import THIS_MACHINE, Workforce

STARTUP = 10
"""Trials that are drawn evenly before the sampler learns from them."""


@dataclass(frozen=True)
class Plan:
    """How long to search, where it is kept, and who does it."""

    trials: int = 50
    """In all, with those that the storage holds already."""
    seconds: float | None = None
    storage: Path | None = None
    """None: in memory."""
    effort: str = "standard"
    """The most that a trial may spend, but never less than the recipe's own."""
    seed: int = 0
    workforce: Workforce = THIS_MACHINE
    """Calibrates and answers. Trials follow each other, so that they are the same whoever does."""

    def __post_init__(self) -> None:
        if self.trials < 1:
            raise RecipeError(f"--trials is {self.trials}: give 1 or more")
        if self.effort not in EFFORTS:
            raise RecipeError(f"--effort is '{self.effort}': choose one of {', '.join(EFFORTS)}")


@dataclass(frozen=True)
class Tuned:
    """What a search found."""

    goal: Goal
    target: str
    latency: str
    """``measured``, or ``estimate`` where no such device is here."""
    evaluated: str
    own: Tried
    """The recipe as it stands."""
    chosen: Tried
    """The best of those that meet the goal; where none does, the nearest."""
    met: bool
    """Whether it meets the goal on the images that it was chosen by, and does not lose more on the others."""
    unseen: Figures
    """Of ``chosen``, on images that no choice was made by."""
    own_unseen: Figures
    tried: tuple[Tried, ...]
    trials: int
    """With those that were ended early."""
    interrupted: bool
    recipe: Recipe
    """With the chosen settings."""

    @property
    def front(self) -> tuple[Tried, ...]:
        """Those that none beats in both latency and nearness to FP32."""
        return front(self.tried)

    def to_json(self) -> dict[str, Any]:
        """The document that ``tune --json`` prints."""
        return {
            "goal": vars(self.goal),
            "met": self.met,
            "target": self.target,
            "latency": self.latency,
            "evaluated": self.evaluated,
            "trials": self.trials,
            "ended_early": self.trials - len(self.tried),
            "interrupted": self.interrupted,
            "own": {**self.own.to_json(), "unseen": vars(self.own_unseen)},
            "chosen": {**self.chosen.to_json(), "unseen": vars(self.unseen)},
            "front": [each.to_json() for each in self.front],
        }


def tune(
    recipe: Recipe,
    goal: Goal,
    target: str | None = None,
    plan: Plan | None = None,
    progress: Progress | None = None,
    cache: StageCache | None = None,
) -> Tuned:
    """Searches calibration method, refinement, layers left float and input size for the recipe that meets a goal best.

    The first trial is the recipe as it stands. Half of its [accuracy] images choose, the other half reports.

    Args:
        recipe: an INT8 recipe with labelled images to judge by.
        goal: what shall be reached.
        target: the device; None takes the recipe's first.
        plan: how long to search.
        progress: is told of trials.
        cache: as ``build`` takes it.

    Raises:
        EdgeResnetError: the recipe as it stands cannot be built, or its latency neither measured nor estimated.
        OutputError: the storage is that of another search.
    """
    plan, told = plan or Plan(), progress or Progress()
    chain_of(recipe)  # refuses a chain before any work is done
    stages = Stages(Progress(), users_cache() if cache is None else cache)
    name = target or recipe.build.targets[0]
    with told.stage("prepare"):
        workshop = Workshop(recipe, name, stages, plan.workforce)
        space = _space(recipe, goal, plan, workshop)
        own = workshop.make(workshop.own)
        if not workshop.measures:
            Estimated(workshop.target.name).latency_ms(own)  # refuses a device that has no estimate
        digest = digest_of(recipe, workshop.images, workshop.target.name, plan.effort)
        study = open_study(plan.storage, digest, _sampler(plan.seed, 0), Beaten())
        study.sampler = _sampler(plan.seed, len(study.get_trials(deepcopy=False)))
        search = begun(study, space, workshop, goal, own)
    with told.stage("trials", plan.trials):
        told.advance(min(plan.trials, len(search.finished())))
        whole = search.go_on(plan.trials, plan.seconds, told.advance)
    with told.stage("judge on unseen images"):
        return _concluded(search, goal, interrupted=not whole)


def _space(recipe: Recipe, goal: Goal, plan: Plan, workshop: Workshop) -> Space:
    spec = workshop.original.preprocessing
    efforts = efforts_up_to(plan.effort, recipe.quantize.effort)
    every = Space(efforts, spec, sides_of(recipe, spec), workshop.float_layers)
    return replace(every, sides=tuple(side for side in every.sides if _may_do(side, every, workshop, goal)))


def _may_do(side: int, space: Space, workshop: Workshop, goal: Goal) -> bool:
    """Whether FP32 itself does not surely lose too much at an input size, which would make all that is tried there vain."""
    size, resize = space.scaled(side)
    settings = replace(workshop.own, size=size, resize=resize)
    return size is None or workshop.float_figures(settings).ci95[0] <= goal.max_drop


def _concluded(search: Search, goal: Goal, *, interrupted: bool) -> Tuned:
    """Chooses, and judges what is chosen on the images that have had no part in it."""
    workshop, tried = search.workshop, search.tried()
    own = tried[0]
    best = goal.best(tried, own)
    chosen = best or goal.nearest(tried, own)
    own_unseen = Figures.of(workshop.on_unseen(search.own))
    unseen = own_unseen
    if chosen.settings != own.settings:
        with closing(workshop.make(chosen.settings)) as made:
            unseen = Figures.of(workshop.on_unseen(made))
    search.own.close()
    return Tuned(
        goal=goal,
        target=workshop.target.name,
        latency=search.speed.kind,
        evaluated=workshop.evaluated,
        own=own,
        chosen=chosen,
        met=best is not None and unseen.drop <= goal.max_drop,
        unseen=unseen,
        own_unseen=own_unseen,
        tried=tried,
        trials=len(search.finished()),
        interrupted=interrupted,
        recipe=workshop.recipe_of(chosen.settings),
    )


def require_met(tuned: Tuned) -> None:
    """Raises when nothing that was tried meets the goal.

    Raises:
        GateError: the nearest is named.
    """
    if tuned.met:
        return
    least, nearest = tuned.goal.least_fps(tuned.own), tuned.chosen
    if tuned.goal.is_met(nearest, tuned.own):
        raise GateError(
            f"trial {nearest.number} is the best on the images that chose it, but on the others it loses "
            f"{tuned.unseen.drop:.2f} points, more than --max-drop {tuned.goal.max_drop:g}: give more [accuracy] images, "
            f"or raise --max-drop"
        )
    raise GateError(
        f"none of {tuned.trials} trials has {least:.4g} FPS and a drop of at most {tuned.goal.max_drop:g} points; the "
        f"nearest, trial {nearest.number}, has {nearest.fps:.4g} FPS ({tuned.latency}) and {nearest.figures.drop:+.2f} "
        f"points: give more --trials, or ask for less"
    )


def _sampler(seed: int, past: int) -> optuna.samplers.BaseSampler:
    """Seeded anew for each run: the same seed again would draw the same trials again."""
    return optuna.samplers.TPESampler(seed=seed + past, n_startup_trials=STARTUP)
