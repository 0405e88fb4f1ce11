"""What a compiled engine launches: a network's operations, fused as TensorRT fuses them, with their work and traffic."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace

import onnx

from edge_resnet.engines.roofline import Launch
from edge_resnet.errors import ModelError

_PASSED_ON = ("Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "QuantizeLinear", "Reshape", "Squeeze")
"""Operators that cost nothing of their own: a view, or a change of type that the kernel beside it does."""
_ELEMENTWISE = ("Add", "BatchNormalization", "Clip", "Div", "LeakyRelu", "Mul", "PRelu", "Relu", "Sigmoid", "Sub")
"""Operators that end another kernel, where nothing else reads what it would have written."""
_PRODUCTS = ("Conv", "Gemm", "MatMul")
INPUT = "input"
"""The launch of everything before the first product: the frame, scaled and typed."""


@dataclass(eq=False)
class _Open:
    """A launch that later operators may still join."""

    order: int
    name: str
    kind: str
    read: set[str] = field(default_factory=set)
    written: str = ""
    macs: int = 0
    weights: int = 0


def launches_of(model: onnx.ModelProto, name: str) -> tuple[Launch, ...]:
    """Lists a network's launches for one image, in the order of computation.

    A convolution takes the scale, the Add and the ReLU behind it into its own launch, as long as nobody else reads what
    stands between (an Add joins whichever of its branches is computed last). Q/DQ and views cost nothing.

    Args:
        model: ONNX, with or without Q/DQ; its batch may be symbolic.
        name: for messages.

    Raises:
        ModelError: it has no convolution, or a tensor's shape cannot be told.
    """
    reader = _Reader(_shaped(model), name)
    for node in reader.graph.node:
        reader.take(node)
    if not any(launch.kind == "Conv" for launch in reader.launches):
        raise ModelError(f"{name} has no convolution: an estimate is for CNN classifiers and feature extractors")
    return reader.closed()


def architecture_launches(name: str, size: int | None = None) -> tuple[Launch, ...]:
    """The launches of an architecture with random weights: shapes are all that counts.

    Args:
        name: such as ``resnet50``.
        size: height and width of the image; None: as published.

    Raises:
        ModelError: the name is unknown.
    """
    from edge_resnet.export import export_onnx  # torch takes seconds to import: only where a network is made
    from edge_resnet.models import create_model
    from edge_resnet.preprocessing import NAMED

    network = create_model(name)
    side = size or network.architecture.size
    return launches_of(export_onnx(network, replace(NAMED["keras-resnet-v2"], size=(side, side))), name)


class _Reader:
    """Walks over a graph once; a tensor is known by the name under which it was computed."""

    def __init__(self, model: onnx.ModelProto, name: str) -> None:
        self.graph, self._name = model.graph, name
        self.launches: list[_Open] = []
        self._constants = {weight.name: math.prod(weight.dims) for weight in self.graph.initializer}
        self._of = {value.name: value.name for value in self.graph.input}
        self._writer: dict[str, _Open] = {}
        self._shapes = {weight.name: tuple(weight.dims) for weight in self.graph.initializer}
        for value in (*self.graph.input, *self.graph.value_info, *self.graph.output):
            self._shapes[value.name] = tuple(dim.dim_value for dim in value.type.tensor_type.shape.dim)
        self._readers = self._count_readers()

    def take(self, node: onnx.NodeProto) -> None:
        """Adds an operator to a launch, or opens one for it."""
        data = [self._of[name] for name in node.input if name in self._of]
        if not data or node.op_type == "Shape":  # computed from weights alone: done when the engine is built
            self._constants |= {name: math.prod(self._shapes.get(name, (0,))) for name in node.output}
            return
        if node.op_type in _PASSED_ON:
            self._of[node.output[0]] = data[0]
            return
        launch = self._joined(node, data) or self._opened(node)
        launch.read.update(name for name in data if self._writer.get(name) is not launch)
        launch.weights += sum(self._constants.get(name, 0) for name in node.input if node.op_type != "Pad")
        if node.op_type in _PRODUCTS:
            launch.macs += self._macs(node)
        launch.written = node.output[0]
        for output in node.output:
            self._of[output] = output
            self._writer[output] = launch

    def closed(self) -> tuple[Launch, ...]:
        """Counts what each launch reads, writes and leaves waiting."""
        last = {name: launch.order for launch in self.launches for name in launch.read}
        frames = {value.name for value in self.graph.input}
        found = []
        for launch in self.launches:
            waiting = [
                before.written
                for before in self.launches[: launch.order]
                if last.get(before.written, 0) > launch.order and before.written not in launch.read
            ]
            as_uint8 = launch.read & frames if launch.name == INPUT else set()
            found.append(
                Launch(
                    name=launch.name,
                    kind=launch.kind,
                    macs=launch.macs,
                    frame=sum(map(self._elements, as_uint8)),
                    read=sum(map(self._elements, launch.read - as_uint8)),
                    written=self._elements(launch.written),
                    weights=launch.weights,
                    held=sum(map(self._elements, waiting)),
                )
            )
        return tuple(found)

    def _joined(self, node: onnx.NodeProto, data: list[str]) -> _Open | None:
        """The launch that this operator ends, if any."""
        if node.op_type not in _PRODUCTS and self.launches and all(launch.name == INPUT for launch in self.launches):
            return self.launches[0]
        if node.op_type not in _ELEMENTWISE:
            return None
        writers = [self._writer[name] for name in data if name in self._writer and self._readers[name] == 1]
        joinable = [writer for writer in writers if writer.kind in _PRODUCTS or writer.kind in _ELEMENTWISE]
        return max(joinable, key=lambda writer: writer.order, default=None)

    def _opened(self, node: onnx.NodeProto) -> _Open:
        first = not self.launches and node.op_type not in _PRODUCTS
        launch = _Open(len(self.launches), INPUT if first else node.name or node.output[0], node.op_type)
        self.launches.append(launch)
        return launch

    def _macs(self, node: onnx.NodeProto) -> int:
        """Multiply-adds: of each output element, one a weight of its channel."""
        weight = self._shape(node.input[1])
        if node.op_type == "Conv":
            return self._elements(node.output[0]) * math.prod(weight[1:])
        shared = weight[1] if any(a.name == "transB" and a.i for a in node.attribute) else weight[0]
        return self._elements(node.output[0]) * shared

    def _count_readers(self) -> Counter[str]:
        """How many operators read a tensor, views and Q/DQ looked through; what leaves the network is read once more."""
        through: dict[str, str] = {}
        found: Counter[str] = Counter()
        for node in self.graph.node:
            sources = [through.get(name, name) for name in node.input]
            if node.op_type in _PASSED_ON:
                through[node.output[0]] = sources[0]
            else:
                found.update(set(sources))
        found.update(through.get(value.name, value.name) for value in self.graph.output)
        return found

    def _elements(self, name: str) -> int:
        return math.prod(self._shape(name))

    def _shape(self, name: str) -> tuple[int, ...]:
        shape = self._shapes.get(name, (0,))
        if not all(shape):
            raise ModelError(
                f"{self._name}: the shape of '{name}' cannot be told: export the network with a fixed size"
            )
        return shape


def _shaped(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy for one image, with all shapes worked out."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    weights = {weight.name for weight in copy.graph.initializer}
    sources = [value for value in copy.graph.input if value.name not in weights]
    del copy.graph.input[:], copy.graph.value_info[:]
    copy.graph.input.extend(sources)
    for value in (*copy.graph.input, *copy.graph.output):
        shape = value.type.tensor_type.shape
        if shape.dim:
            shape.dim[0].dim_value = 1
    return onnx.shape_inference.infer_shapes(copy, data_prop=True)
