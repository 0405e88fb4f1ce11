"""What TensorRT says while it works: a logger that keeps what matters, progress, and the layers of a finished engine.

TensorRT and TensorRT-RTX report failures only in their log, and TensorRT-RTX its finished layers too where there is no GPU,
so the log is read here, in one place.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from edge_resnet.engines.engine import Layer, Progress

_KEPT_ERRORS = 64
_KEPT_LINES = 2000
_PLACED = ("[DlaLayer]", "[GpuLayer]")
"""How the builder begins what it says of a layer that runs on a DLA, or beside it."""


@cache
def logger_of(trt: Any) -> Any:
    """The one logger of a library: TensorRT keeps the first that a process gives it and ignores all later ones.

    It has ``errors`` (the oldest first), ``layers`` (the last build's final layers, as text), ``text()`` (these and every
    warning) and ``fresh()``, a context in which all are this thread's own.
    """
    kept = {
        trt.ILogger.INTERNAL_ERROR: "INTERNAL ERROR",
        trt.ILogger.ERROR: "ERROR",
        trt.ILogger.WARNING: "WARNING",
    }

    class Logger(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._lock = Lock()
            self.errors: deque[str] = deque(maxlen=_KEPT_ERRORS)
            self.lines: deque[str] = deque(maxlen=_KEPT_LINES)
            self.layers = ""

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.INTERNAL_ERROR, trt.ILogger.ERROR):
                self.errors.append(one_line(message))
            if severity in kept:
                self.lines.append(f"[{kept[severity]}] {one_line(message)}")
            elif message.startswith(_PLACED):
                self.lines.append(one_line(message))
            elif message.startswith("Layers:"):
                self.layers = message

        def text(self) -> str:
            return "".join(f"{line}\n" for line in (*self.lines, *filter(None, [self.layers.rstrip()])))

        @contextmanager
        def fresh(self) -> Iterator[None]:
            with self._lock:
                self.errors.clear()
                self.lines.clear()
                self.layers = ""
                yield

    return Logger()


def monitor_of(trt: Any, progress: Progress) -> Any:
    """A progress monitor that tells ``progress``, and stops the build when that raises.

    The exception is then in ``failure``: none may pass through the compiler's own frames, so Ctrl-C comes this way too.
    """

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}
            self.failure: BaseException | None = None

        def phase_start(self, phase: str, parent: str | None, steps: int) -> None:
            self._steps[phase] = steps
            self._tell(phase, 0)

        def step_complete(self, phase: str, step: int) -> bool:
            self._tell(phase, step + 1)
            return self.failure is None

        def phase_finish(self, phase: str) -> None:
            self._tell(phase, self._steps.get(phase, 0))

        def _tell(self, phase: str, done: int) -> None:
            try:
                if self.failure is None:
                    progress(phase, done, self._steps.get(phase, done))
            except BaseException as error:
                self.failure = error

    return Monitor()


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


_LAYER = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), Inputs: \[(?P<reads>.*?), Outputs: \[(?P<rest>.*)"
)
_DATATYPE = re.compile(r"Datatype: ([^,}]*)")
_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_FUSED = " + "
"""Between the names of nodes that became one layer."""
_MULTIPLIES = re.compile(r"correlation|conv|gemm|matmul", re.IGNORECASE)
_PRECISIONS = {
    "float": "fp32",
    "fp32": "fp32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "half": "fp16",
    "fp16": "fp16",
    "fp8": "fp8",
    "int64": "int64",
    "int32": "int32",
    "uint8": "uint8",
    "int8": "int8",
}
"""The compilers' words for data types, widest arithmetic first."""
_WIDEST_FIRST = tuple(dict.fromkeys(_PRECISIONS.values()))


def inspected_layers(trt: Any, logger: Any, plan: bytes) -> str:
    """The final layers in the words of ``read_layers``, of an engine that is loaded for it; empty where it cannot be.

    For TensorRT, which compiles where its engines run and logs layers in another form ("Layer(CaskConvolution): conv1 +
    relu1, Tactic: …"), without the tensors of a quantized one.
    """
    runtime = trt.Runtime(logger)
    runtime.engine_host_code_allowed = True  # a version-compatible engine brings code; it was made here just now
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return ""
    inspector = engine.create_engine_inspector()
    return str(inspector.get_engine_information(trt.LayerInformationFormat.ONELINE))


def read_layers(text: str) -> tuple[Layer, ...]:
    """Reads the final layers of an engine off the ``Layers:`` message of a build with detailed profiling, or the inspector.

    Each line of it gives a layer's type, the tensors that it reads and writes, and the ONNX nodes it came from. A
    convolution or matrix product ("correlation" and "gemm" in Myelin's words, "CaskConvolution" in CASK's) has the
    precision of its first input, the activations: TensorRT multiplies INT8 activations by INT8 weights and dequantises
    weights for any others. So INT8 weights alone do not make a layer ``int8``, nor does a quantised shortcut that a
    floating-point convolution adds. Any other layer computes in the widest type that it reads or writes: one that
    quantises FP32 is ``fp32``, one that pools INT8 is ``int8``. Layers that touch no tensor of numbers are left out.

    A convolution's scaling and activation may end up in a layer of their own, which has the same ONNX node among its
    sources: a node is multiplied in INT8 when any of its layers is ``int8``.
    """
    found = (_read_layer(line) for line in text.split("\n"))  # splitlines would split at the node names' separator too
    return tuple(layer for layer in found if layer is not None)


def _read_layer(line: str) -> Layer | None:
    match = _LAYER.match(line)
    if match is None:
        return None
    reads = _precisions(match["reads"])
    writes = _precisions(match["rest"])
    if not reads + writes:
        return None
    multiplies = reads and _MULTIPLIES.search(match["type"])
    precision = reads[0] if multiplies else min(reads + writes, key=_WIDEST_FIRST.index)
    nodes = _NODE.findall(match["rest"]) or match["name"].split(_FUSED)  # older versions name the nodes there alone
    return Layer(match["name"], precision, tuple(dict.fromkeys(nodes)))


def _precisions(tensors: str) -> list[str]:
    """The type of each tensor, be it ``Half`` or ``Thirty-two wide channel vectorized row major Int8 format``."""
    words = (word.lower() for text in _DATATYPE.findall(tensors) for word in text.split())
    return [_PRECISIONS[word] for word in words if word in _PRECISIONS]
