"""What compilers have measured, kept from build to build: one file for each device and version of TensorRT.

TensorRT chooses its kernels by timing them, which is most of a build; with its timing cache the next build on the device
takes seconds in the place of minutes. The files are in ``timings`` in ``cache_folder()`` and may be deleted at any time.
Where they cannot be read or written, or others can have written them, builds just take longer.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from edge_resnet.cache_folder import cache_folder, read_own
from edge_resnet.engines.compiler import Compiler
from edge_resnet.engines.engine import CompiledEngine, Progress
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import OutputError
from edge_resnet.output import write_atomically
from edge_resnet.sparse_kernels import with_sparse_kernels


def compile_engine(
    engine: Compiler, model: bytes, target: Target, options: BuildOptions, progress: Progress | None = None
) -> CompiledEngine:
    """Compiles with what was measured before, and keeps what is measured now; where weights are 2:4 sparse and the device
    has kernels for that, the compiler may choose them.

    Raises:
        EngineError, UnavailableError: as ``Engine.compile``.
    """
    options = with_sparse_kernels(options, model, engine, target)
    name, folder = engine.timing_cache_name(target), cache_folder()
    if name is None or folder is None:
        return engine.compile(model, target, options, progress)
    path = folder / "timings" / f"{name}.timing"
    compiled = engine.compile(model, target, replace(options, timing_cache=_read(path)), progress)
    if compiled.timing_cache:
        _write(path, compiled.timing_cache)
    return compiled


def _read(path: Path) -> bytes:
    try:
        return read_own(path.parent, path.name)
    except OSError:
        return b""


def _write(path: Path, data: bytes) -> None:
    with suppress(OSError, OutputError):
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(path, data)
