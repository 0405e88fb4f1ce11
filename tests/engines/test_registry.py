"""The registry of engine kinds."""

from __future__ import annotations

import pytest

from edge_resnet.engines.engine import Engine
from edge_resnet.engines.registry import engine_class
from edge_resnet.engines.targets import all_targets
from edge_resnet.errors import EngineError


@pytest.mark.parametrize("kind", sorted({target.kind for target in all_targets().values()}))
def test_every_target_has_an_engine_class_of_its_kind(kind: str) -> None:
    engine = engine_class(kind)
    assert issubclass(engine, Engine)
    assert engine.kind == kind


def test_unknown_kind_is_refused_with_the_list() -> None:
    with pytest.raises(
        EngineError, match="unknown engine kind 'tflite': choose one of onnxruntime, tensorrt, tensorrt-rtx"
    ):
        engine_class("tflite")
