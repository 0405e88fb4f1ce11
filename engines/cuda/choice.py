"""Which Python binding of CUDA is used: the caller's choice, the environment's, else what is installed."""

from __future__ import annotations

import os
from functools import cache
from importlib.util import find_spec

from edge_resnet.engines.cuda.api import CudaApi, Gpu
from edge_resnet.engines.cuda.bindings import CudaBindings
from edge_resnet.engines.cuda.pycuda_api import PyCuda
from edge_resnet.errors import EngineError, UnavailableError

VARIABLE = "EDGE_RESNET_CUDA"
"""Environment variable with the name of the binding to use."""

_BINDINGS: dict[str, tuple[str, type[CudaApi]]] = {
    CudaBindings.name: ("cuda", CudaBindings),
    PyCuda.name: ("pycuda", PyCuda),
}
"""Name → top-level package and class; the first that is installed is used."""


def cuda_api(name: str | None = None) -> CudaApi:
    """CUDA by one binding; the same object for every call that chooses the same.

    Args:
        name: ``cuda-bindings`` or ``pycuda``; None takes ``EDGE_RESNET_CUDA``, else the first that is installed.

    Raises:
        EngineError: there is no binding of this name.
        UnavailableError: it is not installed, or none is. Whether there is a GPU shows at the first use.
    """
    chosen = name or os.environ.get(VARIABLE) or _installed()
    if chosen not in _BINDINGS:
        raise EngineError(f"unknown CUDA binding '{chosen}': choose one of {', '.join(_BINDINGS)}")
    return _opened(chosen)


@cache
def _opened(name: str) -> CudaApi:
    return _BINDINGS[name][1]()


def _installed() -> str:
    for name, (package, _) in _BINDINGS.items():
        if find_spec(package) is not None:
            return name
    raise UnavailableError("no Python binding of CUDA is installed: pip install 'edge-resnet[cuda]'")


def gpu_sm() -> int | None:
    """The GPU's generation as compute capability × 10 (86 is 8.6); None where CUDA finds no GPU.

    Raises:
        UnavailableError: no binding of CUDA is installed.
    """
    gpu = _gpu()
    return None if gpu is None else gpu.sm


def gpu_name() -> str | None:
    """The GPU in words, with its generation; None where CUDA finds no GPU.

    Raises:
        UnavailableError: no binding of CUDA is installed.
    """
    gpu = _gpu()
    return None if gpu is None else gpu.words


def _gpu() -> Gpu | None:
    api = cuda_api()
    try:
        with api.current():
            return api.gpu()
    except UnavailableError:
        return None
