"""What every engine is: the values that describe one, and the base class that checks what goes in."""

from __future__ import annotations

import os
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import numpy.typing as npt

from edge_resnet.engines.options import DEFAULTS, NOT_ASKED, BuildOptions
from edge_resnet.errors import EngineError

if TYPE_CHECKING:
    from edge_resnet.engines.targets import Target

Frames = npt.NDArray[np.uint8]
"""uint8 N×H×W×C, at the network's public size."""
Answers = npt.NDArray[np.float32]
"""float32: logits N×classes, or features N×channels or N×channels×h×w."""
COMPILED_ON = "compiled on"
"""Key among an engine's versions: the device that it was compiled on, where an engine is for just that one."""
Progress = Callable[[str, int, int], None]
"""Called with a phase's name, the steps done and the steps in all."""


@dataclass(frozen=True)
class Layer:
    """One layer of a compiled engine: its name and the precision that its arithmetic has."""

    name: str
    precision: str
    """``int8``, ``fp16``, ``fp32``, …"""
    sources: tuple[str, ...] = ()
    """Names of the ONNX nodes that it was made from; empty where the compiler does not say."""


@dataclass(frozen=True)
class CompiledEngine:
    """What a compiler returns: exactly the bytes that the backend loads, and what is known about them."""

    kind: str
    data: bytes
    layers: tuple[Layer, ...]
    versions: dict[str, str]
    """Backend, library and SMs it was compiled with and for; under ``options``, what was asked for beside that."""
    timing_cache: bytes | None = field(default=None, repr=False)
    """What the compiler has measured, old and new, for later builds on this device; None where it measures nothing."""
    log: str = ""
    """What the compiler said that matters, line by line: warnings, errors and the finished layers."""
    beside_dla: tuple[str, ...] = ()
    """Of an engine for a DLA, the layers that the DLA cannot run, and that the GPU does."""

    @property
    def layers_by_precision(self) -> dict[str, int]:
        """How many layers compute in each precision, the most frequent first."""
        return dict(Counter(layer.precision for layer in self.layers).most_common())


@dataclass(frozen=True)
class QuantizedForm:
    """How a compiler takes a quantized graph."""

    floats: str
    """Precision that the graph states for what is not quantized: ``fp32`` or ``fp16``."""
    stored_weights: bool
    """Whether weights are stored as integers in front of their DequantizeLinear; else as floats, in front of a
    QuantizeLinear too."""


@dataclass(frozen=True)
class InputSpec:
    """What an engine takes: uint8 frames of one size, in batches up to a limit."""

    height: int
    width: int
    channels: int
    max_batch: int | None
    """None: no limit."""
    min_batch: int = 1
    """Smaller batches are filled up with their last frame, whose further answers are left out."""


@dataclass(frozen=True)
class Phases:
    """Where the time of one run went, in milliseconds; None where nothing is copied."""

    copy_in_ms: float | None
    execute_ms: float
    copy_out_ms: float | None


