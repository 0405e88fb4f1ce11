"""What a worker does: the compiler, and the engines, of one kind in a process on the device."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Any, cast

import ray

import edge_resnet
from edge_resnet.engines.engine import Answers, CompiledEngine, Engine, Frames, QuantizedForm
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import Target
from edge_resnet.timing_cache import compile_engine

STANDING = "standing"
"""Name of the thread that answers how a compilation stands, while another compiles."""


class Workshop:
    """Made by Ray in a process of its own. Its methods are ``Engine``'s, and raise what these raise."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._standing: tuple[str, int, int] | None = None
        self._opened: Engine | None = None

    def introduce(self) -> dict[str, str]:
        """Who this is, in words that any version of edge-resnet understands."""
        context, network = ray.get_runtime_context(), cast(Any, ray.util)  # which has no types
        return {
            "version": edge_resnet.__version__,
            "name": f"{socket.gethostname()} ({network.get_node_ip_address()})",
            "node": context.get_node_id(),
        }

    @property
    def _engine(self) -> type[Engine]:
        return engine_class(self._kind)

    def why_not_compile(self, target: Target) -> str | None:
        return self._engine.why_not_compile(target)

    def why_not_run(self, target: Target) -> str | None:
        return self._engine.why_not_run(target)

    def quantized_form(self) -> QuantizedForm:
        return self._engine.quantized_form()

    def compile(self, model: bytes, target: Target, options: BuildOptions) -> CompiledEngine:
        """Compiles; what the compiler has measured stays here, for the next build on this device."""
        return replace(compile_engine(self._engine, model, target, options, self._stand), timing_cache=None)

    def _stand(self, phase: str, done: int, steps: int) -> None:
        self._standing = phase, done, steps

    @ray.method(concurrency_group=STANDING)
    def standing(self) -> tuple[str, int, int] | None:
        """The phase, the steps done and the steps in all, of what is being compiled; None before the first."""
        return self._standing

    def open(self, data: bytes) -> str:
        """Loads an engine; says on which device."""
        self._opened = self._engine(data)
        return self._opened.device()

    def run(self, frames: Frames) -> Answers:
        """Answers frames with the engine that was loaded."""
        assert self._opened is not None
        return self._opened.run(frames)
