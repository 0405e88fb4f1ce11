"""ONNX Runtime on the CPU."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnxruntime

from edge_resnet.engines.engine import (
    Answers,
    CompiledEngine,
    Engine,
    Frames,
    InputSpec,
    Layer,
    Progress,
    QuantizedForm,
)
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.processor import cpu_name
from edge_resnet.errors import EngineError

if TYPE_CHECKING:
    from edge_resnet.engines.targets import Target

_INTEGER_KERNELS = ("QLinearConv", "ConvInteger", "QGemm", "MatMulInteger", "DynamicQuantizeMatMul")
_FLOAT_KERNELS = ("Conv", "FusedConv", "NhwcFusedConv", "Gemm", "FusedGemm", "MatMul", "FusedMatMul")

_FUSED = re.compile(r"_token_\d+$")
"""What ONNX Runtime appends to the name of a node that it has fused others into."""


def _session(model: bytes, optimised: Path | None = None, threads: int = 0) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if optimised is not None:
        options.optimized_model_filepath = str(optimised)
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises a class of its own for each status, with no common base
        raise EngineError(f"ONNX Runtime {onnxruntime.__version__} refuses the model: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _layers(optimised: Path) -> tuple[Layer, ...]:
    """Layers with weights of the graph that ONNX Runtime made, and whether each computes in integers."""
    import onnx  # the runtime path never comes here: it must not need onnx

    nodes = onnx.load(optimised, load_external_data=False).graph.node
    integer = [(node, "int8") for node in nodes if node.op_type in _INTEGER_KERNELS]
    floating = [(node, "fp32") for node in nodes if node.op_type in _FLOAT_KERNELS]
    return tuple(Layer(_FUSED.sub("", node.name), precision) for node, precision in integer + floating)


class OrtEngine(Engine):
    """An ONNX model run by ONNX Runtime's CPU kernels. The engine's bytes are the ONNX file itself.

    ONNX Runtime fuses Q/DQ into integer kernels when the model is loaded, for the CPU that it then finds.
    """

    kind = "onnxruntime"
    suffix = ".onnx"
    scheme = "cpu"

    threads: ClassVar[int] = 0
    """That compute; 0: one on each core. 1 is the thread that calls ``run``."""
    _session: onnxruntime.InferenceSession | None

    def _open(self, data: bytes, cuda: str | None) -> None:
        if cuda is not None:
            raise EngineError(f"this engine runs on the CPU: it has no use for the CUDA binding '{cuda}'")
        self._session = _session(data, threads=self.threads)
        source, result = self._session.get_inputs()[0], self._session.get_outputs()[0]
        if source.type != "tensor(uint8)" or len(source.shape) != 4:
            raise EngineError(
                f"the model's input '{source.name}' is {source.type} {source.shape}: export it with edge-resnet, "
                f"so that it takes uint8 batch×H×W×C"
            )
        height, width, channels = (int(d) for d in source.shape[1:])
        self.input = InputSpec(height, width, channels, max_batch=None)
        self.output = tuple(int(d) for d in result.shape[1:])
        self._names = (source.name, result.name)

    def _share(self, other: Engine) -> None:
        """Takes the session, which any number of threads may run."""
        assert isinstance(other, OrtEngine)
        self._session, self._names = other._session, other._names
        self.input, self.output = other.input, other.output

    @classmethod
    def _compile(cls, model: bytes, target: Target, options: BuildOptions, progress: Progress) -> CompiledEngine:
        with tempfile.TemporaryDirectory() as folder:
            optimised = Path(folder) / "optimised.onnx"
            _session(model, optimised)
            layers = _layers(optimised)
        return CompiledEngine(cls.kind, model, layers, {"onnxruntime": onnxruntime.__version__})

    @classmethod
    def compiler(cls) -> str:
        return f"ONNX Runtime {onnxruntime.__version__}"

    @classmethod
    def quantized_form(cls) -> QuantizedForm:
        return QuantizedForm(floats="fp32", stored_weights=True)

    @classmethod
    def why_not_compile(cls, target: Target) -> str | None:
        return None

    @classmethod
    def why_not_run(cls, target: Target) -> str | None:
        return None

    @classmethod
    def library(cls) -> tuple[str, str]:
        return "onnxruntime", str(onnxruntime.__version__)

    @classmethod
    def one_threaded(cls) -> type[OrtEngine]:
        return SideOrtEngine

    def device(self) -> str:
        return cpu_name()

    def _run(self, frames: Frames, out: Answers | None) -> Answers:
        assert self._session is not None
        source, result = self._names
        answers: Answers = self._session.run([result], {source: np.ascontiguousarray(frames)})[0]
        if out is None:
            return answers
        out[...] = answers
        return out

    def _close(self) -> None:
        self._session = None


class SideOrtEngine(OrtEngine):
    """One that works beside another engine, on the calling thread alone, and leaves it the other cores."""

    threads = 1
