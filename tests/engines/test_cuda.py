"""CUDA where there is none: the real library must end in one clear line. With a GPU, see tests/gpu."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from edge_resnet.engines import cuda
from edge_resnet.errors import EdgeResnetError, UnavailableError

needs_no_gpu = pytest.mark.skipif(cuda.gpu_sm() is not None, reason="this host has an NVIDIA GPU")

USES: dict[str, Callable[[], object]] = {
    "device memory": lambda: cuda.DeviceBuffer(16),
    "pinned memory": lambda: cuda.PinnedArray((2, 3), np.float32),
    "stream": cuda.Stream,
}


@needs_no_gpu
def test_a_host_without_a_gpu_has_no_sm() -> None:
    assert cuda.gpu_sm() is None


@needs_no_gpu
@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_without_a_gpu_every_use_is_unavailable_and_has_cudas_own_name_for_it(use: Callable[[], object]) -> None:
    with pytest.raises(
        UnavailableError, match=r"^needs an NVIDIA GPU: this host has none .* \(cudaError\w+\)$"
    ) as caught:
        use()
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("use", [cuda.gpu_sm, *USES.values()], ids=["sm", *USES])
def test_without_the_package_every_use_names_the_command_that_installs_it(
    use: Callable[[], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(UnavailableError, match=r"^cuda-bindings is not installed: pip install 'edge-resnet\[cuda\]'$"):
        use()


def test_a_failure_that_is_not_a_missing_gpu_is_an_engine_error_with_cudas_name_and_meaning() -> None:
    from cuda.bindings import runtime

    def cudaMalloc(size_bytes: int) -> tuple[object, int]:
        return runtime.cudaError_t.cudaErrorMemoryAllocation, 0

    with pytest.raises(
        EdgeResnetError, match="cudaMalloc failed: cudaErrorMemoryAllocation \\(out of memory\\)"
    ) as caught:
        cuda._call(cudaMalloc, 1 << 50)
    assert caught.value.exit_code == 2
