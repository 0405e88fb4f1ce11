"""The accuracy check on image files: FP32 and an engine over one ImageSet."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import onnx

from edge_resnet.accuracy import AccuracyReport, Evaluated, Pair, Report, Run, compare_answers, paired_answers
from edge_resnet.calibration.simulate import fast_session, run_frames
from edge_resnet.errors import GateError, RecipeError
from edge_resnet.images import ImageSet
from edge_resnet.preprocessing import Preprocessing
from edge_resnet.similarity import EmbeddingReport, compare_features

BATCH = 8
Judgement = AccuracyReport | EmbeddingReport
"""A classifier's, or a feature extractor's."""


@dataclass(frozen=True)
class Gate:
    """How much an engine may lose."""

    max_drop: float
    """Points of top-1."""
    strict: bool
    """Whether the upper end of the drop's interval must pass too; without labels, the share of answers that changed."""

    def __post_init__(self) -> None:
        if not -100 <= self.max_drop <= 100:
            raise RecipeError(f"max_drop is {self.max_drop:g}: give points of top-1 accuracy, from -100 to 100")


def float_run(model: onnx.ModelProto) -> Run:
    """The FP32 network, run by ONNX Runtime."""
    return partial(run_frames, fast_session(model))


class Named(Protocol):
    """What a report says of an engine that is judged."""

    @property
    def name(self) -> str: ...

    @property
    def evaluated(self) -> Evaluated: ...


@dataclass(frozen=True)
class Contestant:
    """An engine to be judged."""

    name: str
    run: Run
    evaluated: Evaluated


def check(
    reference: Run,
    contestant: Contestant,
    images: ImageSet,
    preprocessing: Preprocessing,
    gate: Gate,
    advance: Callable[[int], None] = lambda done: None,
    *,
    features: bool,
) -> Judgement:
    """Runs both over the images, prepared by the model's own preprocessing.

    Labels must be those of the model, or, with ``features``, any.
    """
    pairs = paired_answers(reference, contestant.run, images.batches(preprocessing, BATCH))
    return judged(pairs, images.labels, contestant, gate, advance, features=features)


def judged(
    pairs: Iterable[Pair],
    labels: Sequence[int] | None,
    contestant: Named,
    gate: Gate,
    advance: Callable[[int], None],
    *,
    features: bool,
) -> Judgement:
    """``check``, of what both have answered to each batch."""
    comparison = compare_features if features else compare_answers
    return comparison(
        pairs,
        labels,
        engine_name=contestant.name,
        evaluated=contestant.evaluated,
        max_drop=gate.max_drop,
        strict=gate.strict,
        advance=advance,
    )


def require_passed(report: Report) -> None:
    """Raises when the gate said no.

    Raises:
        GateError: the drop is beyond the gate, or the two answer nothing alike.
    """
    if not report.passed:
        raise GateError(_why_not(report))


def _why_not(report: Report) -> str:
    measure = _MEASURE[type(report)]
    if report.unlike:
        return (
            f"{report.engine_name} answers nothing like FP32 (SQNR {report.sqnr_db:.1f} dB, "
            f"{100 * report.changed:.0f} % of the answers changed): check that the FP32 network is the one it was made "
            f"from, and that calibration images were prepared as in use"
        )
    if report.drop is None:
        return (
            f"{report.engine_name} answers {100 * report.changed:.2f} % of the images otherwise than FP32, more than "
            f"max_drop {report.max_drop:g}, and without labels nobody knows which is right: give labelled images"
        )
    if report.drop.points > report.max_drop:
        return (
            f"{report.engine_name} loses {report.drop.points:.2f} points of {measure}, more than max_drop "
            f"{report.max_drop:g}: calibrate on more images that look like those of use, keep the first layers float, "
            f"or raise max_drop"
        )
    more = f": about {report.images_to_be_sure} would do" if report.images_to_be_sure else ""
    return (
        f"{report.engine_name} may lose up to {report.worst_drop:.2f} points of {measure} (95 %), more than max_drop "
        f"{report.max_drop:g}, and {report.images} images are too few to be sure{more}"
    )


_MEASURE: dict[type[Report], str] = {AccuracyReport: "top-1", EmbeddingReport: "nearest-neighbour accuracy"}
