"""What each step of INT8 quantization gains: zero points, the exact input, and every refinement on top of the others.

    python benchmarks/refinement.py

The bias of a layer can restore the mean of its output, as published (Nagel et al., arXiv:1906.04721, section 4.2; here
layer after layer, each behind the corrected ones), or minimise the error behind the ReLU, as ``edge_resnet`` does. All
figures are exact evaluations of the Q/DQ graph against FP32 on test images, none of which calibration saw.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from _common import Frames, Row, Subject, Table, cifar_resnet20, db, demo_resnet20, parser, report

from edge_resnet.calibration.affine import QuantParams, symmetric
from edge_resnet.calibration.bias import correct_biases
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.qdq import insert_qdq, place_qdq
from edge_resnet.calibration.quantize import CHAIN, REFINEMENTS, refine
from edge_resnet.calibration.refine import Refined, exact_input, replace_constant
from edge_resnet.calibration.schemes import INT8_SCHEMES, Scheme, TensorRtScheme
from edge_resnet.calibration.segments import Walk
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.topology import convolutions, data, load_graph, save_graph
from edge_resnet.check import float_run

FRAMES = 256
"""As many as ``--effort standard`` takes."""
LEARNED = {"round": ("adaround", "reconstruct"), "bias": ("distill",)}
"""Steps that are not applied by default, by the one that they stand behind."""
HEADER = ("network", "scheme", "step", "logit SQNR", "agreement")


def restore_means(refined: Refined, scheme: Scheme, frames: Frames) -> Refined:
    """Sequential bias correction as published: each bias takes back the shift of its convolution's mean output."""
    quantized = place_qdq(refined.model, refined.table, scheme).model
    wanted, actual = Walk(refined.model, frames), Walk(quantized, frames)
    shifts = {}
    while (conv := wanted.advance()) is not None and (quantized_conv := actual.advance()) is not None:
        outputs = actual.tensors[quantized_conv.output[0]]
        pairs = zip(wanted.tensors[conv.output[0]], outputs, strict=True)
        shift = np.concatenate([f - q for f, q in pairs]).mean(axis=(0, 2, 3), dtype=np.float64).astype(np.float32)
        for chunk in outputs:
            chunk += shift.reshape(1, -1, 1, 1)
        shifts[conv.name] = shift
    loaded = load_graph(refined.model)
    for node in convolutions(loaded.graph):
        bias = data(node, 2)
        assert bias.const_value is not None  # BatchNorm is folded: every convolution has a constant bias
        replace_constant(bias, bias.const_value.numpy() + shifts[str(node.name)])
    made = save_graph(loaded)
    return Refined(made, refined.table.with_ranges(made, {}))


class Symmetric(TensorRtScheme):
    """INT8 with zero point 0 as other tools write it for TensorRT: a tensor behind a ReLU has half of the integers."""

    def activation_params(self, found: TensorRange) -> QuantParams:
        return symmetric(found.amax)


@dataclass(frozen=True)
class Step:
    """A network on its way, and how it is quantized there."""

    name: str
    refined: Refined
    scheme: Scheme


def steps(start: Refined, scheme: Scheme, frames: Frames) -> Iterator[Step]:
    """Each refinement on top of those before it, and two ways aside."""
    if scheme.name == "tensorrt":
        yield Step("ranges of least squared error, no zero points", start, Symmetric())
    yield Step("ranges of least squared error", start, scheme)
    exact = exact_input(start.model, start.table)
    yield Step("+ exact input", exact, scheme)
    yield Step("  aside: biases restore the mean (as published)", restore_means(exact, scheme, frames), scheme)
    yield Step("  aside: biases minimise the error behind the ReLU", correct_biases(exact, scheme, frames), scheme)
    closed = refine(exact, scheme, frames, ("equalize", "round"))
    yield Step("  aside: + equalize, round (closed form in the place of balance)", closed, scheme)
    refined = exact
    for name in CHAIN[1:]:
        refined = REFINEMENTS[name](refined, scheme, frames, ())
        yield Step(f"+ {name}", refined, scheme)
        for learned in LEARNED.get(name, ()) if scheme.name == "tensorrt" else ():
            yield Step(f"  aside: + {learned}", REFINEMENTS[learned](refined, scheme, frames, ()), scheme)


def rows(subject: Subject) -> list[Row]:
    batches = subject.calibration.batches(subject.preprocessing, 8)
    start = Refined(subject.model, collect(subject.model, batches, method="mse", images={}, preprocessing={}))
    frames = subject.calibration.draw(FRAMES).pixels(subject.preprocessing)
    reference = float_run(subject.model)
    found: list[Row] = []
    for scheme in INT8_SCHEMES.values():
        for step in steps(start, scheme, frames):
            quantized = insert_qdq(step.refined.model, step.refined.table, step.scheme).model
            result = subject.judge(reference, partial(run_frames, exact_session(quantized)), "predicted")
            found.append((subject.name, scheme.name, step.name, db(result.logit_sqnr_db), f"{result.agreement:.4f}"))
            print(*found[-1], sep=" | ", flush=True)
    return found


def main() -> None:
    options = parser(__doc__).parse_args()
    subjects = [cifar_resnet20(options.shared), demo_resnet20()]
    found = [row for subject in subjects for row in rows(subject)]
    report([Table("Steps of quantization, exact evaluation against FP32", HEADER, found)], options.json)


if __name__ == "__main__":
    main()
