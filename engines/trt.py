"""Engines of NVIDIA TensorRT 10 and 11, which compiles only for the very GPU that it runs on."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edge_resnet.engines._tensorrt import TensorRtFamily, why_not_gpu
from edge_resnet.engines.cuda.choice import gpu_sm
from edge_resnet.engines.targets import Target
from edge_resnet.errors import UnavailableError

_OLDEST = (10, 3)
"""JetPack 6.1's. Strongly typed networks came with TensorRT 10; 10.3 is the oldest whose interface was checked."""


class TensorRtEngine(TensorRtFamily):
    """A TensorRT engine."""

    kind = "tensorrt"
    module = "tensorrt"
    product = "TensorRT"
    install = "pip install 'edge-resnet[tensorrt]' (on a Jetson, JetPack brings it)"

    @classmethod
    def why_not_compile(cls, target: Target) -> str | None:
        reason = why_not_gpu(target)
        return f"TensorRT compiles only on the device itself: {reason}" if reason else cls._why_not_library()

    @classmethod
    def _library(cls) -> ModuleType:
        trt = super()._library()
        if tuple(int(part) for part in trt.__version__.split(".")[:2]) < _OLDEST:
            oldest = ".".join(map(str, _OLDEST))
            raise UnavailableError(f"TensorRT {trt.__version__} is too old: install {oldest} or newer (JetPack 6.1)")
        return trt

    @classmethod
    def built_for(cls, target: Target) -> tuple[int, ...]:
        sm = gpu_sm()
        return () if sm is None else (sm,)

    @classmethod
    def recover(cls, trt: ModuleType, target: Target) -> None:
        """Nothing: every build is for the same GPU."""

    @classmethod
    def configure(cls, trt: ModuleType, config: Any, target: Target) -> None:
        """Nothing: TensorRT takes the target from the GPU that is there."""
