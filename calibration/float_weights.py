"""INT8 weights → float weights behind a quantizer of the same scale: the form that TensorRT 8 takes.

From version 10 on TensorRT reads integers with a DequantizeLinear as they are. For 8 its developer guide ("Quantized
Weights") wants weights of Q/DQ models float: TensorRT quantizes them with the scale of the QuantizeLinear that reads them.
The integers come out the same: q·s / s is q within 2⁻¹⁶.
"""

from __future__ import annotations

import numpy as np
import onnx
import onnx_ir as ir

from edge_resnet.calibration.topology import add_constant, data, load_graph, save_graph


def float_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """The same Q/DQ model with a pair at each of its weights; the model is left as it is."""
    loaded = load_graph(model)
    graph = loaded.graph
    for dq in [node for node in graph if node.op_type == "DequantizeLinear" and data(node).const_value is not None]:
        integers = data(dq)
        q = ir.node(
            "QuantizeLinear",
            [_float(graph, dq, integers), *dq.inputs[1:]],
            dict(dq.attributes),
            name=f"{integers.name}.quantize",
        )
        q.outputs[0].name = f"{integers.name}.integers"
        graph.insert_before(dq, q)
        dq.replace_input_with(0, q.outputs[0])
        if not integers.uses():
            del graph.initializers[str(integers.name)]
    return save_graph(loaded)


def _float(graph: ir.Graph, dq: ir.Node, integers: ir.Value) -> ir.Value:
    values = dequantized_constant(dq)
    return add_constant(graph, f"{integers.name}.float", values)


def dequantized_constant(dq: ir.Node) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """What a DequantizeLinear with zero point 0 gives of a constant, float32."""
    integers, scale = (data(dq, index).const_value for index in (0, 1))
    assert integers is not None and scale is not None  # the caller has looked
    steps = scale.numpy()
    axis = dq.attributes["axis"].as_int() if "axis" in dq.attributes else 1
    shape = [-1 if index == axis else 1 for index in range(len(integers.shape))]
    return np.asarray(integers.numpy() * (steps.reshape(shape) if steps.ndim else steps), np.float32)
