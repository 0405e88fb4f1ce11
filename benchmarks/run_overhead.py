"""What a run of a TensorRT engine costs in Python, around the library's own execution.

    python benchmarks/run_overhead.py [--runs 10000] [--cuda pycuda]

On a host with a GPU of an engine this is measured there. Without one, the real binding of CUDA runs on a driver's double in
C, and the library's execution is an empty function: what is left is our code and the binding's. A frame of 224×224×3 comes
from host memory, is copied to page-locked memory (that copy is a row of its own), and its 1,000 logits are copied out.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx

TESTS = Path(__file__).parents[1] / "tests"
sys.path.insert(0, str(TESTS / "support"))


def network() -> bytes:
    """uint8 N×224×224×3 → float32 N×1000, as a ResNet's; what lies between does not matter here."""
    model = onnx.parser.parse_model("""<ir_version: 8, opset_import: ["": 17]>
    network (uint8[N,224,224,3] frames) => (float[N,1000] logits) <float[3,1000] weights> {
        floats = Cast <to=1> (frames) mean = ReduceMean <axes=[1,2], keepdims=0> (floats) logits = MatMul(mean, weights)
    }""")
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 1000), np.float32), "weights"))
    return model.SerializeToString()


def load_driver_double(folder: str) -> None:
    """Makes the double what ``libcuda.so.1`` is in this process."""
    library = Path(folder) / "libcuda.so.1"
    source = TESTS / "support" / "libcuda_double.c"
    flags = ["-shared", "-fPIC", "-O2", "-Wl,-soname,libcuda.so.1"]
    subprocess.run(["cc", *flags, "-o", str(library), str(source), "-ldl"], check=True)
    ctypes.CDLL(str(library), mode=ctypes.RTLD_GLOBAL)


def microseconds(run: Callable[[], object], runs: int) -> str:
    """Median and 99th percentile of single calls."""
    times = np.empty(runs)
    for index in range(runs):
        start = time.perf_counter_ns()
        run()
        times[index] = time.perf_counter_ns() - start
    return f"| {np.median(times) / 1e3:.1f} | {np.percentile(times, 99) / 1e3:.1f} |"


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--runs", type=int, default=10_000)
    arguments.add_argument("--cuda", default="cuda-bindings")
    chosen = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        load_driver_double(folder)
        measure(chosen.cuda, chosen.runs)


def measure(binding: str, runs: int) -> None:
    from cuda_double import CudaDouble
    from trt_double import IExecutionContext, tensorrt_double

    from edge_resnet.engines.cuda import cuda_api
    from edge_resnet.engines.trt import TensorRtEngine

    sys.modules["tensorrt"] = tensorrt_double(CudaDouble())
    CudaDouble._need_context = lambda self: None  # type: ignore[method-assign]  # the context is the real binding's
    IExecutionContext.execute_async_v3 = lambda self, stream_handle: True  # type: ignore[method-assign]
    frames, copied = np.zeros((2, 1, 224, 224, 3), np.uint8)
    print("| a call of | median µs | 99th percentile µs |\n|---|---|---|")
    for graphs in (True, False):
        cuda_api(binding).has_graphs = graphs
        how = "with a graph" if graphs else "without graphs"
        with TensorRtEngine(network(), cuda=binding) as engine:
            staged, out = engine.staging(1), np.empty((1, 1000), np.float32)
            for _ in range(10):
                engine.run(staged, out)
            print(f"| `run`, frames staged, {how}", microseconds(lambda: engine.run(staged, out), runs))  # noqa: B023
            print(f"| `run`, {how}", microseconds(lambda: engine.run(frames), runs))
    print("| the copy of a frame alone", microseconds(lambda: np.copyto(copied, frames), runs))


if __name__ == "__main__":
    main()
