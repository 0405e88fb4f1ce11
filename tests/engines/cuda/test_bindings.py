"""CUDA where there is none: the real library must end in one clear line. With a GPU, see tests/gpu."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from edge_resnet.engines.cuda import DeviceBuffer, HostBuffer, Stream, choice, cuda_api, gpu_sm
from edge_resnet.engines.cuda.bindings import CudaBindings
from edge_resnet.engines.cuda.pycuda_api import PyCuda
from edge_resnet.errors import EngineError, UnavailableError

needs_no_gpu = pytest.mark.skipif(gpu_sm() is not None, reason="this host has an NVIDIA GPU")

USES: dict[str, Callable[[], object]] = {
    "device memory": lambda: DeviceBuffer(cuda_api(), 16),
    "pinned memory": lambda: HostBuffer(cuda_api(), (2, 3), np.float32),
    "stream": lambda: Stream(cuda_api()),
}


@needs_no_gpu
def test_a_host_without_a_gpu_has_no_sm() -> None:
    assert gpu_sm() is None


@needs_no_gpu
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_without_a_gpu_every_use_is_unavailable_and_says_what_is_missing(use: Callable[[], object]) -> None:
    with pytest.raises(
        UnavailableError,
        match=r"^needs an NVIDIA GPU: this host has none that CUDA can use \((no NVIDIA driver|CUDA_ERROR_\w+)\)$",
    ) as caught:
        use()
    assert caught.value.exit_code == 4


def test_without_the_package_the_command_that_installs_it_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.driver", None)
    with pytest.raises(UnavailableError, match=r"^cuda-bindings is not installed: pip install 'edge-resnet\[cuda\]'$"):
        CudaBindings()


def test_without_any_package_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "find_spec", lambda name: None)
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    for use in (cuda_api, gpu_sm):
        with pytest.raises(UnavailableError, match=r"^no Python binding of CUDA is installed: pip install "):
            use()


def test_pycuda_that_is_not_installed_says_what_it_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge_resnet.engines.cuda.pycuda_api.find_spec", lambda name: None)
    with pytest.raises(
        UnavailableError, match=r"pip install 'edge-resnet\[pycuda\]' \(it needs CUDA's headers: docs/gpu.md\)"
    ):
        PyCuda()


def test_the_argument_wins_over_the_environment_and_that_over_what_is_installed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(choice, "_opened", lambda name: name)
    monkeypatch.setattr(choice, "find_spec", lambda name: name if name == "pycuda" else None)
    monkeypatch.delenv(choice.VARIABLE, raising=False)
    assert cuda_api() == "pycuda"
    monkeypatch.setenv(choice.VARIABLE, "cuda-bindings")
    assert cuda_api() == "cuda-bindings"
    assert cuda_api("pycuda") == "pycuda"
    with pytest.raises(EngineError, match="unknown CUDA binding 'opencl': choose one of cuda-bindings, pycuda"):
        cuda_api("opencl")


def test_a_failure_that_is_not_a_missing_gpu_is_an_engine_error_with_cudas_name_and_meaning() -> None:
    class Driver:
        """What the real driver answers when memory runs out; its two functions about errors need a driver."""

        @staticmethod
        def cuMemAlloc(size: int) -> tuple[object, int]:
            return refused, 0

        @staticmethod
        def cuGetErrorName(code: object) -> tuple[int, bytes]:
            return 0, b"CUDA_ERROR_OUT_OF_MEMORY"

        @staticmethod
        def cuGetErrorString(code: object) -> tuple[int, bytes]:
            return 0, b"out of memory"

    api = CudaBindings()
    refused = api._cuda.CUresult.CUDA_ERROR_OUT_OF_MEMORY
    api._cuda = Driver  # type: ignore[assignment]
    with pytest.raises(EngineError, match="cuMemAlloc failed: CUDA_ERROR_OUT_OF_MEMORY \\(out of memory\\)") as caught:
        api.allocate(1 << 50)
    assert caught.value.exit_code == 2
