"""One quantization by this project, in a process of its own, as ``_peers_worker.py`` has one by another tool.

``python _own_worker.py MODEL FRAMES DRAWN MADE EFFORT SCHEME``: MODEL takes uint8 frames; FRAMES are all calibration
frames, DRAWN those that refinement looks at, both .npy; EFFORT is an effort of ``quantize``, or ``ranges`` for no
refinement at all. Prints JSON with the seconds from the files to the quantized file, and the peak memory in MB.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
import onnx
from _peers_worker import peak_megabytes

from edge_resnet.calibration.affine import QuantParams, symmetric
from edge_resnet.calibration.collect import collect
from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.qdq import insert_qdq
from edge_resnet.calibration.quantize import quantize
from edge_resnet.calibration.schemes import SCHEMES, Scheme, TensorRtScheme

RANGES_ALONE = "ranges"


class SymmetricScheme(TensorRtScheme):
    """Where ``tensorrt`` has its pairs, with symmetric ranges: INT8 as other tools write it for TensorRT."""

    name = "symmetric"

    def activation_params(self, found: TensorRange) -> QuantParams:
        return symmetric(found.amax)


def scheme_of(name: str) -> Scheme:
    return SymmetricScheme() if name == SymmetricScheme.name else SCHEMES[name]


def quantized(model: str, frames: str, drawn: str, effort: str, scheme: Scheme) -> onnx.ModelProto:
    network, images = onnx.load(model), np.load(frames)
    batches = (images[start : start + 8] for start in range(0, len(images), 8))
    table = collect(network, batches, method="mse", images={}, preprocessing={})
    if effort == RANGES_ALONE:
        return insert_qdq(network, table, scheme).model
    return quantize(network, table, scheme, np.load(drawn)).model


def main() -> None:
    model, frames, drawn, made, effort, scheme = sys.argv[1:]
    start = time.perf_counter()
    onnx.save(quantized(model, frames, drawn, effort, scheme_of(scheme)), made)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes()}))


if __name__ == "__main__":
    main()
