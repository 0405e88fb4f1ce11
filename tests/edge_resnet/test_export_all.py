"""Every architecture's ONNX graph, run by ONNX Runtime, answers as torch does."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from networks import Array, give_statistics, relative_difference

from edge_resnet.export import export_float_onnx
from edge_resnet.models import ARCHITECTURES, EvenConv2d, ResNet, create_model

TOLERANCE = 1e-4
SIZE = (32, 32)
CLASSES = 11
HEAVY = {name for name in ARCHITECTURES if any(part in name for part in ("101", "152", "wide", "1202"))}


def images(count: int, size: tuple[int, int], seed: int) -> Array:
    """Noise of different strength about different colours: plain noise is all one to a network that averages over it."""
    random = np.random.default_rng(seed)
    noise = random.standard_normal((count, 3, *size)) * random.uniform(0.2, 2, (count, 1, 1, 1))
    return (noise + random.standard_normal((count, 3, 1, 1))).astype(np.float32)


def trained(name: str) -> ResNet:
    torch.manual_seed(0)
    model = create_model(name, classes=CLASSES)
    give_statistics(model, torch.from_numpy(images(6, (40, 40), seed=1)))
    return model


def session_of_any_size(exported: onnx.ModelProto) -> onnxruntime.InferenceSession:
    """Nothing but the input's declaration holds the size: freed of it, one session runs all."""
    for dimension, name in zip(
        exported.graph.input[0].type.tensor_type.shape.dim[2:], ("height", "width"), strict=True
    ):
        dimension.dim_param = name
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(exported.SerializeToString(), options)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.long] if name in HEAVY else []) for name in ARCHITECTURES]
)
def test_onnx_runtime_answers_as_torch(name: str) -> None:
    model = trained(name)
    session = session_of_any_size(export_float_onnx(model, SIZE))
    # the other size is odd, so that strides meet edges that they do not divide, but for resnet8, which refuses it
    for size in (SIZE, (40 if model.architecture.convolution is EvenConv2d else 41, 56)):
        fed = images(4, size, seed=2)
        with torch.no_grad():
            wanted = model(torch.from_numpy(fed)).numpy()
        assert wanted.std(axis=0).mean() > 10 * TOLERANCE * np.abs(wanted).max(), "images must matter"
        for batch in (slice(0, 1), slice(1, 4)):
            (found,) = session.run(None, {"images": fed[batch]})
            assert found.shape == wanted[batch].shape
            assert relative_difference(found, wanted[batch]) <= TOLERANCE
