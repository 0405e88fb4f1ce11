"""Which class runs which engine kind: the only place that knows backends by name."""

from __future__ import annotations

from importlib import import_module

from edge_resnet.engines.engine import Engine
from edge_resnet.errors import EngineError

_CLASSES: dict[str, tuple[str, str]] = {
    "onnxruntime": ("edge_resnet.engines.ort", "OrtEngine"),
    "tensorrt": ("edge_resnet.engines.trt", "TensorRtEngine"),
    "tensorrt-rtx": ("edge_resnet.engines.trt_rtx", "TensorRtRtxEngine"),
}
"""Kind → module and class. A module is imported when its kind is asked for, so that no backend needs another."""


def engine_class(kind: str) -> type[Engine]:
    """The class of an engine kind.

    Raises:
        EngineError: no class has this kind; the message lists those that exist.
    """
    if kind not in _CLASSES:
        raise EngineError(f"unknown engine kind '{kind}': choose one of {', '.join(_CLASSES)}")
    module, name = _CLASSES[kind]
    engine: type[Engine] = getattr(import_module(module), name)
    return engine
