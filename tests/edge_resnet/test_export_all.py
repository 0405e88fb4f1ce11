"""Every architecture's ONNX graph, run by ONNX Runtime, answers as torch does."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnxruntime
import pytest
import torch
from networks import give_statistics, relative_difference

from edge_resnet.export import export_float_onnx
from edge_resnet.models import ARCHITECTURES, ResNet, create_model

TOLERANCE = 1e-4
SIZES = [(32, 32), (41, 56)]
"""The second odd and not square: every stride meets an edge that it does not divide."""
CLASSES = 11
HEAVY = {name for name in ARCHITECTURES if any(part in name for part in ("101", "152", "wide", "1202"))}


@lru_cache(maxsize=1)  # one network in memory: its sizes follow each other
def network(name: str) -> ResNet:
    torch.manual_seed(0)
    model = create_model(name, classes=CLASSES)
    give_statistics(model, torch.randn(8, 3, 48, 48))
    return model


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "x".join(map(str, size)))
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in HEAVY else []) for name in ARCHITECTURES]
)
def test_onnx_runtime_answers_as_torch(name: str, size: tuple[int, int]) -> None:
    model = network(name)
    session = onnxruntime.InferenceSession(export_float_onnx(model, size).SerializeToString())
    images = np.random.default_rng(0).standard_normal((4, 3, *size), np.float32)
    with torch.no_grad():
        wanted = model(torch.from_numpy(images)).numpy()
    assert wanted.std(axis=0).mean() > 0.05, "answers must differ for the comparison to mean anything"
    for batch in (slice(0, 1), slice(1, 4)):
        (found,) = session.run(None, {"images": images[batch]})
        assert found.shape == wanted[batch].shape
        assert relative_difference(found, wanted[batch]) <= TOLERANCE
