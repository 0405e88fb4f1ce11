"""What a build asks of a kind of engine, wherever its compiler runs: a class of ``Engine`` is one, in this process."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edge_resnet.engines.engine import Answers, CompiledEngine, Frames, Progress, QuantizedForm
from edge_resnet.engines.options import BuildOptions

if TYPE_CHECKING:
    from edge_resnet.engines.targets import Target


class Opened(Protocol):
    """An engine that is loaded where it runs."""

    def run(self, frames: Frames) -> Answers:
        """As ``Engine.run``."""

    def device(self) -> str:
        """As ``Engine.device``."""


class Compiler(Protocol):
    """Compiles, loads and runs engines of one kind; each member is that of ``Engine``."""

    @property
    def kind(self) -> str: ...

    @property
    def suffix(self) -> str: ...

    @property
    def scheme(self) -> str: ...

    def __call__(self, data: bytes) -> Opened: ...

    def compile(
        self, model: bytes, target: Target, options: BuildOptions, progress: Progress | None
    ) -> CompiledEngine: ...

    def quantized_form(self) -> QuantizedForm: ...

    def note_on(self, precision: str) -> str | None: ...

    def has_sparse_kernels(self, target: Target) -> bool: ...

    def timing_cache_name(self, target: Target) -> str | None: ...

    def why_not_compile(self, target: Target) -> str | None: ...

    def why_not_run(self, target: Target) -> str | None: ...
