"""What INT8 by TensorRT's calibration cache costs, beside Q/DQ: for DLA, and for TensorRT 8 on whoever's wish.

    python benchmarks/implicit_int8.py

A cache says the scales of tensors; TensorRT quantizes weights itself, with amax / 127 of each channel. Evaluated exactly
with every tensor INT8 that has a scale (where TensorRT fuses a residual sum into a convolution, one tensor less), against
FP32 on test images that calibration did not see. No engine is run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import onnx
from _common import Row, Subject, Table, cifar_resnet20, db, demo_resnet20, parser, report
from onnx import helper, numpy_helper

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.quantize import chain_wanted, frames_wanted, quantize
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.calibration.strip import strip_qdq
from edge_resnet.check import float_run

HEADER = ("network", "INT8", "logit SQNR", "agreement")


def as_tensorrt_reads(model: onnx.ModelProto, scales: Mapping[str, float]) -> onnx.ModelProto:
    """The network with a pair behind each tensor that has a scale, and weights of the convolutions between on INT8."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    nodes = []
    for source in made.graph.node:
        node = onnx.NodeProto()
        node.CopyFrom(source)
        if node.op_type == "Conv" and node.input[0] in scales:
            weights[node.input[1]].CopyFrom(_rounded(weights[node.input[1]]))
        node.input[:] = [f"{name}.dq" if name in scales else name for name in node.input]
        nodes.append(node)
        for name in set(node.output) & set(scales):
            constants = {f"{name}.s": np.array(scales[name], np.float32), f"{name}.z": np.array(0, np.int8)}
            made.graph.initializer.extend(numpy_helper.from_array(value, key) for key, value in constants.items())
            nodes.append(helper.make_node("QuantizeLinear", [name, *constants], [f"{name}.q"]))
            nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *constants], [f"{name}.dq"]))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    return made


def _rounded(tensor: onnx.TensorProto) -> onnx.TensorProto:
    weight = numpy_helper.to_array(tensor)
    scale = np.maximum(np.abs(weight).max(axis=(1, 2, 3), keepdims=True) / 127, np.float32(2.0**-24))
    return numpy_helper.from_array((np.rint(weight / scale) * scale).astype(np.float32), tensor.name)


def ways(subject: Subject) -> Iterator[tuple[str, onnx.ModelProto]]:
    table = collect(
        subject.model,
        subject.calibration.batches(subject.preprocessing, 8),
        method="mse",
        images={},
        preprocessing={},
    )
    for effort in ("fast", "standard"):
        chain = chain_wanted(effort, None)
        frames = subject.calibration.draw(frames_wanted(effort, chain) or 1).pixels(subject.preprocessing)
        made = quantize(subject.model, table, scheme_named("tensorrt"), frames, chain=chain)
        stripped = strip_qdq(made.model)
        yield f"Q/DQ, {effort}", made.model
        fused = as_tensorrt_reads(stripped.model, stripped.quantized)
        yield f"cache of it, {effort}: sums fused", fused
        every = as_tensorrt_reads(stripped.model, stripped.quantized | stripped.between)
        yield f"cache of it, {effort}: sums apart", every
    ranges = {name: found.amax / 127 for name, found in table.ranges.items()}
    yield "cache of the FP32 network's table", as_tensorrt_reads(subject.model, ranges)


def rows(subject: Subject) -> Iterator[Row]:
    reference = float_run(subject.model)
    for name, model in ways(subject):
        result = subject.judge(reference, partial(run_frames, exact_session(model)), "predicted")
        row = (subject.name, name, db(result.logit_sqnr_db), f"{result.agreement:.4f}")
        print(*row, sep=" | ", flush=True)
        yield row


def main() -> None:
    options = parser(__doc__).parse_args()
    subjects = [cifar_resnet20(options.shared), demo_resnet20()]
    found = [row for subject in subjects for row in rows(subject)]
    report([Table("INT8 by calibration cache, exact evaluation against FP32", HEADER, found)], options.json)


if __name__ == "__main__":
    main()
