"""One quantization by one tool, in a process of its own: ``python _peers_worker.py MODEL INPUTS MADE TOOL``.

MODEL is FP32 ONNX that takes float images, INPUTS a .npy of them, MADE the ONNX to write. Prints, as its last line, JSON
with the seconds from the files to the quantized file, imports aside, and the process' peak memory in MB, imports included.
Imports nothing of this project: the tools live in environments of their own.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

Quantize = Callable[[str, str, str], None]
"""Model, inputs, and the model to write."""


def onnxruntime_tool(method: str) -> Quantize:
    """``quantize_static`` in the form that its kernels are fastest in, after its own preparation of the graph."""
    from onnxruntime.quantization import CalibrationDataReader, CalibrationMethod, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime ships no types
        def __init__(self, name: str, images: Any) -> None:
            self._batches = ({name: images[i : i + 1]} for i in range(len(images)))

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    def run(model: str, inputs: str, made: str) -> None:
        prepared = f"{made}.prepared"
        quant_pre_process(model, prepared)
        quantize(
            prepared,
            made,
            Reader(input_name(model), np.load(inputs)),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            calibrate_method=CalibrationMethod[method],
        )

    return run


def nncf_tool(preset: str, accurate: bool) -> Quantize:
    """NNCF's ONNX backend: every image, and no half range for the first layer, which is for CPUs without VNNI.

    By its own choice ranges are the mean of each image's extremes, and biases are corrected fast; ``accurate`` chooses
    ranges by histograms, and corrects biases the slow way.
    """
    import nncf
    import onnx
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, OverflowFix
    from nncf.quantization.range_estimator import RangeEstimatorParameters, RangeEstimatorParametersSet

    ranges = RangeEstimatorParametersSet.HISTOGRAM if accurate else RangeEstimatorParameters()

    def run(model: str, inputs: str, made: str) -> None:
        name, images = input_name(model), np.load(inputs)
        quantized = nncf.quantize(
            onnx.load(model),
            nncf.Dataset([{name: images[i : i + 1]} for i in range(len(images))]),
            preset=nncf.QuantizationPreset(preset),
            target_device=nncf.TargetDevice.ANY,
            subset_size=len(images),
            fast_bias_correction=not accurate,
            advanced_parameters=AdvancedQuantizationParameters(
                overflow_fix=OverflowFix.DISABLE, activations_range_estimator_params=ranges
            ),
        )
        onnx.save(quantized, made)

    return run


def modelopt_tool(method: str) -> Quantize:
    """ModelOpt's ONNX path, calibrated on the CPU; what stays float stays FP32."""
    from modelopt.onnx.quantization import quantize

    def run(model: str, inputs: str, made: str) -> None:
        quantize(
            model,
            quantize_mode="int8",
            calibration_data={input_name(model): np.load(inputs)},
            calibration_method=method,
            calibration_eps=["cpu"],
            high_precision_dtype="fp32",
            output_path=made,
        )

    return run


def input_name(model: str) -> str:
    import onnx

    return str(onnx.load(model).graph.input[0].name)


TOOLS: dict[str, Callable[[], Quantize]] = {
    "ort-minmax": partial(onnxruntime_tool, "MinMax"),
    "ort-entropy": partial(onnxruntime_tool, "Entropy"),
    "ort-percentile": partial(onnxruntime_tool, "Percentile"),
    "nncf-performance": partial(nncf_tool, "performance", accurate=False),
    "nncf-mixed": partial(nncf_tool, "mixed", accurate=False),
    "nncf-performance-accurate": partial(nncf_tool, "performance", accurate=True),
    "nncf-mixed-accurate": partial(nncf_tool, "mixed", accurate=True),
    "modelopt-max": partial(modelopt_tool, "max"),
    "modelopt-entropy": partial(modelopt_tool, "entropy"),
}


def peak_megabytes() -> float:
    """VmHWM of this process."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    model, inputs, made, tool = sys.argv[1:]
    quantize = TOOLS[tool]()
    start = time.perf_counter()
    quantize(model, inputs, made)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes()}))


if __name__ == "__main__":
    main()
