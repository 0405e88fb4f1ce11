"""What leaving a few layers float gains: the cheapest that sensitivity finds, within 3 % and 7 % of multiply-adds.

    python benchmarks/mixed_precision.py [--network cifar demo resnet56 resnet50 resnet18v2]

Sensitivity looks at 64 calibration images of the balanced network; ``quantize`` then refines with those layers float, as
``edge-resnet quantize --keep-float`` does. A shortcut that stays float counts no multiply-adds; on TensorRT it costs the
traffic of FP16 in the place of INT8 for that tensor, and is a row of its own. Exact evaluation on test images that
calibration did not see; the last linear layer is float in every row.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import partial

from _common import Row, Subject, Table, db, parser, report
from accuracy_floor import few
from accuracy_vs_peers import NETWORKS, subjects

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.quantize import EFFORTS, quantize, refine
from edge_resnet.calibration.refine import Refined
from edge_resnet.calibration.schemes import SCHEMES
from edge_resnet.calibration.sensitivity import Sensitivity, float_layers, sensitivities
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.check import float_run

BUDGETS = (0.03, 0.07)
SEEN = 64
HEADER = (
    "network",
    "float",
    "layers",
    "share of multiply-adds",
    "logit SQNR",
    "agreement",
    "drop in points, 95 % interval",
)


def within(found: tuple[Sensitivity, ...], budget: float) -> tuple[str, ...]:
    """The layers that bring the most within a share of multiply-adds."""
    low, high = 0.0, 200.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if float_layers(found, middle).macs_share <= budget else (low, middle)
    return float_layers(found, low).keep_float


def rows(subject: Subject) -> Iterator[Row]:
    scheme, batches = SCHEMES["tensorrt"], subject.calibration.batches(subject.preprocessing, 8)
    table = collect(subject.model, batches, method="mse", images={}, preprocessing={})
    frames = subject.calibration.draw(EFFORTS["standard"]).pixels(subject.preprocessing)
    balanced = refine(Refined(subject.model, table), scheme, frames, ("exact-input", "balance"))
    found = sensitivities(balanced, scheme, frames[:SEEN])
    convolutions = tuple(each for each in found if each.macs)
    shortcuts = tuple(each.layer for each in found if not each.macs)
    kept = {
        "nothing": (),
        "shortcuts": shortcuts,
        **{f"up to {budget:.0%}".replace("%", " %"): within(convolutions, budget) for budget in BUDGETS},
        **{f"up to {b:.0%} and shortcuts".replace("%", " %"): within(found, b) for b in BUDGETS},
    }
    reference, total = float_run(subject.model), sum(each.macs for each in found)
    for name, layers in kept.items():
        made = quantize(subject.model, table, scheme, frames, keep_float=layers).model
        result = subject.judge(reference, partial(run_frames, exact_session(made)), "predicted")
        assert result.drop is not None  # every subject has labels
        drop = f"{result.drop.points:+.2f} ({result.drop.ci95[0]:+.2f} … {result.drop.ci95[1]:+.2f})"
        share = sum(each.macs for each in found if each.layer in layers) / total
        quality = (db(result.logit_sqnr_db), f"{result.agreement:.4f}", drop)
        yield (subject.name, name, str(len(layers)), f"{100 * share:.1f} %", *quality)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--network", nargs="+", choices=NETWORKS, default=NETWORKS, help="which networks")
    options = arguments.parse_args()
    found: list[Row] = []
    for subject in subjects(options.network, options.shared):
        for row in rows(few(subject, 2000)):
            print(*row, sep=" | ", file=sys.stderr, flush=True)
            found.append(row)
    report([Table("INT8 with some layers float", HEADER, found)], options.json)


if __name__ == "__main__":
    main()
