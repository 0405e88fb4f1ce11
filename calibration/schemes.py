"""Schemes: how ranges become Q/DQ for one family of engines.

A scheme says which tensors are quantized and for which of their readers, and turns ranges and weights into quantization
parameters. ``qdq`` does the graph surgery, the same for all.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import onnx
import onnx_ir as ir

from edge_resnet.calibration.affine import Array, QuantParams, asymmetric, floating, symmetric
from edge_resnet.calibration.observers import TensorRange
from edge_resnet.calibration.topology import (
    MOVERS,
    activated,
    convolution_depths,
    convolutions,
    data,
    only_reader,
    quantized_sums,
    reader_behind_moves,
    shortcut_index,
    source_of_moves,
)
from edge_resnet.calibration.zero_points import fold_zero_points
from edge_resnet.errors import CalibrationError

Reads = dict[ir.Value, list[tuple[ir.Node, int]]]
"""For each quantized tensor, the (node, input index) pairs that read it through Q/DQ."""


class Scheme(ABC):
    """One family of engines."""

    name: ClassVar[str]
    precision: ClassVar[str] = "int8"
    """What the quantized layers compute in."""
    opset: ClassVar[int] = 13
    """The first in which QuantizeLinear makes it."""
    ir_version: ClassVar[int] = 7
    refinements: ClassVar[tuple[str, ...] | None] = None
    """Names in ``quantize.REFINEMENTS`` that are for it; None: all."""

    def left_float(self, graph: ir.Graph) -> tuple[str, ...]:
        """Names of convolutions that are never quantized."""
        return ()

    @abstractmethod
    def _reads(self, graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Node, int]]:
        """Every quantized read: tensor, reader, the reader's input index; may repeat."""

    @abstractmethod
    def range_name(self, value: ir.Value) -> str:
        """The tensor whose range quantizes ``value``."""

    @abstractmethod
    def activation_params(self, found: TensorRange) -> QuantParams:
        """Per-tensor parameters of an activation."""

    @abstractmethod
    def weight_params(self, weight: Array, bias: Array | None, activation: QuantParams) -> QuantParams:
        """Per-channel (axis 0) INT8 parameters of a convolution's weights M×C×kH×kW.

        Args:
            weight: float.
            bias: float, one a channel; None where there is none.
            activation: of the convolution's input.
        """

    @abstractmethod
    def summable(self, integers: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        """Weights M×C×kH×kW that were not rounded to the nearest, changed as far as the engines' sums need it."""

    @abstractmethod
    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        """Turns a Q/DQ model with these parameters into the form that the engines take."""

    @abstractmethod
    def bias_params(self, activation: QuantParams, weight: QuantParams) -> QuantParams | None:
        """Parameters of a convolution's bias; None keeps it float."""

    def reads(self, graph: ir.Graph, kept_float: Collection[str] = ()) -> Reads:
        """Where Q/DQ goes: one pair a tensor, shared by all its quantized readers, in order of first use.

        Args:
            graph: sorted topologically.
            kept_float: names of nodes whose inputs stay float.
        """
        found: dict[ir.Value, dict[tuple[ir.Node, int], None]] = {}
        for value, reader, index in self._reads(graph):
            if reader_behind_moves(reader).name not in kept_float:
                found.setdefault(value, {})[(reader, index)] = None
        return {value: list(uses) for value, uses in found.items()}


class TensorRtScheme(Scheme):
    """TensorRT's explicit quantization: INT8, zero point 0, per-tensor activations, per-channel weights, float bias.

    Ranges are asymmetric all the same: zero points go into biases at the end (``zero_points``), and a tensor behind a ReLU
    has all 256 integers.

    Quantized are the input of every convolution and, at a residual Add, the shortcut alone: TensorRT then fuses the Add
    into the convolution of the other branch, which reads the shortcut as INT8 (TensorRT developer guide, "Q/DQ
    Placement Recommendations"); sums that stay float (``quantized_sums``) take a float shortcut. A max pooling before a
    quantized tensor needs no pair of its own; an average pooling (ResNet-D) reads the INT8 tensor that the convolution
    beside it reads. Where a shortcut moves values (option A: Slice, Pad), they move as INT8, with the scale that they came
    with.
    """

    name = "tensorrt"

    def _reads(self, graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Node, int]]:
        for conv in convolutions(graph):
            yield data(conv), conv, 0
            pool = data(conv).producer()
            if pool is not None and pool.op_type == "AveragePool":
                yield data(pool), pool, 0
        depths = convolution_depths(graph)
        for add in quantized_sums(graph):
            index = shortcut_index(add, depths)
            value = data(add, index)
            yield value, add, index
            producer = value.producer()
            while producer is not None and producer.op_type in MOVERS:
                value = data(producer)
                yield value, producer, 0
                producer = value.producer()

    def range_name(self, value: ir.Value) -> str:
        return str(source_of_moves(value).name)

    def activation_params(self, found: TensorRange) -> QuantParams:
        return asymmetric(found.low, found.high)

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        return fold_zero_points(model)

    def weight_params(self, weight: Array, bias: Array | None, activation: QuantParams) -> QuantParams:
        return symmetric(np.abs(weight).max(axis=(1, 2, 3)), axis=0)

    def summable(self, integers: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        return integers

    def bias_params(self, activation: QuantParams, weight: QuantParams) -> QuantParams | None:
        return None


class Fp8Scheme(TensorRtScheme):
    """TensorRT's explicit quantization to FP8 (E4M3): where INT8's is, with one scale a tensor for weights too.

    FP8 spreads its numbers evenly over the logarithm, so a small channel beside a large one loses little. With a scale for
    each channel TensorRT-RTX would have the convolution write FP32, and scale, add and activate in another kernel; with one
    a tensor the convolution does that itself and writes FP16. Nor does clipping large values make the steps of small ones
    finer: the range is all that was seen. The first convolution stays float, for of a pixel's 8 bits FP8 keeps 4.
    """

    name = "fp8"
    precision = "fp8"
    opset = 19
    ir_version = 9
    refinements = ("bias",)

    def left_float(self, graph: ir.Graph) -> tuple[str, ...]:
        return tuple(str(conv.name) for conv in convolutions(graph)[:1])

    def activation_params(self, found: TensorRange) -> QuantParams:
        return floating(max(abs(found.minimum), abs(found.maximum)))

    def weight_params(self, weight: Array, bias: Array | None, activation: QuantParams) -> QuantParams:
        return floating(np.abs(weight).max())

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        return model


class CpuScheme(Scheme):
    """What ONNX Runtime fuses on CPUs: UINT8 activations, INT8 per-channel weights, INT32 bias, every tensor quantized.

    ONNX Runtime's kernels for CPUs without VNNI add two products of uint8 activation and int8 weight in 16 bits, which
    saturate without a word (Intel's VPMADDUBSW). So each channel's scale is widened until no two of its weights can
    overflow that sum: 255 · (w₁ + w₂) ≤ 32767. The engine is then exact on every CPU, at the price of at most one bit
    of weight resolution.
    """

    name = "cpu"

    PAIR_LIMIT = 127
    """Two weights whose real sum is ≤ 127 steps round to a sum ≤ 128, and 255 · 128 = 32640 fits in int16."""
    BIAS_LIMIT = 2.0**30
    """The largest quantized bias, which leaves the other half of INT32 to the sum of products. A channel of tiny weights
    and a plain bias, as training leaves them, would go beyond it; its scale is widened."""

    def _reads(self, graph: ir.Graph) -> Iterator[tuple[ir.Value, ir.Node, int]]:
        values = [data(conv) for conv in convolutions(graph)]
        values += [activated(conv) for conv in convolutions(graph)]
        for add in quantized_sums(graph):
            values += [data(add, 0), data(add, 1), activated(add)]
        for value in values:
            for use in value.uses():
                yield value, use.node, use.idx
            producer = value.producer()
            while producer is not None and producer.op_type in (*MOVERS, "MaxPool"):
                value = data(producer)
                yield value, producer, 0
                producer = value.producer()

    def range_name(self, value: ir.Value) -> str:
        value = source_of_moves(value)
        reader = only_reader(value)
        if reader is not None and reader.op_type == "MaxPool":
            value = reader.outputs[0]  # pooling on integers needs one scale on both sides; the rest never leaves
        return str(value.name)

    def activation_params(self, found: TensorRange) -> QuantParams:
        return asymmetric(found.low, found.high)

    def finish(self, model: onnx.ModelProto) -> onnx.ModelProto:
        return model

    def weight_params(self, weight: Array, bias: Array | None, activation: QuantParams) -> QuantParams:
        flat = np.sort(weight.reshape(len(weight), -1), axis=1)
        flat = np.pad(flat, ((0, 0), (0, max(0, 2 - flat.shape[1]))))
        two_largest = np.clip(flat[:, -2:], 0, None).sum(1)
        two_smallest = np.clip(-flat[:, :2], 0, None).sum(1)
        pair = np.maximum(two_largest, two_smallest)
        amax = np.maximum(np.abs(weight).max(axis=(1, 2, 3)), pair * (127 / self.PAIR_LIMIT))
        if bias is not None:
            amax = np.maximum(amax, 127 * np.abs(bias) / (self.BIAS_LIMIT * activation.scale))
        return symmetric(amax, axis=0)

    def summable(self, integers: npt.NDArray[np.int8]) -> npt.NDArray[np.int8]:
        flat = integers.reshape(len(integers), -1).astype(np.int64)
        for sign in (1, -1):
            rows, order = np.arange(len(flat)), np.argsort(-sign * flat, axis=1, kind="stable")
            first, second = order[:, 0], order[:, min(1, flat.shape[1] - 1)]
            pair = np.maximum(sign * flat[rows, first], 0) + np.maximum(sign * flat[rows, second], 0)
            excess = np.where(first == second, 0, np.maximum(pair - (self.PAIR_LIMIT + 1), 0))
            flat[rows, first] -= sign * excess
        return flat.astype(np.int8).reshape(integers.shape)

    def bias_params(self, activation: QuantParams, weight: QuantParams) -> QuantParams | None:
        return QuantParams(activation.scale * weight.scale, 0, np.int32, axis=0)


SCHEMES: dict[str, Scheme] = {scheme.name: scheme for scheme in (TensorRtScheme(), Fp8Scheme(), CpuScheme())}
"""Every scheme by the name that ``--scheme`` takes."""
INT8_SCHEMES = {name: scheme for name, scheme in SCHEMES.items() if scheme.precision == "int8"}
"""Those to integers, which every refinement is for."""


def scheme_named(name: str) -> Scheme:
    """Looks a scheme up.

    Raises:
        CalibrationError: there is none of this name; the message lists those that exist.
    """
    if name not in SCHEMES:
        raise CalibrationError(f"unknown scheme '{name}': choose one of {', '.join(SCHEMES)}")
    return SCHEMES[name]
