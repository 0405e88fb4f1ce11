"""A quantized network in torch, whose weights, biases and scales can learn.

The graph is that of ``qdq``; its QuantizeLinear and DequantizeLinear run as fake quantization with straight-through
gradients (``torch_graph``). An activation's scale learns through both of them (Esser et al., "Learned Step Size
Quantization", arXiv:1902.08153). Weights learn in units of their scales, which stay.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import onnx
from torch import Tensor

from edge_resnet.calibration.qdq import place_qdq
from edge_resnet.calibration.refine import EXACT_PIXELS, Refined, replace_constant
from edge_resnet.calibration.schemes import Scheme
from edge_resnet.calibration.topology import convolutions, data, load_graph, own_constants, save_graph
from edge_resnet.calibration.torch_graph import constants_of

LARGEST = 127


@dataclass(frozen=True)
class Weight:
    """Of a convolution, M×C×kH×kW, in units of ``scale``."""

    scale: Tensor
    """M×1×1×1."""
    wanted: Tensor
    """Before any rounding."""
    start: Tensor
    """As they are; integers if they were rounded."""

    @property
    def live(self) -> Tensor:
        """Where weights may change: what is 0 before any rounding was taken out (``sparsity``), and stays 0."""
        return self.wanted != 0


@dataclass(frozen=True)
class Bias:
    """Of a convolution, M."""

    start: Tensor
    unit: Tensor
    """What a step of the input moves through a weight of full scale."""


@dataclass(frozen=True)
class FakeQuantized:
    """A network that is ready to learn, and the values that it starts from."""

    refined: Refined
    scheme: Scheme
    nodes: tuple[onnx.NodeProto, ...]
    """Without those that make float weights and biases of integers: these are put in their place."""
    constants: dict[str, Tensor]
    weights: dict[str, Weight]
    """By the convolution's input, as the next two are by theirs."""
    biases: dict[str, Bias]
    ranges: dict[str, str]
    """The range of each activation's scale; without the exact input's, which does not learn."""

    @classmethod
    def of(cls, refined: Refined, scheme: Scheme, keep_float: tuple[str, ...] = ()) -> FakeQuantized:
        """Args and errors are those of ``place_qdq``."""
        loaded = load_graph(refined.model)
        own_constants(loaded.graph)
        placed = place_qdq(refined.model, refined.table, scheme, keep_float).model
        constants, now = constants_of(placed), constants_of(save_graph(loaded))
        target = load_graph(refined.target)
        own_constants(target.graph)
        before = constants_of(save_graph(target))
        reads = {f"{value.name}.scale": scheme.range_name(value) for value in scheme.reads(loaded.graph, keep_float)}
        weights, biases = {}, {}
        for conv in (node for node in placed.graph.node if node.op_type == "Conv" and node.input[1] not in constants):
            name = _original(conv.input[1])
            scale = constants[f"{name}.scale"].reshape(-1, 1, 1, 1)
            weights[conv.input[1]] = Weight(scale, before[name] / scale, now[name] / scale)
            if len(conv.input) > 2:
                step = constants[f"{_original(conv.input[0])}.scale"]
                biases[conv.input[2]] = Bias(now[_original(conv.input[2])], step * LARGEST * scale.flatten())
        return cls(
            refined,
            scheme,
            tuple(node for node in placed.graph.node if not {*node.output} & {*weights, *biases}),
            constants,
            weights,
            biases,
            {scale: name for scale, name in reads.items() if name != EXACT_PIXELS},
        )

    def scale(self, name: str) -> Tensor:
        """Of a range, as it is."""
        return self.constants[next(scale for scale, found in self.ranges.items() if found == name)]

    def written(
        self, integers: Mapping[str, Tensor], biases: Mapping[str, Tensor], scales: Mapping[str, float]
    ) -> Refined:
        """The network with what was learned.

        Args:
            integers: of all weights, by their keys in ``weights``.
            biases: of those that changed.
            scales: of ranges, as factors.
        """
        loaded = load_graph(self.refined.model)
        own_constants(loaded.graph)
        weight_scales = {}
        for conv in convolutions(loaded.graph):
            weight, bias = data(conv, 1), conv.inputs[2] if len(conv.inputs) > 2 else None
            key = f"{weight.name}.dequantized"
            if key in integers:
                summable = self.scheme.summable(integers[key].numpy().astype(np.int8))
                scale = self.weights[key].scale.numpy()
                replace_constant(weight, summable * scale)
                weight_scales[str(weight.name)] = tuple(float(each) for each in scale.flatten())
            for name in (str(bias and bias.name), f"{bias and bias.name}.dequantized"):
                if bias is not None and name in biases:
                    replace_constant(bias, biases[name].numpy())
        made, table = save_graph(loaded), self.refined.table
        ranges = {
            name: replace(table[name], low=table[name].low * by, high=table[name].high * by, amax=table[name].amax * by)
            for name, by in scales.items()
        }
        return Refined(made, replace(table.with_ranges(made, ranges), weight_scales=weight_scales), self.refined.target)


def _original(name: str) -> str:
    return name.removesuffix(".dequantized")
