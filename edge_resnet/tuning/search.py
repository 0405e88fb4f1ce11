"""The search: Optuna chooses settings, a workshop makes and judges them. Needs the extra ``tune``."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, dataclass

import optuna
from optuna.trial import FrozenTrial, TrialState

from edge_resnet.errors import CalibrationError, EngineError, GateError, ModelError
from edge_resnet.tuning.goal import Goal
from edge_resnet.tuning.space import Space
from edge_resnet.tuning.speed import Estimated, Measured, Speed
from edge_resnet.tuning.tried import Figures, Settings, Tried
from edge_resnet.tuning.workshop import Made, Workshop

SHARES = (8, 4, 2, 1)
"""A trial is looked at after an eighth of the images, a quarter, a half, and all."""
MARGIN_DB = 1.0
"""A trial that is no faster than another ends when it is so much further from FP32 on the same images."""
OWN, SETTINGS, LATENCY, FIGURES, WHY = "as it stands", "settings", "latency_ms", "figures", "why"
"""Attributes of a trial in the database."""


class Beaten(optuna.pruners.BasePruner):
    """Ends a trial that one with a result beats in both speed and nearness: it can neither win nor be on the front.

    Pruners that compare with the median would end all fast trials, once the slow ones are the nearer half.
    """

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        step = trial.last_step
        if step is None or OWN in trial.user_attrs:
            return False
        value, latency = trial.intermediate_values[step], trial.user_attrs[LATENCY]
        return any(
            other.user_attrs[LATENCY] <= latency
            and other.intermediate_values.get(step, other.value or 0.0) >= value + MARGIN_DB
            for other in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        )


@dataclass
class Search:
    """One study, and what its trials are made with."""

    study: optuna.Study
    space: Space
    workshop: Workshop
    goal: Goal
    speed: Speed
    own: Made
    """The recipe as it stands, which is the first trial."""

    def go_on(self, trials: int, seconds: float | None, advance: Callable[[int], None]) -> bool:
        """Tries until there are so many in all; returns whether nobody interrupted.

        Args:
            trials: those of earlier runs count.
            seconds: no trial begins later than this; the first is always made.
            advance: called with the number of trials done.
        """
        if not self._own_tried():
            attributes = {OWN: True}
            self.study.enqueue_trial(self.space.nearest(self.own.settings), user_attrs=attributes)
            self.study.optimize(self._try, n_trials=1)
            advance(1)
        left = trials - len(self.finished())
        try:
            if left > 0 and (seconds is None or seconds > 0):
                callback = [lambda study, trial: advance(1)]
                self.study.optimize(self._try, n_trials=left, timeout=seconds, callbacks=callback)
        except KeyboardInterrupt:
            return False
        return True

    def finished(self) -> list[FrozenTrial]:
        """Trials with a result, and those that were ended early."""
        return self.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED))

    def tried(self) -> tuple[Tried, ...]:
        """Those with a result; the recipe as it stands comes first."""
        complete = [each for each in self.finished() if each.state is TrialState.COMPLETE]
        return tuple(
            _tried(each) for each in sorted(complete, key=lambda each: (OWN not in each.user_attrs, each.number))
        )

    def _own_tried(self) -> bool:
        return any(OWN in each.user_attrs and each.state is TrialState.COMPLETE for each in self.finished())

    def _try(self, trial: optuna.Trial) -> float:
        """One trial: its nearness to FP32, in dB."""
        suggested = self.space.suggest(trial)
        own = OWN in trial.user_attrs
        settings = self.own.settings if own else suggested
        trial.set_user_attr(SETTINGS, json.dumps(asdict(settings)))
        known = next((each for each in self.tried() if each.settings == settings), None)
        if known is not None:
            return self._told(trial, known.figures, known.latency_ms)
        if own:
            return self._judged(trial, self.own)
        try:
            with closing(self.workshop.make(settings)) as made:
                return self._judged(trial, made)
        except (CalibrationError, EngineError, GateError, ModelError) as error:
            trial.set_user_attr(WHY, str(error))
            raise optuna.TrialPruned from error

    def _judged(self, trial: optuna.Trial, made: Made) -> float:
        latency = self.speed.latency_ms(made)
        trial.set_user_attr(LATENCY, latency)
        images = len(self.workshop.images.selection)
        ends = tuple(dict.fromkeys(max(1, images // share) for share in SHARES))
        for end, report in zip(ends, self.workshop.comparisons(made, ends), strict=True):
            figures = Figures.of(report)
            trial.report(figures.sqnr_db, end)
            hopeless = OWN not in trial.user_attrs and figures.ci95[0] > self.goal.max_drop
            if end < images and (hopeless or trial.should_prune()):
                trial.set_user_attr(WHY, "misses the drop" if hopeless else "beaten by a faster one")
                raise optuna.TrialPruned
        return self._told(trial, figures, latency)

    def _told(self, trial: optuna.Trial, figures: Figures, latency_ms: float) -> float:
        """Keeps a result, and what it lacks to the goal, which the sampler learns to avoid."""
        trial.set_user_attr(LATENCY, latency_ms)
        trial.set_user_attr(FIGURES, json.dumps(asdict(figures)))
        result = Tried(trial.number, Settings.from_json(json.loads(trial.user_attrs[SETTINGS])), figures, latency_ms)
        own = next(iter(self.tried()), result)
        for name, missing in zip(("fps", "drop"), self.goal.shortfalls(result, own), strict=True):
            trial.set_constraint(name, missing)
        return figures.sqnr_db


def begun(study: optuna.Study, space: Space, workshop: Workshop, goal: Goal, own: Made) -> Search:
    """A search that can go on. Latencies of an earlier run keep their scale."""
    known = [
        each.user_attrs[LATENCY]
        for each in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if OWN in each.user_attrs
    ]
    speed: Speed = Measured(own, known[0] if known else None) if workshop.measures else Estimated(workshop.target.name)
    return Search(study, space, workshop, goal, speed, own)


def _tried(trial: FrozenTrial) -> Tried:
    figures = json.loads(trial.user_attrs[FIGURES])
    settings = Settings.from_json(json.loads(trial.user_attrs[SETTINGS]))
    low, high = figures.pop("ci95")
    return Tried(trial.number, settings, Figures(**figures, ci95=(low, high)), trial.user_attrs[LATENCY])
