"""What TensorRT and TensorRT-RTX have in common, which is nearly everything: compiling and running one engine.

Both have the same Python interface under two package names. Only names that TensorRT 8.6 to 11.4 and TensorRT-RTX all
have are used here; what differs is in ``_tensorrt_versions``. But for the oldest, a network is strongly typed: every type
is the one that the ONNX graph states, INT8 where it has QuantizeLinear and DequantizeLinear.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import Any, ClassVar
from weakref import finalize

from edge_resnet.engines._tensorrt_build import build_plan
from edge_resnet.engines._tensorrt_config import default_workspace_mb
from edge_resnet.engines._tensorrt_log import inspected_layers, logger_of, one_line, read_layers
from edge_resnet.engines._tensorrt_plan import why_not_plan
from edge_resnet.engines._tensorrt_run import Plan, Worker
from edge_resnet.engines._tensorrt_versions import Line, line_of
from edge_resnet.engines.cuda.arrays import device_frames
from edge_resnet.engines.cuda.choice import cuda_api, gpu_sm
from edge_resnet.engines.engine import Answers, CompiledEngine, Engine, Frames, Phases, Progress, QuantizedForm
from edge_resnet.engines.options import BuildOptions, record_options
from edge_resnet.engines.targets import Target
from edge_resnet.errors import EngineError, UnavailableError

AMPERE = 80
"""The first SM whose tensor cores skip zeros ("NVIDIA A100 Tensor Core GPU Architecture", Structured Sparsity).
An engine for older SMs beside newer ones is told too: the flag allows, and asks for nothing."""


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
        versions |= cls.compiled_on()
        versions |= record_options({name: each for name, each in options.chosen.items() if name != "timing_cache"})
        return CompiledEngine(cls.kind, plan.data, layers, versions, plan.timing_cache, log, plan.beside_dla)

    @classmethod
    def compiled_on(cls) -> dict[str, str]:
        """Under ``COMPILED_ON`` the device, where an engine is for just the one that it is compiled on."""
        return {}

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
    def has_sparse_kernels(cls, target: Target) -> bool:
        return any(sm >= AMPERE for sm in target.sms)

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
    def library(cls) -> tuple[str, str]:
        return cls.module, str(cls._library().__version__)

    @classmethod
    def why_not_load(cls, versions: Mapping[str, str]) -> str | None:
        return why_not_plan(cls.product, versions, cls.library(), gpu_sm())

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

    def _open(self, data: bytes, cuda: str | None) -> None:
        self._use(Plan(self.product, self._library(), data, cuda_api(cuda)))

    def _share(self, other: Engine) -> None:
        assert isinstance(other, TensorRtFamily)
        self._use(other._worker.plan)

    def _use(self, plan: Plan) -> None:
        self._worker = Worker(plan, self.capturable)
        self.input, self.output = plan.input, plan.output
        # Called by close, or when the engine is forgotten, or when the interpreter ends: whichever comes first.
        self._release = finalize(self, _in_this_process, os.getpid(), self._worker.close)

    @classmethod
    def capturable(cls, context: Any, stream: int) -> bool:
        """Whether a context's work on a stream, as C's number, can be captured as a CUDA graph now."""
        return True

    def device(self) -> str:
        api = self._worker.plan.api
        with api.current():
            return api.gpu().words

    def staging(self, batch: int) -> Frames:
        return self._worker.staging(batch)

    def _run(self, frames: Frames, out: Answers | None) -> Answers:
        return self._worker.run(frames, out)

    def timed(self, frames: Frames) -> Phases:
        self._check_open()
        self._check_shape(frames.shape)
        return self._worker.timed(frames)

    def run_device(self, frames: Any, out: Answers | None = None, *, stream: int | None = None) -> Answers:
        self._check_open()
        found = device_frames(frames, self._worker.stream)
        self._check_shape(found.shape)
        self._check_out(found.shape[0], out)
        if found.shape[0] < self.input.min_batch:
            raise EngineError(
                f"{found.shape[0]} frames on the GPU: the engine takes batches from {self.input.min_batch}"
            )
        return self._worker.run_device(found, stream, out)

    def _close(self) -> None:
        self._release()


def _in_this_process(process: int, close: Callable[[], None]) -> None:
    """Closes, unless this is a fork of the process that opened: what the GPU holds is that one's."""
    if os.getpid() == process:
        close()


def why_not_gpu(target: Target) -> str | None:
    """Why this host has no GPU of the target's SMs, in one line; None when it has one."""
    *others, last = (str(sm) for sm in target.sms)
    wanted = f"needs an NVIDIA GPU with SM {' or '.join([', '.join(others), last] if others else [last])}"
    try:
        sm = gpu_sm()
    except UnavailableError as error:
        return str(error)
    if sm is None:
        return f"{wanted} (this host has none)"
    return None if sm in target.sms else f"{wanted} (this host's has SM {sm})"