class Engine(ABC):
    """A compiled network. ``run`` takes uint8 frames and returns float32 answers; ``close`` frees what it holds.

    A subclass gives the hooks below; every check of the input is done here, once.
    """

    kind: ClassVar[str]
    suffix: ClassVar[str]
    """Of a file that holds the engine's bytes."""
    scheme: ClassVar[str]
    """Name of the quantization scheme whose Q/DQ the compiler takes."""

    input: InputSpec
    output: tuple[int, ...]
    """Shape of the answer to one frame."""

    def __init__(self, data: bytes, *, cuda: str | None = None) -> None:
        """Loads an engine's bytes.

        Args:
            data: what ``compile`` returned.
            cuda: the Python binding of CUDA that an engine on a GPU shall use; None chooses (see ``engines.cuda``).

        Raises:
            EngineError: the backend refuses them.
            UnavailableError: the backend or the device is missing.
        """
        self._process = os.getpid()
        self._open(data, cuda)

    @classmethod
    def compile(
        cls,
        model: bytes,
        target: Target,
        options: BuildOptions = DEFAULTS,
        progress: Progress | None = None,
    ) -> CompiledEngine:
        """Compiles a serialised ONNX model (uint8 N×H×W×C in, float32 answers out) for a target.

        Raises:
            EngineError: the compiler refuses the model; its own words are in the message. Or an option is not to be had.
            UnavailableError: the compiler is not installed, or cannot compile for this target on this host.
        """
        cls.check_options(options)
        return cls._compile(model, target, options, progress or _silent)

    @classmethod
    def check_options(cls, options: BuildOptions) -> None:
        """Refuses what this kind, in the version that is installed here, would ignore or does not know.

        Raises:
            EngineError: such an option was chosen.
        """
        available = cls.available_options()
        for name, value in options.chosen.items():
            if name not in available:
                known = ", ".join(sorted(available - NOT_ASKED)) or "none"
                raise EngineError(
                    f"{cls.compiler()} has no option {name}, and it is {value}: leave it out (there are: {known})"
                )

    @classmethod
    def available_options(cls) -> frozenset[str]:
        """The fields of :class:`BuildOptions` that this kind has, in the version that is installed here."""
        return frozenset()

    @classmethod
    @abstractmethod
    def compiler(cls) -> str:
        """The compiler's name and, where it is installed, its version."""

    @classmethod
    @abstractmethod
    def _compile(cls, model: bytes, target: Target, options: BuildOptions, progress: Progress) -> CompiledEngine:
        """Compiles with options that have been checked."""

    @classmethod
    @abstractmethod
    def quantized_form(cls) -> QuantizedForm:
        """How the compiler that is installed here takes a quantized graph; where none is, how the newest does."""

    @classmethod
    def note_on(cls, precision: str) -> str | None:
        """What whoever asks for a precision should know of it here, in one line."""
        return None

    @classmethod
    def has_sparse_kernels(cls, target: Target) -> bool:
        """Whether this kind has kernels for a target that skip the zeros of weights that are 2:4 sparse."""
        return False

    @classmethod
    def timing_cache_name(cls, target: Target) -> str | None:
        """A name for the measurements that hold for a device and the version installed here; None: there are none."""
        return None

    @classmethod
    @abstractmethod
    def why_not_compile(cls, target: Target) -> str | None:
        """Why this host cannot compile for the target, in one line; None when it can."""

    @classmethod
    @abstractmethod
    def why_not_run(cls, target: Target) -> str | None:
        """Why this host cannot run engines of the target, in one line; None when it can."""

    @classmethod
    @abstractmethod
    def library(cls) -> tuple[str, str]:
        """The library that runs these engines, as ``versions`` name it, and its version here.

        Raises:
            UnavailableError: it is not installed.
        """

    @classmethod
    def why_not_load(cls, versions: Mapping[str, str]) -> str | None:
        """Why an engine that was compiled with and for ``versions`` is not to be loaded here, in one line.

        None: the library takes it, or ``versions`` do not say. It is asked before the library sees a byte: what a library
        makes of another version's engine is its own affair, and its own words do not say what to do.
        """
        return None

    @classmethod
    def one_threaded(cls) -> type[Engine]:
        """The same kind on the calling thread alone, for where others compute beside it.

        Raises:
            EngineError: it does not compute on the CPU.
        """
        raise EngineError(
            f"an engine of {cls.kind} runs on this machine's GPU, which --ray cannot spread: leave it out"
        )

    @abstractmethod
    def device(self) -> str:
        """What the engine runs on, in words."""

    @abstractmethod
    def _open(self, data: bytes, cuda: str | None) -> None:
        """Loads the bytes; sets ``input`` and ``output``."""

    @abstractmethod
    def _share(self, other: Engine) -> None:
        """Takes what another engine of this class has loaded; sets ``input`` and ``output``."""

    @abstractmethod
    def _run(self, frames: Frames, out: Answers | None) -> Answers:
        """Runs frames that have been checked; answers into ``out``, or into an array of its own."""

    @abstractmethod
    def _close(self) -> None:
        """Frees everything; called once."""

    _closed = False

    def run(self, frames: Frames, out: Answers | None = None) -> Answers:
        """Answers a batch. May be called from several threads; on a GPU they wait for each other (see ``worker``).

        Args:
            frames: uint8 N×H×W×C, N ≥ 1. Those of ``staging`` are not copied.
            out: float32 of the answers' shape to write into; None makes one.

        Returns:
            float32 N×classes, N×channels or N×channels×h×w.

        Raises:
            EngineError: the engine is closed or another process's, or the frames have another dtype or shape.
        """
        self._check_open()
        if frames.dtype != np.uint8:
            raise EngineError(f"frames have dtype {frames.dtype}: give uint8, the pixels as the camera gives them")
        self._check_shape(frames.shape)
        self._check_out(len(frames), out)
        missing = self.input.min_batch - len(frames)
        if missing <= 0:
            return self._run(frames, out)
        filled = np.concatenate([frames, np.repeat(frames[-1:], missing, axis=0)])
        answers = self._run(filled, None)[: len(frames)]
        return answers if out is None else _copied(answers, out)

    def run_device(self, frames: Any, out: Answers | None = None, *, stream: int | None = None) -> Answers:
        """Answers a batch that is on the GPU already, and never passes through the host.

        Args:
            frames: uint8 N×H×W×C or H×W×C with ``__dlpack__`` or ``__cuda_array_interface__``; rows may have a pitch.
            out: float32 of the answers' shape to write into; None makes one.
            stream: the CUDA stream, as C's number, on which the frames are made; the GPU waits for it, the host does
                not. None: the array's own interface says.

        Returns:
            float32 N×classes, N×channels or N×channels×h×w, on the host.

        Raises:
            EngineError: the engine is closed or runs on no GPU, or this is no such array on the GPU.
        """
        self._check_open()
        raise EngineError(
            f"this engine runs on the CPU and the frames, {type(frames).__name__}, are not: copy them first"
        )

    def timed(self, frames: Frames) -> Phases:
        """Runs a batch for its times alone, which need not be those of ``run`` in all: on a GPU no graph is used.

        Raises:
            EngineError: as ``run``.
        """
        start = time.perf_counter()
        self.run(frames)
        return Phases(None, 1e3 * (time.perf_counter() - start), None)

    def staging(self, batch: int) -> Frames:
        """Memory to write a batch of frames into, uint8 N×H×W×C, from which ``run`` takes it without a copy.

        On a GPU it is page-locked and always the same: one thread at a time may use it.
        """
        spec = self.input
        return np.empty((batch, spec.height, spec.width, spec.channels), np.uint8)

    def worker(self) -> Engine:
        """Another engine on the same loaded network, for another thread: what it needs to run is its own.

        Raises:
            EngineError: the engine is closed or another process's, or there is no memory left.
        """
        self._check_open()
        made = object.__new__(type(self))
        made._process = self._process
        made._share(self)
        return made

    def _check_open(self) -> None:
        if self._closed:
            raise EngineError("this engine is closed: open it again to run it")
        if os.getpid() != self._process:
            raise EngineError("this engine was opened before a fork: open it in the process that runs it")

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        spec = self.input
        if len(shape) != 4 or shape[1:] != (spec.height, spec.width, spec.channels) or shape[0] == 0:
            raise EngineError(
                f"frames have shape {shape}: the engine takes N×{spec.height}×{spec.width}×{spec.channels}"
            )
        if spec.max_batch is not None and shape[0] > spec.max_batch:
            raise EngineError(f"a batch of {shape[0]} frames: the engine takes up to {spec.max_batch}")

    def _check_out(self, batch: int, out: Answers | None) -> None:
        if out is not None and (out.dtype != np.float32 or out.shape != (batch, *self.output)):
            raise EngineError(
                f"out is {out.dtype} {out.shape}: the engine answers float32 {(batch, *self.output)} for {batch} frames"
            )

    def close(self) -> None:
        """Frees what the engine holds; may be called again."""
        if not self._closed:
            self._closed = True
            self._close()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _silent(phase: str, done: int, steps: int) -> None:
    """Progress that nobody asked for."""


def _copied(answers: Answers, out: Answers) -> Answers:
    out[...] = answers
    return out
