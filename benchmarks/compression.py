"""What pruning costs and brings: channels taken out, 2:4 sparse weights, both, with fine-tuning and without.

    python benchmarks/compression.py [--network demo cifar resnet50] [--steps 800] [--images 2000] [--criteria]

Fine-tuned on the calibration images, without labels. Each network is held against the original FP32 one, on test images of
``_common``'s subjects: in FP32, and for fine-tuned ones in INT8 as the ``tensorrt`` scheme computes it, which is
predicted by exact evaluation of its Q/DQ graph. Latency is of one frame on this CPU, in FP32 and with the ``cpu`` engine,
the original and the smaller network in turn; the CPU skips no zeros, so 2:4 changes nothing there.

``--criteria`` shows instead what is lost before any fine-tuning, with other ways to choose what goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import onnx
from _common import (
    Frames,
    Row,
    Subject,
    Table,
    cifar_resnet20,
    db,
    demo_resnet20_on_all,
    paired_seconds,
    parser,
    report,
    trained,
)
from onnx import numpy_helper

from edge_resnet.accuracy import AccuracyReport
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.quantize import FRAMELESS, quantize
from edge_resnet.calibration.refine import silent
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.sparsity import two_four
from edge_resnet.check import float_run
from edge_resnet.compression.compress import Step, compress
from edge_resnet.compression.counting import macs_of, zero_share
from edge_resnet.compression.importance import units_importance
from edge_resnet.compression.masks import masked, two_four_masks
from edge_resnet.compression.options import PruneOptions
from edge_resnet.compression.selection import select
from edge_resnet.compression.spans import prepared, spans_of, taken_out
from edge_resnet.engines.ort import OrtEngine

ASKED = {
    "macs 0.7": PruneOptions(macs=0.7),
    "macs 0.5": PruneOptions(macs=0.5),
    "2:4": PruneOptions(sparsity="2:4"),
    "macs 0.7, 2:4": PruneOptions(macs=0.7, sparsity="2:4"),
}
REFINED, REFINEMENTS = 256, ("exact-input", "round", "bias")
"""Frames that INT8 is refined on, and how: as ``--effort standard`` does, but for the ranges that are learned."""
HEADER = (
    "network",
    "asked",
    "MACs",
    "zeros",
    "FP32 against the original",
    "INT8 against it, predicted",
    "latency of it",
)


@dataclass(frozen=True)
class Original:
    """A network and what the smaller ones are measured beside."""

    subject: Subject
    frames: Frames
    """Of calibration."""

    def int8(self, model: onnx.ModelProto, scheme: str, chain: tuple[str, ...] | None = None) -> onnx.ModelProto:
        batches = np.array_split(self.frames, -(-len(self.frames) // 2))
        table = collect(model, batches, method="mse", images={}, preprocessing={})
        return quantize(model, table, scheme_named(scheme), self.frames[:REFINED], chain=chain).model

    def judged(self, model: onnx.ModelProto) -> str:
        return told(self.subject.judge(float_run(self.subject.model), float_run(model), "measured"))

    def judged_int8(self, model: onnx.ModelProto) -> str:
        run = partial(run_frames, exact_session(self.int8(model, "tensorrt", REFINEMENTS)))
        return told(self.subject.judge(float_run(self.subject.model), run, "predicted"))

    def latency(self, model: onnx.ModelProto, rounds: int) -> str:
        """Of the smaller network, as a share of the original's, in FP32 and in INT8."""
        return " / ".join(self._share(form(self.subject.model), form(model), rounds) for form in self._forms())

    def _forms(self) -> tuple[Callable[[onnx.ModelProto], onnx.ModelProto], ...]:
        return (lambda model: model, lambda model: self.int8(model, "cpu", FRAMELESS))

    def _share(self, whole: onnx.ModelProto, small: onnx.ModelProto, rounds: int) -> str:
        one = self.frames[:1]
        engines = {name: OrtEngine(model.SerializeToString()) for name, model in (("whole", whole), ("small", small))}
        seconds = paired_seconds({name: partial(engine.run, one) for name, engine in engines.items()}, rounds)
        return f"{np.median(seconds['small'] / seconds['whole']):.2f}"


