"""Sizes of TensorRT-RTX engines of one network in each precision, and what they are made of.

    python benchmarks/engine_size.py [--arch resnet50 resnet18] [--target rtx-30]

Beside each precision stand INT8 with one batch size, with the last layer's weights INT8 too (as values alone: it computes
in FP16), and with one scale for all channels of a convolution. Random weights: what an engine weighs does not depend on
their values, but what zlib makes of it does. Needs no GPU.
"""

from __future__ import annotations

import argparse
import re
import zlib
from collections.abc import Iterator

import numpy as np
import onnx
from onnx import helper, numpy_helper

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.schemes import SCHEMES
from edge_resnet.engines.options import DEFAULTS, BatchRange, BuildOptions
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.export import export_onnx
from edge_resnet.lowering import FLOAT, Lowered
from edge_resnet.preprocessing import NAMED
from edge_resnet.weights import load_model

COLUMNS = "network | engine | MB | of FP32 | its weights MB | CUDA source in it MB | zlib MB | kernels"
TEXT = re.compile(rb"[\t\n\r -~]{2000,}")
"""C++ that TensorRT-RTX compiles on the card; weights do not look like that."""


def networks(arch: str) -> Iterator[tuple[str, bytes, BuildOptions]]:
    """A name, what is compiled, and how."""
    model = export_onnx(load_model(arch, None, classes=1000, channels=3), NAMED["imagenet"])
    frames = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    table = collect(model, [frames], method="minmax", images={}, preprocessing={})
    for name, lower in FLOAT.items():
        yield name, lower(model).compiled_from, DEFAULTS
    int8 = Lowered.quantized(insert_qdq(model, table, SCHEMES["tensorrt"]), TensorRtRtxEngine).compiled_from
    yield "int8", int8, DEFAULTS
    yield "int8, batch 1", int8, BuildOptions(batches=BatchRange(1, 1, 1))
    yield "int8, last weights too", last_weights_quantized(int8), DEFAULTS
    yield "int8, one scale a layer", one_scale_a_layer(int8), DEFAULTS


def last_weights_quantized(data: bytes) -> bytes:
    """The same network, its one matrix INT8 with a scale for each row."""
    model = onnx.load_from_string(data)
    place, product = next((i, node) for i, node in enumerate(model.graph.node) if node.op_type == "Gemm")
    (stored,) = [each for each in model.graph.initializer if each.name == product.input[1]]
    weights = numpy_helper.to_array(stored).astype(np.float32)
    scales = np.abs(weights).max(1, keepdims=True) / 127
    values = np.rint(weights / scales).astype(np.int8)
    model.graph.initializer.remove(stored)
    for name, array in (("last.values", values), ("last.scales", scales[:, 0].astype(np.float16))):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    node = helper.make_node("DequantizeLinear", ["last.values", "last.scales"], [stored.name], "last.dq", axis=0)
    model.graph.node.insert(place, node)
    return model.SerializeToString()


def one_scale_a_layer(data: bytes) -> bytes:
    """The same network, each convolution's scales their largest: of the same size as one quantized so, and useless."""
    model = onnx.load_from_string(data)
    stored = {each.name: each for each in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in stored:
            scales = numpy_helper.to_array(stored[node.input[1]])
            stored[node.input[1]].CopyFrom(numpy_helper.from_array(scales.max(), node.input[1]))
            del node.attribute[:], node.input[2:]
    return model.SerializeToString()


def rows(arch: str, target: str) -> Iterator[str]:
    whole = 0
    for name, data, options in networks(arch):
        compiled = TensorRtRtxEngine.compile(data, target_named(target), options)
        size, source = len(compiled.data), sum(len(text) for text in TEXT.findall(compiled.data))
        whole = whole or size
        packed = len(zlib.compress(compiled.data))
        sizes = f"{size / whole:.3f} | " + " | ".join(f"{each / 1e6:.1f}" for each in (len(data), source, packed))
        yield f"| {arch} | {name} | {size / 1e6:.1f} | {sizes} | {len(compiled.layers)} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--arch", nargs="+", default=["resnet50", "resnet18"])
    arguments.add_argument("--target", default="rtx-30")
    chosen = arguments.parse_args()
    print(f"| {COLUMNS} |\n|{'---|' * len(COLUMNS.split('|'))}")
    for arch in chosen.arch:
        for row in rows(arch, chosen.target):
            print(row, flush=True)


if __name__ == "__main__":
    main()
