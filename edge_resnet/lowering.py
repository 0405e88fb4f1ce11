"""A network as one family of engines takes it, and as it is evaluated where no such engine runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property, partial

import onnx

from edge_resnet.accuracy import Run
from edge_resnet.calibration.float_types import brain_rounded, brain_typed, half_typed
from edge_resnet.calibration.float_weights import float_weights
from edge_resnet.calibration.qdq import QuantizedModel
from edge_resnet.calibration.schemes import scheme_named
from edge_resnet.calibration.simulate import exact_session, run_frames
from edge_resnet.camera_graph import check_camera, with_camera
from edge_resnet.engines.compiler import Compiler
from edge_resnet.engines.engine import Layer
from edge_resnet.errors import GateError
from edge_resnet.frames import FrameFormat
from edge_resnet.onnx_file import serialise
from edge_resnet.preprocessing import Preprocessing


@dataclass(frozen=True)
class Lowered:
    """One network, ready to be compiled."""

    compiled_from: bytes
    """Serialised ONNX, typed as the engine shall compute."""
    evaluated_as: onnx.ModelProto
    """What stands for the engine where it cannot run."""
    quantized_layers: tuple[str, ...] = ()
    """Convolutions that shall compute in ``precision``."""
    precision: str = "fp32"

    @classmethod
    def quantized(cls, quantized: QuantizedModel, engine: Compiler) -> Lowered:
        """A Q/DQ network for one kind of engine, in the form that the version installed here takes."""
        form = engine.quantized_form()
        typed = half_typed(quantized.model) if form.floats == "fp16" else quantized.model
        made = typed if form.stored_weights else float_weights(typed)
        precision = scheme_named(quantized.scheme).precision
        return cls(serialise(made), quantized.model, quantized.quantized_layers, precision)

    @classmethod
    def fp16(cls, model: onnx.ModelProto) -> Lowered:
        """An FP32 network with FP16 arithmetic."""
        half = half_typed(model)
        return cls(serialise(half), half, precision="fp16")

    @classmethod
    def bf16(cls, model: onnx.ModelProto) -> Lowered:
        """An FP32 network with BF16 arithmetic. No CPU computes in it: FP32 that is rounded to BF16 stands for it."""
        return cls(serialise(brain_typed(model)), brain_rounded(model), precision="bf16")

    @classmethod
    def fp32(cls, model: onnx.ModelProto) -> Lowered:
        """An FP32 network as it is."""
        return cls(serialise(model), model)

    def with_camera(self, preprocessing: Preprocessing, frames: FrameFormat) -> Lowered:
        """The same network, but its graph prepares a camera's frames itself.

        Raises:
            GateError: the graph would not prepare them as the preprocessing does.
        """
        check_camera(preprocessing, frames)
        compiled, evaluated = (
            with_camera(model, preprocessing, frames)
            for model in (onnx.load_from_string(self.compiled_from), self.evaluated_as)
        )
        return replace(self, compiled_from=serialise(compiled), evaluated_as=evaluated)

    @cached_property
    def predicted(self) -> Run:
        """Exact evaluation in the engine's place."""
        return partial(run_frames, exact_session(self.evaluated_as))

    def uncovered(self, layers: Iterable[Layer]) -> list[str]:
        """Layers that shall compute in ``precision``, and of an engine's layers none does."""
        covered = {
            name for layer in layers if layer.precision == self.precision for name in (layer.name, *layer.sources)
        }
        return [name for name in self.quantized_layers if name not in covered]

    def check_coverage(self, target: str, layers: Iterable[Layer]) -> None:
        """Refuses an engine in which a layer that shall be INT8 or FP8 is not.

        Raises:
            GateError: such layers; the first few are named.
        """
        missing = self.uncovered(layers)
        if missing:
            more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
            raise GateError(
                f"the compiler for {target} did not make {', '.join(missing[:3])}{more} {self.precision.upper()}: "
                f"name them in [quantize] keep_float, or build fp16"
            )


FLOAT: dict[str, Callable[[onnx.ModelProto], Lowered]] = {
    "fp32": Lowered.fp32,
    "fp16": Lowered.fp16,
    "bf16": Lowered.bf16,
}
"""Precisions that need no ranges."""
QUANTIZED = {"int8": "tensorrt", "fp8": "fp8"}
"""Precisions that do → the scheme of the Q/DQ ONNX that a bundle holds, for engines that are compiled later."""
