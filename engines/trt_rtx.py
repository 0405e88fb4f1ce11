"""Engines of NVIDIA TensorRT-RTX: compiled anywhere, even without a GPU, and finished for the GPU where they run."""

from __future__ import annotations

from types import ModuleType
from typing import Any

from edge_resnet.engines._tensorrt import TensorRtFamily
from edge_resnet.engines._tensorrt_config import bits
from edge_resnet.engines._tensorrt_log import logger_of
from edge_resnet.engines._tensorrt_versions import TENSORRT_RTX
from edge_resnet.engines.cuda.choice import gpu_sm
from edge_resnet.engines.options import BuildOptions
from edge_resnet.engines.targets import Target
from edge_resnet.errors import UnavailableError

_UNFUSED = ("int8", "fp8")
"""Precisions of which an engine has more kernels than one of FP16 (benchmarks/rtx_matrix.py)."""
_WITH_GPU = ("refit", "strip_weights")
"""Options with which the builder asks the driver for a GPU, and says no more than "CHECK(status == CUDA_SUCCESS) failed"
where there is none (1.7.1)."""


class TensorRtRtxEngine(TensorRtFamily):
    """A TensorRT-RTX engine. One engine serves all SMs of its target, with what the oldest of them can do."""

    kind = "tensorrt-rtx"
    module = "tensorrt_rtx"
    product = "TensorRT-RTX"
    install = "pip install 'edge-resnet[rtx]'"
    lines = TENSORRT_RTX

    @classmethod
    def note_on(cls, precision: str) -> str | None:
        if precision not in _UNFUSED:
            return None
        return (
            f"TensorRT-RTX leaves part of each {precision.upper()} layer to a kernel of its own, so it need not be faster "
            "than FP16 there: measure both with `edge-resnet bench BUNDLE --against fp16`"
        )

    @classmethod
    def check_options(cls, options: BuildOptions) -> None:
        """Refuses, beside what every kind does, what this host's lack of a GPU makes impossible.

        Raises:
            EngineError: an option was chosen that the compiler does not have.
            UnavailableError: one was that it has only beside a GPU.
        """
        super().check_options(options)
        for name in _WITH_GPU:
            if name in options.chosen and gpu_sm() is None:
                raise UnavailableError(
                    f"{cls.compiler()} has {name} only where there is an NVIDIA GPU, and this host has none: "
                    "leave it out, or compile on a machine with one"
                )

    @classmethod
    def why_not_compile(cls, target: Target) -> str | None:
        reason = cls._why_not_library()
        if reason is not None:
            return reason
        trt = cls._library()
        unknown = [str(sm) for sm in target.sms if not hasattr(trt.ComputeCapability, f"SM{sm}")]
        return f"{cls.product} {trt.__version__} does not compile for SM {', '.join(unknown)}" if unknown else None

    @classmethod
    def built_for(cls, target: Target) -> tuple[int, ...]:
        return target.sms

    @classmethod
    def recover(cls, trt: ModuleType, target: Target) -> None:
        """Builds one trivial layer, because a build follows the SMs of the one before it when that failed.

        Seen with 1.7.1, from any thread: after a failure for SM 75, the next build is Turing's whatever it is set to
        (so without INT8), and only the one after that is right. A build that succeeds ends it, however small.
        """
        builder = trt.Builder(logger_of(trt))
        network = builder.create_network(bits(trt.NetworkDefinitionCreationFlag, cls.line(trt).typing.creation))
        layer = network.add_identity(network.add_input("x", trt.DataType.FLOAT, (1,)))
        network.mark_output(layer.get_output(0))
        config = builder.create_builder_config()
        cls.configure(trt, config, target)
        builder.build_serialized_network(network, config)

    @classmethod
    def configure(cls, trt: ModuleType, config: Any, target: Target) -> None:
        config.num_compute_capabilities = len(target.sms)
        for i, sm in enumerate(target.sms):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{sm}"), i)

    @classmethod
    def capturable(cls, context: Any, stream: int) -> bool:
        return bool(context.is_stream_capturable(stream))