def told(found: AccuracyReport) -> str:
    assert found.drop is not None
    low, high = found.drop.ci95
    return f"{db(found.logit_sqnr_db)}, {found.agreement:.4f}, {found.drop.points:+.2f} ({low:+.2f} … {high:+.2f})"


def rows_of(original: Original, steps: int, rounds: int) -> Iterator[Row]:
    subject = original.subject
    full = sum(macs_of(subject.model).values())
    yield (subject.name, "the original", "1.00", "0.00", "", original.judged_int8(subject.model), "1 / 1")
    for name, asked in ASKED.items():
        made: tuple[Step, ...] = compress(subject.model, original.frames, replace(asked, steps=steps))
        for step in made:
            share, zeros = sum(macs_of(step.model).values()) / full, zero_share(step.model)
            last = step is made[-1]
            int8 = original.judged_int8(step.model) if last else ""
            latency = original.latency(step.model, rounds) if last else ""
            row = (subject.name, f"{name}: {step.name}", f"{share:.2f}", f"{zeros:.2f}", original.judged(step.model))
            print(" | ".join((*row, int8, latency)), flush=True)
            yield (*row, int8, latency)


def criteria(original: Original) -> Iterator[Row]:
    """What is lost before any fine-tuning, by how it is chosen what goes."""
    model = prepared(original.subject.model)
    spans, most = spans_of(model), 0.8 * sum(macs_of(model).values())
    weights = {each.name: numpy_helper.to_array(each) for each in model.graph.initializer}
    random = np.random.default_rng(0)
    ways: Mapping[str, Mapping[str, np.ndarray]] = {
        "first order, of the answers (shipped)": units_importance(model, spans, original.frames, silent),
        "squares of a channel's weights": {
            s.name: np.square(weights[s.slots[0].constant], dtype=np.float64).reshape(s.units, -1).sum(1) for s in spans
        },
        "random": {span.name: random.random(span.units) for span in spans},
    }
    for name, importance in ways.items():
        made = taken_out(model, select(model, spans, importance, most))
        yield (original.subject.name, "macs 0.8", name, original.judged(made))
    masks = two_four_masks(model)
    yield (original.subject.name, "2:4", "magnitude (shipped)", original.judged(masked(model, masks)))
    any_two = {name: two_four(random.random(mask.shape)) for name, mask in masks.items()}
    yield (original.subject.name, "2:4", "random", original.judged(masked(model, any_two)))


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--network", nargs="+", choices=("demo", "cifar", "resnet50"), default=("demo",))
    arguments.add_argument("--steps", type=int, default=PruneOptions.steps, help="of each fine-tuning")
    arguments.add_argument("--rounds", type=int, default=200, help="timed runs of each (default 200)")
    arguments.add_argument("--images", type=int, default=2000, help="test images, at most (default 2,000)")
    arguments.add_argument("--criteria", action="store_true", help="compare ways to choose what goes")
    options = arguments.parse_args()
    open_subject: dict[str, Callable[[], Subject | None]] = {
        "demo": demo_resnet20_on_all,
        "cifar": lambda: cifar_resnet20(options.shared),
        "resnet50": lambda: trained("resnet50"),
    }
    rows: list[Row] = []
    for name in options.network:
        subject = open_subject[name]()
        if subject is None:
            print(f"{name} is not here: its data or weights are missing")
            continue
        subject = replace(subject, test=subject.test[: options.images], labels=subject.labels[: options.images])
        original = Original(subject, subject.calibration.pixels(subject.preprocessing))
        rows += criteria(original) if options.criteria else rows_of(original, options.steps, options.rounds)
    header = ("network", "asked", "chosen by", "FP32 against the original") if options.criteria else HEADER
    figures = "logit SQNR, agreement, drop in points with its 95 % interval"
    report([Table(f"Pruning: {figures}; latency as a share, FP32 / INT8 on this CPU", header, rows)], options.json)


if __name__ == "__main__":
    main()
