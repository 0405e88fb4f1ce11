"""Channels that can go: the same answers as with zeros in their place, whatever the block."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from edge_resnet.compression.spans import Kept, Span, prepared, spans_of, taken_out

Small = Callable[[str], onnx.ModelProto]
Frames = npt.NDArray[np.uint8]


def answers(model: onnx.ModelProto, frames: Frames) -> npt.NDArray[np.float32]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    made: npt.NDArray[np.float32] = session.run(None, {session.get_inputs()[0].name: frames})[0]
    return made


def zeroed(model: onnx.ModelProto, spans: tuple[Span, ...], kept: Mapping[str, Kept]) -> onnx.ModelProto:
    """The whole network, but what reads the channels that go multiplies them by 0."""
    made = onnx.ModelProto()
    made.CopyFrom(model)
    constants = {each.name: each for each in made.graph.initializer}
    for span in spans:
        gone = np.setdiff1d(np.arange(span.units), kept[span.name])
        for node in made.graph.node:
            if node.op_type == "Conv" and node.input[0] in span.reads:
                weight = numpy_helper.to_array(constants[node.input[1]]).copy()
                each = weight.shape[1] // span.units
                weight.reshape(len(weight), span.units, each, *weight.shape[2:])[:, gone] = 0
                constants[node.input[1]].CopyFrom(numpy_helper.from_array(weight, node.input[1]))
    return made


def some(spans: tuple[Span, ...]) -> dict[str, Kept]:
    random = np.random.default_rng(1)
    return {s.name: np.sort(random.choice(s.units, max(1, s.units * 2 // 3), replace=False)) for s in spans}


@pytest.mark.parametrize(
    ("arch", "blocks", "each"),
    [
        ("resnet18", 2, 1),
        ("resnet50", 2, 2),
        ("resnet18v2", 2, 1),
        ("resnet50v2", 2, 2),
        ("resnext50", 2, 1),
        ("resnet18d", 2, 1),
    ],
)
def test_a_pruned_network_answers_as_one_with_zeros(
    small: Small, frames: Frames, arch: str, blocks: int, each: int
) -> None:
    model = prepared(small(arch))
    spans = spans_of(model)
    assert len([span for span in spans if span.name.startswith("layer")]) == blocks * each
    kept = some(spans)
    pruned = taken_out(model, kept)
    onnx.checker.check_model(pruned, full_check=True)
    assert sum(each.ByteSize() for each in pruned.graph.initializer) < 0.85 * sum(
        each.ByteSize() for each in model.graph.initializer
    )
    wanted = answers(zeroed(model, spans, kept), frames)
    assert np.abs(wanted - answers(model, frames)).max() > 0.01 * np.abs(wanted).max(), "something was taken out"
    np.testing.assert_allclose(answers(pruned, frames), wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())
    assert pruned.metadata_props == model.metadata_props


def test_groups_go_whole(small: Small) -> None:
    model = prepared(small("resnext50"))
    span = next(span for span in spans_of(model) if span.grouped)
    assert span.units == 32 and len(span.grouped) == 1
    made = taken_out(model, {span.name: np.arange(0, 32, 2)})
    groups = {
        node.name: helper.get_node_attr_value(node, "group") for node in made.graph.node if node.op_type == "Conv"
    }
    assert groups[span.grouped[0]] == 16


def graph(body: str, **shapes: tuple[int, ...]) -> onnx.ModelProto:
    model = onnx.parser.parse_model(f"""<ir_version: 8, opset_import: ["": 17]>
    other (float[N,3,8,8] x) => (float[N,C,8,8] y) {{ {body} }}""")
    random = np.random.default_rng(0)
    for node in model.graph.node:
        node.name = node.output[0]
    model.graph.initializer.extend(
        numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)
        for name, shape in shapes.items()
    )
    return model


def test_a_graph_of_another_hand_with_constants_a_channel() -> None:
    """BatchNorm's parameters, PRelu's slopes, a factor and a depthwise convolution follow their channels."""
    model = graph(
        """c = Conv <pads=[1,1,1,1]> (x, w1) n = BatchNormalization(c, g, b, m, v) p = PRelu(n, slope) s = Mul(p, f)
           d = Conv <pads=[1,1,1,1], group=8> (s, w2, b2) h = HardSwish(d) y = Conv(h, w3)""",
        w1=(8, 3, 3, 3),
        g=(8,),
        b=(8,),
        m=(8,),
        v=(8,),
        slope=(8, 1, 1),
        f=(1, 8, 1, 1),
        w2=(8, 1, 3, 3),
        b2=(8,),
        w3=(12, 8, 1, 1),
    )
    for constant in model.graph.initializer:
        if constant.name == "v":
            constant.CopyFrom(numpy_helper.from_array(np.linspace(0.5, 1.5, 8).astype(np.float32), "v"))
    model = prepared(model)
    (span,) = spans_of(model)
    assert (span.name, span.units, span.grouped) == ("c", 8, ("d",))
    kept = {"c": np.array([0, 3, 4, 7])}
    x = np.random.default_rng(2).standard_normal((2, 3, 8, 8)).astype(np.float32)
    found, wanted = (
        onnxruntime.InferenceSession(each.SerializeToString()).run(None, {"x": x})[0]
        for each in (taken_out(model, kept), zeroed(model, (span,), kept))
    )
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.parametrize(
    "body",
    [
        "c = Conv(x, w1) y = Softmax <axis=1> (c)",
        "c = Conv(x, w1) r = Relu(c) a = Add(r, c) y = Conv(a, w3)",
        "c = Conv(x, w1) z = Conv(c, w3) k = Identity(c) y = Concat <axis=1> (z, k)",
    ],
    ids=["its channels look at each other", "a sum of two tensors", "something else reads it too"],
)
def test_what_others_read_stays(body: str) -> None:
    model = graph(body, w1=(12, 3, 1, 1), w3=(12, 12, 1, 1))
    assert "c" not in {span.name for span in spans_of(prepared(model))}
