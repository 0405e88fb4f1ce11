"""TensorRT's runtime without a GPU: a plan is an ONNX file, and running it is ONNX Runtime's exact evaluation of it.

It works on the memory of a ``CudaDouble`` and refuses what TensorRT's documentation forbids. Enumerations and the logger's
base class are the real ones of TensorRT-RTX; a test holds the names here against the real interfaces.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import tensorrt_rtx
from cuda_double import CudaDouble, FakeStream, MisuseError, Work

from edge_resnet.engines import _tensorrt
from edge_resnet.engines.cuda import choice

MAX_BATCH = 8
ALIGNMENT = 256


def tensorrt_double(cuda: CudaDouble, version: str = "10.3.0") -> ModuleType:
    """A module that stands for ``tensorrt`` in ``sys.modules``."""
    module = ModuleType("tensorrt")
    real = ("ILogger", "DataType", "TensorIOMode", "IProgressMonitor", "ProfilingVerbosity")
    module.__dict__.update({name: getattr(tensorrt_rtx, name) for name in real})
    module.__dict__.update({"__version__": version, "Runtime": lambda logger: Runtime(logger, cuda)})
    return module


def installed(cuda: CudaDouble, monkeypatch: pytest.MonkeyPatch) -> CudaDouble:
    """Makes the doubles this host's GPU and its TensorRT, for one test."""
    monkeypatch.setitem(sys.modules, "tensorrt", tensorrt_double(cuda))
    for user in (choice, _tensorrt):
        monkeypatch.setattr(user, "cuda_api", lambda name=None: cuda)
    return cuda


class Runtime:
    def __init__(self, logger: Any, cuda: CudaDouble) -> None:
        self._logger, self._cuda = logger, cuda

    @property
    def engine_host_code_allowed(self) -> bool:
        """An engine may bring code for the host, which this lets run: never for one that comes from a file."""
        return False

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        self._cuda._need_context()
        try:
            return ICudaEngine(bytes(serialized_engine), self._logger, self._cuda)
        except Exception:
            self._logger.log(tensorrt_rtx.ILogger.ERROR, "IRuntime::deserializeCudaEngine: Error Code 1: bad magic")
            return None


class ICudaEngine:
    def __init__(self, model: bytes, logger: Any, cuda: CudaDouble) -> None:
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.intra_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        graph = onnx.load_from_string(model).graph
        self._tensors = {value.name: value for value in (*graph.input, *graph.output)}
        self._inputs = [value.name for value in graph.input]
        self._logger, self._cuda = logger, cuda
        self.num_io_tensors = len(self._tensors)

    def get_tensor_name(self, index: int) -> str:
        return list(self._tensors)[index]

    def get_tensor_dtype(self, name: str) -> Any:
        kinds = {
            onnx.TensorProto.UINT8: tensorrt_rtx.DataType.UINT8,
            onnx.TensorProto.FLOAT: tensorrt_rtx.DataType.FLOAT,
        }
        return kinds[self._tensors[name].type.tensor_type.elem_type]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        sizes = self._tensors[name].type.tensor_type.shape.dim
        return tuple(size.dim_value if size.HasField("dim_value") else -1 for size in sizes)

    def get_tensor_mode(self, name: str) -> Any:
        return tensorrt_rtx.TensorIOMode.INPUT if name in self._inputs else tensorrt_rtx.TensorIOMode.OUTPUT

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        _, *item = self.get_tensor_shape(name)
        return [(batch, *item) for batch in (1, 1, MAX_BATCH)]

    def create_execution_context(self) -> IExecutionContext:
        self._cuda._need_context()
        return IExecutionContext(self, self._logger, self._cuda)


class IExecutionContext:
    def __init__(self, engine: ICudaEngine, logger: Any, cuda: CudaDouble) -> None:
        self._engine, self._logger, self._cuda = engine, logger, cuda
        self._addresses: dict[str, int] = {}
        self._shape: tuple[int, ...] | None = None
        self._warm = False
        self.fails = False
        """Set by a test: the next run fails as TensorRT does."""

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        assert name in self._engine._inputs
        self._shape, self._warm = tuple(shape), False
        return True

    def set_tensor_address(self, name: str, memory: int) -> bool:
        if memory % ALIGNMENT:
            raise MisuseError(f"address {memory:#x} of '{name}' is not aligned to {ALIGNMENT} bytes")
        self._addresses[name] = memory
        return True

    def is_stream_capturable(self, stream: int) -> bool:
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        self._cuda._need_context()
        stream: FakeStream = self._cuda.streams[stream_handle]
        if stream.captured is not None and not self._warm:
            raise MisuseError("a run is captured before the context has run this shape once")
        if self.fails or self._shape is None or len(self._addresses) < self._engine.num_io_tensors:
            self._logger.log(tensorrt_rtx.ILogger.ERROR, "IExecutionContext::enqueueV3: Error Code 3: not ready")
            return False
        self._warm = True
        (source,), (result,) = self._engine._inputs, [n for n in self._addresses if n not in self._engine._inputs]
        shape, reads, writes = self._shape, self._addresses[source], self._addresses[result]
        answer = (shape[0], *self._engine.get_tensor_shape(result)[1:])
        size, answer_size = int(np.prod(shape)), 4 * int(np.prod(answer))
        self._cuda.on_gpu(reads, size), self._cuda.on_gpu(writes, answer_size)

        def do() -> None:
            frames = self._cuda.on_gpu(reads, size).reshape(shape)
            (found,) = self._engine._session.run([result], {source: frames})
            self._cuda.on_gpu(writes, answer_size)[:] = found.astype(np.float32).reshape(-1).view(np.uint8)

        needs = (self._cuda.allocation(reads), self._cuda.allocation(writes))
        self._cuda.queue(stream, Work("execute", needs, do))
        return True
