"""Sizes of TensorRT-RTX engines of one network in each precision, and what of them is weights.

    python benchmarks/engine_size.py [--arch resnet50 resnet18] [--target rtx-30]

Random weights: what an engine weighs does not depend on their values. Needs no GPU.
"""

from __future__ import annotations

import argparse

import numpy as np

from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.schemes import SCHEMES
from edge_resnet.engines.targets import target_named
from edge_resnet.engines.trt_rtx import TensorRtRtxEngine
from edge_resnet.export import export_onnx
from edge_resnet.lowering import FLOAT, Lowered
from edge_resnet.preprocessing import NAMED
from edge_resnet.weights import load_model

HEADER = "| network | precision | engine MB | of FP32 | its weights MB | kernels |\n|---|---|---|---|---|---|"


def rows(arch: str, target: str) -> list[str]:
    model = export_onnx(load_model(arch, None, classes=1000, channels=3), NAMED["imagenet"])
    frames = np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8)
    table = collect(model, [frames], method="minmax", images={}, preprocessing={})
    lowered = {name: lower(model) for name, lower in FLOAT.items()}
    lowered["int8"] = Lowered.quantized(insert_qdq(model, table, SCHEMES["tensorrt"]), TensorRtRtxEngine)
    found = []
    for name, one in lowered.items():
        compiled = TensorRtRtxEngine.compile(one.compiled_from, target_named(target))
        found.append((name, len(compiled.data), len(one.compiled_from), len(compiled.layers)))
    whole = found[0][1]
    return [
        f"| {arch} | {name} | {size / 1e6:.1f} | {size / whole:.3f} | {weights / 1e6:.1f} | {layers} |"
        for name, size, weights, layers in found
    ]


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--arch", nargs="+", default=["resnet50", "resnet18"])
    arguments.add_argument("--target", default="rtx-30")
    chosen = arguments.parse_args()
    print(HEADER)
    for arch in chosen.arch:
        print("\n".join(rows(arch, chosen.target)))


if __name__ == "__main__":
    main()
