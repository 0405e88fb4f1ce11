"""What TensorRT and TensorRT-RTX have in common, which is nearly everything: compiling and running one engine.

Both have the same Python interface under two package names. Only names that TensorRT 8.6 to 11.4 and TensorRT-RTX all
have are used here; what differs is in ``_tensorrt_versions``. But for the oldest, a network is strongly typed: every type
is the one that the ONNX graph states, INT8 where it has QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

from abc import abstractmethod
from contextlib import ExitStack
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from edge_resnet.engines import cuda
from edge_resnet.engines._tensorrt_build import NO_REASON, build_plan
from edge_resnet.engines._tensorrt_config import default_workspace_mb
from edge_resnet.engines._tensorrt_log import inspected_layers, logger_of, one_line, read_layers
from edge_resnet.engines._tensorrt_tensors import Tensor, check_tensors
from edge_resnet.engines._tensorrt_versions import Line, line_of
from edge_resnet.engines.engine import Answers, CompiledEngine, Engine, Frames, InputSpec, Progress, QuantizedForm
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EngineError, UnavailableError


class TensorRtFamily(Engine):
    """An engine of one of the two libraries; a subclass says which, and what is its own."""

    module: ClassVar[str]
    """The library's Python package."""
    product: ClassVar[str]
    """The library's name, for people."""
    install: ClassVar[str]
    """The command that installs the package."""

    suffix = ".engine"
    scheme = "tensorrt"
    lines: ClassVar[tuple[Line, ...]]
    """The versions that are supported, the oldest first."""

    @classmethod
    @abstractmethod
    def configure(cls, trt: ModuleType, config: Any, target: Target) -> None:
        """Sets what only this library's builder configuration has."""

    @classmethod
    @abstractmethod
    def recover(cls, trt: ModuleType, target: Target) -> None:
        """Undoes what a build that failed has left behind in the process."""

    @classmethod
    @abstractmethod
    def built_for(cls, target: Target) -> tuple[int, ...]:
        """The SMs that an engine compiled here runs on."""

    @classmethod
    def _compile(cls, model: bytes, target: Target, options: BuildOptions, progress: Progress) -> CompiledEngine:
        reason = cls.why_not_compile(target)
        if reason is not None:
            raise UnavailableError(f"cannot compile for {target.name}: {reason}")
        trt = cls._library()
        if options.workspace_mb is None:
            options = replace(options, workspace_mb=default_workspace_mb(target))
        logger = logger_of(trt)
        with logger.fresh():
            plan = build_plan(cls, trt, model, target, options, progress)
            logger.layers = logger.layers or inspected_layers(trt, logger, plan.data)
            layers, log = read_layers(logger.layers), logger.text()
        versions = {cls.module: str(trt.__version__), "sms": ",".join(str(sm) for sm in cls.built_for(target))}
        asked = {name: value for name, value in options.chosen.items() if name != "timing_cache"}
        if asked:
            versions["options"] = " ".join(f"{name}={value}" for name, value in asked.items())
        return CompiledEngine(cls.kind, plan.data, layers, versions, plan.timing_cache, log, plan.beside_dla)

    @classmethod
    def line(cls, trt: ModuleType) -> Line:
        """What is special of the version.

        Raises:
            UnavailableError: it is not supported.
        """
        return line_of(cls.product, cls.lines, str(trt.__version__))

    @classmethod
    def _line_here(cls) -> Line:
        """That of the version installed here; the newest where none is."""
        return cls.lines[-1] if cls._why_not_library() else cls.line(cls._library())

    @classmethod
    def available_options(cls) -> frozenset[str]:
        return cls._line_here().options

    @classmethod
    def quantized_form(cls) -> QuantizedForm:
        return cls._line_here().form

    @classmethod
    def compiler(cls) -> str:
        return cls.product if cls._why_not_library() else f"{cls.product} {cls._library().__version__}"

    @classmethod
    def timing_cache_name(cls, target: Target) -> str | None:
        if "timing_cache" not in cls.available_options() or cls._why_not_library():
            return None
        return f"{cls.kind}-{cls._library().__version__}-{target.name}"

    @classmethod
    def why_not_run(cls, target: Target) -> str | None:
        return why_not_gpu(target) or cls._why_not_library()

    @classmethod
    def _why_not_library(cls) -> str | None:
        try:
            cls._library()
        except UnavailableError as error:
            return str(error)
        return None

    @classmethod
    def _library(cls) -> ModuleType:
        try:
            trt = import_module(cls.module)
        except ModuleNotFoundError as error:
            raise UnavailableError(f"{cls.module} is not installed: {cls.install}") from error
        except (ImportError, OSError) as error:
            raise UnavailableError(f"{cls.module} is installed but cannot be loaded: {one_line(str(error))}") from error
        cls.line(trt)  # refuses a version that is not supported
        return trt

    def __init__(self, data: bytes) -> None:
        """Loads a compiled engine onto this host's GPU.

        Args:
            data: what :meth:`compile` returned, or any engine of this library with the same input and output.

        Raises:
            EngineError: the library refuses the engine, or its input or output is not as this project makes them.
            UnavailableError: there is no NVIDIA GPU, or a package is not installed.
        """
        trt = self._library()
        with ExitStack() as resources:
            self._stream = cuda.Stream()
            resources.callback(self._stream.close)
            self._deserialize(trt, data)
            self._read_tensors(trt)
            self._allocate(resources)
            self._resources = resources.pop_all()

    def _deserialize(self, trt: ModuleType, data: bytes) -> None:
        logger = logger_of(trt)
        with logger.fresh():
            runtime = trt.Runtime(logger)
            engine = runtime.deserialize_cuda_engine(data)
            context = None if engine is None else engine.create_execution_context()
            if context is None:
                reason = logger.errors[0] if logger.errors else NO_REASON
                raise EngineError(f"{self.product} {trt.__version__} cannot load the engine: {reason}")
        self._runtime, self._engine, self._context, self._errors = runtime, engine, context, logger.errors

    def _read_tensors(self, trt: ModuleType) -> None:
        """Finds the input and the output, and from their shapes ``input`` and ``output``."""
        engine = self._engine
        names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
        tensors = {name: Tensor(name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name)) for name in names}
        inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
        outputs = [name for name in names if name not in inputs]
        check_tensors(trt, [tensors[name] for name in inputs], [tensors[name] for name in outputs])
        self._input_name, self._output_name = inputs[0], outputs[0]
        smallest, _, largest = engine.get_tensor_profile_shape(self._input_name, 0)
        self._max_batch = int(largest[0])
        _, height, width, channels = tensors[self._input_name].shape
        self.input = InputSpec(height, width, channels, self._max_batch, int(smallest[0]))
        self.output = tensors[self._output_name].shape[1:]

    def _allocate(self, resources: ExitStack) -> None:
        """Takes pinned and device memory for the largest batch, once, and gives the engine its addresses."""
        spec = self.input
        self._frames = cuda.PinnedArray((self._max_batch, spec.height, spec.width, spec.channels), np.uint8)
        resources.callback(self._frames.close)
        self._answers = cuda.PinnedArray((self._max_batch, *self.output), np.float32)
        resources.callback(self._answers.close)
        self._device_frames = cuda.DeviceBuffer(self._frames.array.nbytes)
        resources.callback(self._device_frames.close)
        self._device_answers = cuda.DeviceBuffer(self._answers.array.nbytes)
        resources.callback(self._device_answers.close)
        self._context.set_tensor_address(self._input_name, self._device_frames.address)
        self._context.set_tensor_address(self._output_name, self._device_answers.address)

    def device(self) -> str:
        return f"NVIDIA GPU with SM {cuda.gpu_sm()}"

    def _run(self, frames: Frames) -> Answers:
        batch = len(frames)
        staged = self._frames.array[:batch]
        answers: Answers = self._answers.array[:batch]
        staged[...] = frames
        self._context.set_input_shape(self._input_name, frames.shape)
        self._stream.upload(staged, self._device_frames)
        if not self._context.execute_async_v3(self._stream.handle):
            reason = self._errors[-1] if self._errors else NO_REASON
            raise EngineError(f"{self.product} cannot run a batch of {batch}: {reason}")
        self._stream.download(self._device_answers, answers)
        self._stream.synchronize()
        copied: Answers = answers.copy()
        return copied

    def _close(self) -> None:
        # The context before its engine, the engine before its runtime, and the memory they use last.
        del self._context, self._engine, self._runtime
        self._resources.close()


def why_not_gpu(target: Target) -> str | None:
    """Why this host has no GPU of the target's SMs, in one line; None when it has one."""
    *others, last = (str(sm) for sm in target.sms)
    wanted = f"needs an NVIDIA GPU with SM {' or '.join([', '.join(others), last] if others else [last])}"
    try:
        sm = cuda.gpu_sm()
    except UnavailableError as error:
        return str(error)
    if sm is None:
        return f"{wanted} (this host has none)"
    return None if sm in target.sms else f"{wanted} (this host's has SM {sm})"
