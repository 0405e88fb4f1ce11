"""Engines of NVIDIA TensorRT 8.6 to 11, which compiles only for the very GPU that it runs on."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edge_resnet.engines._tensorrt import TensorRtFamily, why_not_gpu
from edge_resnet.engines._tensorrt_versions import TENSORRT
from edge_resnet.engines.cuda.choice import gpu_name, gpu_sm
from edge_resnet.engines.engine import COMPILED_ON
from edge_resnet.engines.targets import Target


class TensorRtEngine(TensorRtFamily):
    """A TensorRT engine."""

    kind = "tensorrt"
    module = "tensorrt"
    product = "TensorRT"
    install = "pip install 'edge-resnet[tensorrt]' (on a Jetson, JetPack brings it)"
    lines = TENSORRT

    @classmethod
    def why_not_compile(cls, target: Target) -> str | None:
        reason = why_not_gpu(target)
        return f"TensorRT compiles only on the device itself: {reason}" if reason else cls._why_not_library()

    @classmethod
    def built_for(cls, target: Target) -> tuple[int, ...]:
        sm = gpu_sm()
        return () if sm is None else (sm,)

    @classmethod
    def compiled_on(cls) -> dict[str, str]:
        name = gpu_name()
        return {} if name is None else {COMPILED_ON: name}

    @classmethod
    def recover(cls, trt: ModuleType, target: Target) -> None:
        """Nothing: every build is for the same GPU."""

    @classmethod
    def configure(cls, trt: ModuleType, config: Any, target: Target) -> None:
        """Nothing: TensorRT takes the target from the GPU that is there."""
